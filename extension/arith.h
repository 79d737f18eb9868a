/*
 * arith.h
 *	  Exact arithmetic of rebates: no catalog, no SPI, no settings.
 *
 * A result before rounding is a fraction num / den with den > 0, so that there
 * is one division and one rounding.
 */
#ifndef REBATE_ARITH_H
#define REBATE_ARITH_H

#include "rebate.h"

typedef enum Rounding
{
	ROUND_HALF_UP,				/* ties away from zero */
	ROUND_HALF_EVEN,
	ROUND_HALF_DOWN,			/* ties toward zero */
	ROUND_DOWN,					/* toward zero */
	ROUND_UP					/* away from zero */
} Rounding;

typedef struct Fraction
{
	Numeric		num;
	Numeric		den;			/* > 0; NULL stands for 1 */
} Fraction;

/* sign of a finite numeric: -1, 0, 1 */
extern int	arith_sign(Numeric a);
extern Numeric arith_abs(Numeric a);
extern Numeric arith_neg(Numeric a);
extern Numeric arith_add(Numeric a, Numeric b);
extern Numeric arith_sub(Numeric a, Numeric b);
extern Numeric arith_mul(Numeric a, Numeric b);
extern int	arith_cmp(Numeric a, Numeric b);
extern Numeric arith_min(Numeric a, Numeric b);
extern Numeric arith_from_int64(int64 v);
extern bool arith_is_finite(Numeric a);

/* Below 1e40 and of at most some 180 digits: products of three cannot overflow */
extern bool arith_is_bounded(Numeric a);

/* numeric "percent" / 100, exactly */
extern Numeric arith_percent(Numeric percent);

/*
 * Round num/den to minor units of a currency with "scale" decimals.  Exact:
 * one integer division with remainder.  Returns false if the result does not
 * fit in int64.
 */
extern bool arith_round(Fraction f, int scale, Rounding mode, int64 *minor);

#endif							/* REBATE_ARITH_H */
