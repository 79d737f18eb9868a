/*
 * out_of_memory.c
 *	  A malloc that fails when it is told to; for LD_PRELOAD.
 */
#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);

/* Set by fault.c: fail, and how often that happened */
volatile int out_of_memory = 0;
volatile int out_of_memory_denied = 0;

static void *
deny(void)
{
	out_of_memory_denied++;
	errno = ENOMEM;
	return NULL;
}

void *
malloc(size_t size)
{
	return out_of_memory ? deny() : __libc_malloc(size);
}

void *
calloc(size_t n, size_t size)
{
	return out_of_memory ? deny() : __libc_calloc(n, size);
}

void *
realloc(void *p, size_t size)
{
	return out_of_memory ? deny() : __libc_realloc(p, size);
}
