/*
 * statistics.h
 *	  Who may see the views rebate.stat_*.
 */
#ifndef REBATE_STATISTICS_H
#define REBATE_STATISTICS_H

#include "rebate.h"

/* Raise 42501 unless the current user may */
extern void statistics_check_user(const char *function);

#endif							/* REBATE_STATISTICS_H */
