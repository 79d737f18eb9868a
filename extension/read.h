/*
 * read.h
 *	  What the functions that explain and read have in common.
 */
#ifndef REBATE_READ_H
#define REBATE_READ_H

#include "rebate.h"
#include "nodes/execnodes.h"
#include "source.h"

/* The attached source of argument 0; checks the caller, posts what waits */
extern Source *read_source(FunctionCallInfo fcinfo, Store **store, int rights,
						   const char *function);

/* The same, for a function that tells what rows say; raises for who may not see them */
extern Source *read_visible_source(FunctionCallInfo fcinfo, Store **store, int rights,
								   const char *function);

/* Canonical key from the variadic arguments after the first */
extern char *read_key(FunctionCallInfo fcinfo, Source *source);

/* Append the rows of the last SPI result to a materialized result */
extern void read_return_spi(ReturnSetInfo *rsinfo);

#endif							/* REBATE_READ_H */
