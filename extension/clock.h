/*
 * clock.h
 *	  The jobs of the clock: what happens because time passes.
 */
#ifndef REBATE_CLOCK_H
#define REBATE_CLOCK_H

#include "rebate.h"
#include "store.h"

/* One run of a job, from its first step to its last; lives in a context of its own */
typedef struct ClockRun
{
	const struct ClockJob *job;
	MemoryContext context;
	TimestampTz upto;
	const char *note;			/* what the caller says to it; NULL: nothing */
	int64		expected;			/* entries, as he says; negative: he does not */
	TimestampTz progress_at;
	int64		batches;
	int64		done;
	int64		busy;			/* left to others so far */
	void	   *state;			/* of the job */
} ClockRun;

typedef struct ClockJob
{
	const char *name;
	int			right;			/* that its caller must have */
	bool		archive;		/* changes what is archived: one of these at a time */
	/* one batch, in a transaction of its own; false: that was the last */
	bool		(*step) (Store *store, ClockRun *run);
} ClockJob;

/* clock_mature.c */
extern bool clock_mature_step(Store *store, ClockRun *run);

/* clock_age.c */
extern bool clock_age_step(Store *store, ClockRun *run);

/* clock_jobs.c */
extern bool clock_retry_step(Store *store, ClockRun *run);
extern bool clock_audit_step(Store *store, ClockRun *run);
extern bool clock_prune_step(Store *store, ClockRun *run);
extern bool clock_fold_step(Store *store, ClockRun *run);

/* The names of all jobs, from 0 on; NULL behind the last */
extern const char *clock_job_name(int i);

/* clock_archive.c */
extern bool clock_archive_step(Store *store, ClockRun *run);

/* clock_drop.c */
extern bool clock_drop_step(Store *store, ClockRun *run);

/* One step of a run of the job of this name that takes this right; false: it is over */
extern bool clock_run_step(Store *store, int right, const char *name, TimestampTz upto,
						   const char *note, int64 expected);

/* An abort ends a run */
extern void clock_at_abort(void);

#endif							/* REBATE_CLOCK_H */
