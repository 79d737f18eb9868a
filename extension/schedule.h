/*
 * schedule.h
 *	  The jobs of the clock in pg_cron.
 */
#ifndef REBATE_SCHEDULE_H
#define REBATE_SCHEDULE_H

#include "rebate.h"

/* Delete runs of our jobs that ended a week before "upto", at most "limit"; their number */
extern int64 schedule_prune(TimestampTz upto, int limit);

/* Tell of what keeps the jobs from running; returns whether nothing does */
typedef void (*ScheduleReport) (void *arg, const char *subject, const char *status,
								const char *detail, const char *remedy);
extern bool schedule_check(ScheduleReport report, void *arg);

#endif							/* REBATE_SCHEDULE_H */
