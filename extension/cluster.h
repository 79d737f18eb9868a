/*
 * cluster.h
 *	  Clusters that this database was in before pg_upgrade brought it here.
 */
#ifndef REBATE_CLUSTER_H
#define REBATE_CLUSTER_H

#include "rebate.h"

/* Was this database, with its transaction ids, once in that cluster? */
extern bool cluster_is_former(uint64 system_identifier);

#endif							/* REBATE_CLUSTER_H */
