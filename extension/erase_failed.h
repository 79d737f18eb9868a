/*
 * erase_failed.h
 *	  Orders of an erased member that were set aside.
 */
#ifndef REBATE_ERASE_FAILED_H
#define REBATE_ERASE_FAILED_H

#include "rebate.h"
#include "store.h"

typedef struct FailedOrders FailedOrders;

/* Find those of a member, before anything is locked */
extern FailedOrders *failed_look(Store *store, const char *member);

/* Decide them again, and those that were set aside meanwhile: he is erased now */
extern void failed_decide(FailedOrders *failed);

#endif							/* REBATE_ERASE_FAILED_H */
