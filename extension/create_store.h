/*
 * create_store.h
 *	  Makes the store.
 */
#ifndef REBATE_CREATE_STORE_H
#define REBATE_CREATE_STORE_H

#include "rebate.h"

/*
 * The owner of the store, which is created, with a NOTICE, if there is none.
 * Raises RB001 if schema rebate_data is there but is not ours.
 */
extern Oid create_store_if_missing(void);

#endif							/* REBATE_CREATE_STORE_H */
