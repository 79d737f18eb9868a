/*
 * audit.h
 *	  What the two parts of the audit share.
 */
#ifndef REBATE_AUDIT_H
#define REBATE_AUDIT_H

#include "rebate.h"
#include "nodes/execnodes.h"
#include "source.h"
#include "store.h"

/* Add a violation to the result */
extern void audit_report(ReturnSetInfo *result, const char *part, const char *violation,
						 const char *subject, const char *detail);

extern void audit_ledger(Store *store, ReturnSetInfo *result);
extern void audit_rules(Store *store, ReturnSetInfo *result);

/* Compare rebates with the sums over their dropped entries */
extern void audit_carried(Store *store, ReturnSetInfo *result, Snapshot snapshot);

/* Queries about the archive, which not all stores have: violation, subject, detail; NULL behind the last */
extern const char *const audit_archive_queries[];

/*
 * Look at every order of a source, and call "report" for each violation found.
 * Deferred orders and those set aside are passed over.
 */
typedef void (*AuditOrder) (void *arg, Source *source, const char *key, const char *violation,
							const char *detail);
extern void audit_orders(Store *store, Source *source, AuditOrder report, void *report_arg);

extern void audit_sources(Store *store, ReturnSetInfo *result);

#endif							/* REBATE_AUDIT_H */
