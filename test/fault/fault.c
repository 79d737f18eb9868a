/*
 * fault.c
 *	  Makes the end of a transaction as bad as it can be, for tests.
 *
 * Callbacks are run in the opposite order of their registration.  Preloaded before
 * rebate, this library has one that runs behind rebate's; fault_arm() registers
 * another that runs before it.  Between the two no memory is to be had, and what
 * else was asked for holds.
 */
#define _GNU_SOURCE
#include "postgres.h"

#include <dlfcn.h>
#include <unistd.h>

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#if PG_VERSION_NUM >= 170000
#include "utils/memutils_internal.h"
#endif

PG_MODULE_MAGIC;

void		_PG_init(void);

PG_FUNCTION_INFO_V1(fault_arm);
PG_FUNCTION_INFO_V1(fault_windows);
PG_FUNCTION_INFO_V1(fault_hold_lock);

#define MAX_KINDS 8

/* Kinds of memory contexts, each with the same functions but one that fails */
static const MemoryContextMethods *kinds[MAX_KINDS];
static MemoryContextMethods failing[MAX_KINDS];
static int	nkinds = 0;
static int	denied = 0;

static bool armed = false;
static bool in_window = false;
static int	windows = 0;
static char wait_for[MAXPGPATH] = "";
static bool cancel,
			terminate,
			do_allocate,
			do_raise,
			do_lock;

static volatile int *out_of_memory;
static volatile int *out_of_memory_denied;

static void give_memory(MemoryContext context);

/* The failure itself must be reported, so from then on there is memory again. */
static void
deny(void)
{
	denied++;
	*out_of_memory = 0;
	give_memory(TopMemoryContext);
}

#if PG_VERSION_NUM >= 170000
static void *
failing_alloc(MemoryContext context, Size size, int flags)
{
	deny();
	return MemoryContextAllocationFailure(context, size, flags);
}
#else
static void *
failing_alloc(MemoryContext context, Size size)
{
	deny();
	return NULL;
}
#endif

static const MemoryContextMethods *
failing_kind(const MemoryContextMethods *kind)
{
	int			i = 0;

	while (i < nkinds && kinds[i] != kind)
		i++;
	if (i == MAX_KINDS)
		return kind;
	if (i == nkinds)
	{
		nkinds++;
		kinds[i] = kind;
		failing[i] = *kind;
		failing[i].alloc = failing_alloc;
	}
	return &failing[i];
}

static void
take_memory(MemoryContext context)
{
	context->methods = failing_kind(context->methods);
	for (MemoryContext c = context->firstchild; c; c = c->nextchild)
		take_memory(c);
}

static void
give_memory(MemoryContext context)
{
	for (int i = 0; i < nkinds; i++)
		if (context->methods == &failing[i])
			context->methods = kinds[i];
	for (MemoryContext c = context->firstchild; c; c = c->nextchild)
		give_memory(c);
}

static bool
is_end(XactEvent event)
{
	return event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE;
}

/* Before rebate's callback */
static void
begin_window(XactEvent event, void *arg)
{
	if (!armed || !is_end(event))
		return;
	armed = false;
	in_window = true;
	windows++;
	while (wait_for[0] && access(wait_for, F_OK) == 0)
		pg_usleep(1000);
	if (cancel || terminate)
	{
		InterruptPending = true;
		QueryCancelPending = cancel;
		ProcDiePending = terminate;
	}
	denied = 0;
	*out_of_memory_denied = 0;
	take_memory(TopMemoryContext);
	*out_of_memory = 1;
}

/* What somebody could do in a callback by mistake */
static void
make_mistake(XactEvent event, void *arg)
{
	if (!in_window || !is_end(event))
		return;
	if (do_allocate)
		(void) palloc(10);
	if (do_raise)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("a mistake")));
	if (do_lock)
		LockRelationOid(99999, AccessExclusiveLock);
}

/* Behind rebate's callback */
static void
end_window(XactEvent event, void *arg)
{
	if (!in_window || !is_end(event))
		return;
	in_window = false;
	*out_of_memory = 0;
	give_memory(TopMemoryContext);
	if (denied > 0 || *out_of_memory_denied > 0)
		elog(PANIC, "the end of a transaction asked for memory %d times, and %d times by malloc",
			 denied, *out_of_memory_denied);
}

void
_PG_init(void)
{
	RegisterXactCallback(end_window, NULL);
	out_of_memory = dlsym(RTLD_DEFAULT, "out_of_memory");
	out_of_memory_denied = dlsym(RTLD_DEFAULT, "out_of_memory_denied");
	if (out_of_memory == NULL || out_of_memory_denied == NULL)
		elog(ERROR, "LD_PRELOAD does not have out_of_memory.so");
}

/*
 * fault_arm(what): for the end of this transaction.  "what" names, with commas,
 * cancel, terminate, allocate, raise, lock; or a file: the window begins when it is
 * gone.
 */
Datum
fault_arm(PG_FUNCTION_ARGS)
{
	static bool registered = false;
	char	   *what = text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (!registered)
	{
		RegisterXactCallback(make_mistake, NULL);
		RegisterXactCallback(begin_window, NULL);
	}
	registered = true;
	strlcpy(wait_for, what[0] == '/' ? what : "", sizeof(wait_for));
	if (what[0] == '/')
		what = "";
	cancel = strstr(what, "cancel") != NULL;
	terminate = strstr(what, "terminate") != NULL;
	do_allocate = strstr(what, "allocate") != NULL;
	do_raise = strstr(what, "raise") != NULL;
	do_lock = strstr(what, "lock") != NULL;
	armed = true;
	PG_RETURN_VOID();
}

/* fault_windows(): how many there were in this session */
Datum
fault_windows(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(windows);
}

/* fault_hold_lock(file): hold rebate's lock over its shared memory until the file is gone. */
Datum
fault_hold_lock(PG_FUNCTION_ARGS)
{
	char	   *file = text_to_cstring(PG_GETARG_TEXT_PP(0));
	LWLock	   *lock = &GetNamedLWLockTranche("rebate")->lock;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	while (access(file, F_OK) == 0)
		pg_usleep(1000);
	LWLockRelease(lock);
	PG_RETURN_VOID();
}
