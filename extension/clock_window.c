/*
 * clock_window.c
 *	  Rows that are due and that one process matures, batch after batch.
 *
 * What is more than one batch does not come in the order of accounts.  A large
 * statement wrote the rebates of an account, and those of its neighbours, into one
 * page, which has room for few new versions at a time; after a commit it is
 * pruned, and has room for the next.  So neighbours are spread over several
 * batches, but not far, since their pages are in the processor's cache then.
 */
#include "rebate.h"

#include "clock_window.h"

/* Rows of the first batch, and at most of one */
#define FIRST_BATCH		32
#define MAX_BATCH		2000

/* Accounts of a batch: as many as a commit announces one by one */
#define MAX_ACCOUNTS	250

/* Rows of an account that are moved together if there are many to be moved */
#define UNIT		5

/* Of so many units in a row no two are in one batch */
#define SPREAD		32

/* Where a walk along the rows is: the class of a unit, and rows of it so far */
typedef struct UnitWalk
{
	int			class;
	int			in_unit;
} UnitWalk;

/* The class of the next row, "first" being the window's first */
static inline int
next_class(UnitWalk *walk, const DueRow *row, const DueRow *first)
{
	if (row > first && (walk->in_unit == UNIT || row->account_id != row[-1].account_id))
	{
		walk->class = (walk->class + 1) % SPREAD;
		walk->in_unit = 0;
	}
	walk->in_unit++;
	return walk->class;
}

/*
 * Copy rows so that first comes every SPREADth unit, then every SPREADth from the
 * second one on, and so forth.  Accounts ascend in each of these classes.
 */
static void
copy_spread(DueRow *to, const DueRow *rows, int n)
{
	int			places[SPREAD + 1] = {0};
	UnitWalk	walk = {0};

	for (int i = 0; i < n; i++)
		places[next_class(&walk, &rows[i], rows) + 1]++;
	for (int i = 1; i < SPREAD; i++)
		places[i] += places[i - 1];
	walk = (UnitWalk) {0};
	for (int i = 0; i < n; i++)
		to[places[next_class(&walk, &rows[i], rows)]++] = rows[i];
}

/* How many rows make the window: not half of an account, unless it is all there is. */
static int
whole_accounts(const DueRow *rows, int64 nrows, int64 wanted)
{
	int			n = (int) Min(Min(nrows, wanted), MAX_WINDOW);
	int			whole = n;

	if (n == nrows)
		return n;
	while (whole > 0 && rows[whole].account_id == rows[whole - 1].account_id)
		whole--;
	return whole > 0 ? whole : n;
}

int
window_fill(DueWindow *window, const DueRow *rows, int64 nrows, int64 wanted)
{
	int			n = whole_accounts(rows, nrows, wanted);

	/* what fits into one batch, alone, stays in the order of accounts */
	if (nrows > MAX_BATCH)
		copy_spread(window->rows, rows, n);
	else
		memcpy(window->rows, rows, sizeof(DueRow) * n);
	window->nrows = n;
	window->next = 0;
	return n;
}

void
window_batch_init(ClockBatch *batch)
{
	clock_batch_init(batch, FIRST_BATCH, MAX_BATCH);
}

/*
 * How many of the rows that are left go into the next batch.  Accounts ascend in
 * it, so that none comes twice.
 */
static int
next_batch(const DueWindow *window, int most)
{
	int			naccounts = 0;
	int			n = 0;

	while (n < most && window->next + n < window->nrows)
	{
		const DueRow *row = &window->rows[window->next + n];

		if ((n == 0 || row->account_id != row[-1].account_id) &&
			(++naccounts > MAX_ACCOUNTS || (n > 0 && row->account_id < row[-1].account_id)))
			break;
		n++;
	}
	return n;
}

int
window_post(Store *store, const DueWindow *window, ClockBatch *batch, PostedDue *posted)
{
	int			n = next_batch(window, batch->rows);

	n = post_mature(store, &window->rows[window->next], n, batch, posted);
	clock_batch_end(batch, n);
	return n;
}
