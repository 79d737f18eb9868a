/*
 * notify_queue.c
 *	  Makes the queue of notifications full without writing 8 GB: its oldest reader
 *	  is said to be as far behind as the queue is long.
 *
 * From 17 on a setting makes the queue small.  Before, what is here of the
 * server's structures is the same since 13.
 */
#include "postgres.h"

#include "access/slru.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/backendid.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#if PG_VERSION_NUM >= 170000
#error "use max_notify_queue_pages"
#endif

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(notify_queue_fill);
PG_FUNCTION_INFO_V1(notify_queue_drain);

typedef struct Position
{
	int			page;
	int			offset;
} Position;

typedef struct Reader
{
	int32		pid;
	Oid			dboid;
	BackendId	next;
	Position	pos;
} Reader;

typedef struct Queue
{
	Position	head;
	Position	tail;
	int			stop_page;
	BackendId	first;
	TimestampTz last_warning;
	Reader		readers[FLEXIBLE_ARRAY_MEMBER];
} Queue;

#define PAGES (SLRU_PAGES_PER_SEGMENT * 0x10000)

/* As they were, in the session that fills and drains */
static Position reader_was;
static Position tail_was;
static int	stop_was;

static Queue *
find_queue(int pid, Reader **reader)
{
	bool		found;
	Size		size = offsetof(Queue, readers) + (MaxBackends + 1) * sizeof(Reader);
	/* raises if the server's structure has another size */
	Queue	   *queue = ShmemInitStruct("Async Queue Control", size, &found);

	for (BackendId i = queue->first; i > 0; i = queue->readers[i].next)
	{
		if (queue->readers[i].pid == pid)
		{
			*reader = &queue->readers[i];
			return queue;
		}
	}
	elog(ERROR, "process %d does not listen", pid);
}

/* notify_queue_fill(pid): a session that listens and does not read */
Datum
notify_queue_fill(PG_FUNCTION_ARGS)
{
	Reader	   *reader;
	Queue	   *queue = find_queue(PG_GETARG_INT32(0), &reader);

	LWLockAcquire(NotifyQueueLock, LW_EXCLUSIVE);
	reader_was = reader->pos;
	tail_was = queue->tail;
	stop_was = queue->stop_page;
	reader->pos.page = (queue->head.page + 1 + PAGES / 2) % PAGES;
	queue->tail.page = queue->stop_page = reader->pos.page;
	LWLockRelease(NotifyQueueLock);
	PG_RETURN_VOID();
}

/* notify_queue_drain(pid): by the same session, before that one goes on */
Datum
notify_queue_drain(PG_FUNCTION_ARGS)
{
	Reader	   *reader;
	Queue	   *queue = find_queue(PG_GETARG_INT32(0), &reader);

	LWLockAcquire(NotifyQueueLock, LW_EXCLUSIVE);
	reader->pos = reader_was;
	queue->tail = tail_was;
	queue->stop_page = stop_was;
	LWLockRelease(NotifyQueueLock);
	PG_RETURN_VOID();
}
