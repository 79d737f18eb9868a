/*
 * clock_window.h
 *	  Rows that are due and that one process matures, batch after batch.
 */
#ifndef REBATE_CLOCK_WINDOW_H
#define REBATE_CLOCK_WINDOW_H

#include "rebate.h"

#include "clock_batch.h"
#include "post_clock.h"
#include "store.h"

/* Rows at most */
#define MAX_WINDOW		16384

/* In shared memory if there are workers */
typedef struct DueWindow
{
	int			nrows;
	int			next;			/* those before it are done, and committed */
	DueRow		rows[MAX_WINDOW];
} DueWindow;

/*
 * Fill a window from rows that are sorted by account.  The rows of an account are
 * in one window if they fit, so that two processes do not meet there.  Returns how
 * many rows were taken: "wanted" or not much fewer, at most MAX_WINDOW.
 */
extern int	window_fill(DueWindow *window, const DueRow *rows, int64 nrows, int64 wanted);

/* What a process knows of its batches before the first */
extern void window_batch_init(ClockBatch *batch);

/*
 * Post the next batch of a window.  Returns how many rows it has looked at; the
 * caller moves the window's place on, after the commit if others may go on there.
 */
extern int	window_post(Store *store, const DueWindow *window, ClockBatch *batch,
						PostedDue *posted);

static inline bool
window_is_done(const DueWindow *window)
{
	return window->next >= window->nrows;
}

#endif							/* REBATE_CLOCK_WINDOW_H */
