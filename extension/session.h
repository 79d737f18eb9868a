/*
 * session.h
 *	  The settings under which our own SQL is read and names are written.
 */
#ifndef REBATE_SESSION_H
#define REBATE_SESSION_H

/*
 * Open a nest level of settings in which names are found in pg_catalog only, and
 * literals and identifiers are read and written in the one way that we record.
 * AtEOXact_GUC(true, level) ends it, as does an error.
 */
extern int	session_pin(void);

/* The same for names that are written, and no more: names are read in the caller's path */
extern int	session_pin_names(void);

#endif							/* REBATE_SESSION_H */
