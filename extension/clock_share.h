/*
 * clock_share.h
 *	  What a run of the clock shares with the workers that help it.
 */
#ifndef REBATE_CLOCK_SHARE_H
#define REBATE_CLOCK_SHARE_H

#include "rebate.h"

#include "port/atomics.h"
#include "storage/dsm.h"
#include "storage/latch.h"

#include "clock.h"
#include "clock_window.h"

#define MAX_CLOCK_WORKERS	8

/*
 * A window, and who has it.  The run fills one that is free; run and workers take
 * those that wait, post them, and free them.
 */
typedef enum SlotState
{
	SLOT_FREE,
	SLOT_WAITS,
	SLOT_OF_RUN,
	SLOT_OF_WORKER				/* of the first; of the others one more each */
} SlotState;

typedef struct ShareSlot
{
	pg_atomic_uint32 state;
	DueWindow	window;
} ShareSlot;

/* In shared memory of its own, which ends with the last of them */
typedef struct ClockShare
{
	char		version[32];	/* of the library that made it */
	/* what the workers are to be */
	Oid			dbid;
	Oid			session_user;
	Oid			user;
	double		batch_time;
	/* how they wake each other */
	Latch	   *run;
	Latch	   *workers[MAX_CLOCK_WORKERS]; /* NULL: not there yet */
	pg_atomic_uint32 over;		/* the run has ended, however it did */
	/* what the workers committed, and the run has not counted yet */
	pg_atomic_uint64 done;
	pg_atomic_uint64 busy;
	pg_atomic_uint64 batches;
	int			nslots;
	ShareSlot	slots[FLEXIBLE_ARRAY_MEMBER];
} ClockShare;

/* GUC rebate.clock_workers */
extern int	rebate_clock_workers;

/* Of a run: its end of the share, and the workers that it asked for */
typedef struct ClockCrew ClockCrew;

/*
 * Ask for workers; NULL, with a NOTICE, if there is none to be had.  They leave when
 * the run ends.
 */
extern ClockCrew *crew_begin(const ClockRun *run, int nworkers);

extern int	crew_size(const ClockCrew *crew);

/* A window to be filled, which is then handed out; NULL: all are in use */
extern DueWindow *crew_free_window(ClockCrew *crew);
extern void crew_hand_out(ClockCrew *crew, DueWindow *window);

/*
 * A window for the run itself, one that nobody has taken or whose worker is gone;
 * NULL if there is none
 */
extern DueWindow *crew_take(ClockCrew *crew);

/* Count in what workers did since the last time.  Is there a window with one of them, or for one? */
extern void crew_count(ClockCrew *crew, ClockRun *run);
extern bool crew_has_work(const ClockCrew *crew);

/* Tell the caller of workers that left early. */
extern void crew_report(ClockCrew *crew);

/* Both sides: take a window that waits, as this one (NULL: there is none); free it when it is done */
extern DueWindow *share_take(ClockShare *share, uint32 taker);
extern void share_release(DueWindow *window);

#endif							/* REBATE_CLOCK_SHARE_H */
