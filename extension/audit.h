/*
 * audit.h
 *	  What the two parts of the audit share.
 */
#ifndef REBATE_AUDIT_H
#define REBATE_AUDIT_H

#include "rebate.h"
#include "nodes/execnodes.h"
#include "store.h"

/* Add a violation to the result */
extern void audit_report(ReturnSetInfo *result, const char *part, const char *violation,
						 const char *subject, const char *detail);

extern void audit_ledger(Store *store, ReturnSetInfo *result);
extern void audit_sources(Store *store, ReturnSetInfo *result);

#endif							/* REBATE_AUDIT_H */
