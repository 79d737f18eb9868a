/*
 * wal_flush.h
 *	  Nothing is told to anybody that a crash could take back.
 */
#ifndef REBATE_WAL_FLUSH_H
#define REBATE_WAL_FLUSH_H

/*
 * Flush all WAL that was inserted before this call.  Called after taking a
 * snapshot it makes everything that the snapshot sees durable, asynchronous
 * commits included.  Does nothing on a standby.
 */
extern void wal_flush_inserted(void);

#endif							/* REBATE_WAL_FLUSH_H */
