/*
 * audit_parts.h
 *	  Whether the rows of one order agree, as the audit's pass asks.
 */
#ifndef REBATE_AUDIT_PARTS_H
#define REBATE_AUDIT_PARTS_H

#include "rebate.h"
#include "utils/snapshot.h"

#include "ledger.h"
#include "store.h"

typedef struct OrderParts OrderParts;

extern OrderParts *parts_begin(Store *store, Snapshot snapshot);

/* The next row of rebate_data.accrual as they lie on disk: does it agree with others of its order? */
extern bool parts_agree(OrderParts *parts, const FormData_accrual *row, const text *order_key);
extern void parts_end(OrderParts *parts);

#endif							/* REBATE_AUDIT_PARTS_H */
