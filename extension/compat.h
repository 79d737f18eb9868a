/*
 * compat.h
 *	  Every difference between the supported majors of PostgreSQL, and none
 *	  anywhere else.
 */
#ifndef REBATE_COMPAT_H
#define REBATE_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "rebate needs PostgreSQL 15 or later"
#endif

/* 19 reports soft errors through an error-save context; we want hard ones */
#if PG_VERSION_NUM >= 190000
#define numeric_add_hard(a, b)	numeric_add_safe(a, b, NULL)
#define numeric_sub_hard(a, b)	numeric_sub_safe(a, b, NULL)
#define numeric_mul_hard(a, b)	numeric_mul_safe(a, b, NULL)
#else
#define numeric_add_hard(a, b)	numeric_add_opt_error(a, b, NULL)
#define numeric_sub_hard(a, b)	numeric_sub_opt_error(a, b, NULL)
#define numeric_mul_hard(a, b)	numeric_mul_opt_error(a, b, NULL)
#endif

/* 18: index_beginscan takes an instrumentation argument */
#if PG_VERSION_NUM >= 180000
#define index_beginscan_compat(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define index_beginscan_compat(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

#endif							/* REBATE_COMPAT_H */
