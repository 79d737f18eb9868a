/*
 * arith.c
 *	  Exact arithmetic of rebates.
 *
 * Everything is exact: sums and products of numerics are, and the one division
 * is an integer division with remainder.  Operands are bounded by the caller
 * (a product whose scale passes 16383 digits would be rounded by numeric).
 *
 * Signs and small values are read from the stored form of numeric directly.
 * That form is on disk, so that pg_upgrade keeps it the same in all releases;
 * whatever does not fit goes through the functions of numeric.
 */
#include "arith.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

/* Stored form of numeric, see numeric.c */
#define NUM_BASE			10000
#define NUM_BASE_DIGITS		4
#define NUM_FLAGS			0xC000
#define NUM_NEGATIVE		0x4000
#define NUM_SHORT			0x8000
#define NUM_SPECIAL			0xC000
#define NUM_SHORT_NEGATIVE	0x2000
#define NUM_SHORT_WEIGHT_NEGATIVE	0x0040
#define NUM_SHORT_WEIGHT	0x003F

/* 10 ^ 19 is above PG_INT64_MAX */
#define MAX_INT64_DIGITS	19

/* A finite numeric taken apart: digits * 10000 ^ exponent */
typedef struct Parts
{
	bool		negative;
	int			ndigits;		/* base 10000; 0 for zero */
	int			exponent;		/* of the last digit */
	const int16 *digits;
} Parts;

/*
 * Take a numeric apart without copying.  Returns false for NaN and infinity.
 */
static inline bool
take_apart(Numeric a, Parts *parts)
{
	const char *data = VARDATA(a);
	int			bytes = VARSIZE(a) - VARHDRSZ;
	uint16		header = *(const uint16 *) data;
	int			weight;

	if (header & NUM_SHORT)
	{
		if ((header & NUM_FLAGS) == NUM_SPECIAL)
			return false;
		parts->negative = (header & NUM_SHORT_NEGATIVE) != 0;
		weight = header & NUM_SHORT_WEIGHT;
		if (header & NUM_SHORT_WEIGHT_NEGATIVE)
			weight |= ~NUM_SHORT_WEIGHT;
		data += sizeof(uint16);
		bytes -= sizeof(uint16);
	}
	else
	{
		parts->negative = (header & NUM_FLAGS) == NUM_NEGATIVE;
		weight = *(const int16 *) (data + sizeof(uint16));
		data += 2 * sizeof(uint16);
		bytes -= 2 * sizeof(uint16);
	}
	parts->ndigits = bytes / (int) sizeof(int16);
	parts->exponent = weight - parts->ndigits + 1;
	parts->digits = (const int16 *) data;
	return true;
}

/*
 * Sign of a finite numeric; 0 also for NaN, which callers have refused.
 */
int
arith_sign(Numeric a)
{
	Parts		parts;

	if (!take_apart(a, &parts) || parts.ndigits == 0)
		return 0;
	return parts.negative ? -1 : 1;
}

/*
 * Is this neither NaN nor infinite?
 */
bool
arith_is_finite(Numeric a)
{
	Parts		parts;

	return take_apart(a, &parts);
}

/*
 * Absolute value; the argument itself if it has no sign.
 */
Numeric
arith_abs(Numeric a)
{
	return arith_sign(a) < 0 ? arith_neg(a) : a;
}

/*
 * Negation.
 */
Numeric
arith_neg(Numeric a)
{
	return DatumGetNumeric(DirectFunctionCall1(numeric_uminus,
											   NumericGetDatum(a)));
}

/*
 * Sum.
 */
Numeric
arith_add(Numeric a, Numeric b)
{
	return numeric_add_hard(a, b);
}

/*
 * Difference.
 */
Numeric
arith_sub(Numeric a, Numeric b)
{
	return numeric_sub_hard(a, b);
}

/*
 * Product.
 */
Numeric
arith_mul(Numeric a, Numeric b)
{
	return numeric_mul_hard(a, b);
}

/*
 * Compare two finite numerics: below, equal to or above 0.
 */
int
arith_cmp(Numeric a, Numeric b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp,
											 NumericGetDatum(a),
											 NumericGetDatum(b)));
}

/*
 * The lesser of two; one of the arguments itself.
 */
Numeric
arith_min(Numeric a, Numeric b)
{
	return arith_cmp(a, b) <= 0 ? a : b;
}

/*
 * A whole number.
 */
Numeric
arith_from_int64(int64 v)
{
	return int64_to_numeric(v);
}

/*
 * A percentage as a factor.  Multiplying by 0.01 is exact, dividing by 100 is
 * rounded by numeric.
 */
Numeric
arith_percent(Numeric percent)
{
	static Numeric hundredth = NULL;

	if (hundredth == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		hundredth = int64_div_fast_to_numeric(1, 2);
		MemoryContextSwitchTo(old);
	}
	return arith_mul(percent, hundredth);
}

/* See arith.h. */
bool
arith_is_bounded(Numeric a)
{
	static Numeric limit = NULL;

	if (VARSIZE_ANY(a) > 100)
		return false;
	if (limit == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		limit = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum("1e40"),
													ObjectIdGetDatum(InvalidOid),
													Int32GetDatum(-1)));
		MemoryContextSwitchTo(old);
	}
	return arith_cmp(arith_abs(a), limit) < 0;
}

/*
 * Does a magnitude with this whole part and remainder go one unit further away
 * from zero?  "half" compares the remainder with half a unit.
 */
static inline bool
rounds_away(Rounding mode, bool odd, bool exact, int half)
{
	switch (mode)
	{
		case ROUND_HALF_UP:
			return half >= 0;
		case ROUND_HALF_EVEN:
			return half > 0 || (half == 0 && odd);
		case ROUND_HALF_DOWN:
			return half > 0;
		case ROUND_DOWN:
			return false;
		case ROUND_UP:
			return !exact;
	}
	elog(ERROR, "unknown rounding mode %d", (int) mode);
	return false;				/* keep compiler quiet */
}

#ifdef HAVE_INT128

/* 10000 ^ 9 is below 2 ^ 120 */
#define SMALL_DIGITS	9
#define MAX_POWER		18

static const uint64 power_of_ten[MAX_POWER + 1] = {
	UINT64CONST(1),
	UINT64CONST(10),
	UINT64CONST(100),
	UINT64CONST(1000),
	UINT64CONST(10000),
	UINT64CONST(100000),
	UINT64CONST(1000000),
	UINT64CONST(10000000),
	UINT64CONST(100000000),
	UINT64CONST(1000000000),
	UINT64CONST(10000000000),
	UINT64CONST(100000000000),
	UINT64CONST(1000000000000),
	UINT64CONST(10000000000000),
	UINT64CONST(100000000000000),
	UINT64CONST(1000000000000000),
	UINT64CONST(10000000000000000),
	UINT64CONST(100000000000000000),
	UINT64CONST(1000000000000000000)
};

/*
 * The digits of a numeric as an integer, false if there are too many.
 */
static inline bool
coefficient(const Parts *parts, uint128 *value)
{
	uint128		result = 0;

	if (parts->ndigits > SMALL_DIGITS)
		return false;
	for (int i = 0; i < parts->ndigits; i++)
		result = result * NUM_BASE + parts->digits[i];
	*value = result;
	return true;
}

/*
 * Multiply by a power of ten in place, false if the product does not fit.
 */
static inline bool
scale_up(uint128 *value, int power)
{
	while (power > 0)
	{
		int			step = Min(power, MAX_POWER);

		if ((uint64) (*value >> 64) != 0 &&
			*value > ~(uint128) 0 / power_of_ten[step])
			return false;
		*value *= power_of_ten[step];
		power -= step;
	}
	return true;
}

/*
 * Rounding in 128 bits.  Returns false if the numbers are too long for it;
 * then nothing is known.  Sets *fits to whether the result fits.
 */
static bool
round_small(const Parts *num, const Parts *den, int scale, Rounding mode,
			bool *fits, int64 *minor)
{
	uint128		n,
				d = 1,
				quotient,
				rest;
	int			power = num->exponent * NUM_BASE_DIGITS + scale;
	bool		away;

	if (!coefficient(num, &n))
		return false;
	if (den != NULL)
	{
		if (!coefficient(den, &d))
			return false;
		power -= den->exponent * NUM_BASE_DIGITS;
	}
	if (!(power >= 0 ? scale_up(&n, power) : scale_up(&d, -power)))
		return false;

	/* a division of 64 bits costs a fraction of one of 128 */
	if ((uint64) (n >> 64) == 0 && (uint64) (d >> 64) == 0)
	{
		quotient = (uint64) n / (uint64) d;
		rest = (uint64) n % (uint64) d;
	}
	else
	{
		quotient = n / d;
		rest = n - quotient * d;
	}

	/* rest < d, so that d - rest cannot wrap where 2 * rest could */
	away = rounds_away(mode, (quotient & 1) != 0, rest == 0,
					   rest == 0 ? -1 :
					   rest < d - rest ? -1 : rest > d - rest ? 1 : 0);
	if (quotient >= (uint128) PG_INT64_MAX)
	{
		*fits = quotient == (uint128) PG_INT64_MAX && !away;
		if (!*fits)
			return true;
	}
	*fits = true;
	*minor = (int64) quotient + (away ? 1 : 0);
	if (num->negative)
		*minor = -*minor;
	return true;
}

#endif							/* HAVE_INT128 */

/*
 * Rounding for numbers of any length.
 */
static bool
round_numeric(Fraction f, int scale, Rounding mode, int64 *minor)
{
	Numeric		num = arith_abs(f.num);
	Numeric		den = f.den ? f.den : arith_from_int64(1);
	Numeric		quotient;
	Numeric		rest;
	Numeric		twice;
	int64		result;
	bool		away;

	/* 10 ^ scale as a numeric: no currency needs more than an int64 holds */
	for (int left = scale; left > 0;)
	{
		int			step = Min(left, 18);
		int64		factor = 1;

		for (int i = 0; i < step; i++)
			factor *= 10;
		num = arith_mul(num, arith_from_int64(factor));
		left -= step;
	}

	quotient = DatumGetNumeric(DirectFunctionCall2(numeric_div_trunc,
												   NumericGetDatum(num),
												   NumericGetDatum(den)));
	if (arith_cmp(quotient, arith_from_int64(PG_INT64_MAX)) > 0)
		return false;
	result = DatumGetInt64(DirectFunctionCall1(numeric_int8,
											   NumericGetDatum(quotient)));
	rest = arith_sub(num, arith_mul(quotient, den));
	twice = arith_add(rest, rest);

	away = rounds_away(mode, (result & 1) != 0, arith_sign(rest) == 0,
					   arith_sign(rest) == 0 ? -1 : arith_cmp(twice, den));
	if (away && result == PG_INT64_MAX)
		return false;
	if (away)
		result++;
	*minor = arith_sign(f.num) < 0 ? -result : result;
	return true;
}

/*
 * Round a fraction to minor units, on its absolute value: exactly one division
 * and one rounding.  Results beyond +/- PG_INT64_MAX do not fit, so that a
 * result can always be negated.
 */
bool
arith_round(Fraction f, int scale, Rounding mode, int64 *minor)
{
	Parts		num;
	Parts		den;
	int			magnitude;

	Assert(scale >= 0);
	if (!take_apart(f.num, &num) ||
		(f.den != NULL && !take_apart(f.den, &den)))
		return false;
	if (num.ndigits == 0)
	{
		*minor = 0;
		return true;
	}

	/* leave out what is far too large before numeric can overflow */
	magnitude = num.exponent + num.ndigits - 1;
	if (f.den != NULL)
		magnitude -= den.exponent + den.ndigits;
	if (magnitude * NUM_BASE_DIGITS + scale > MAX_INT64_DIGITS)
		return false;

#ifdef HAVE_INT128
	{
		bool		fits;

		if (round_small(&num, f.den ? &den : NULL, scale, mode, &fits, minor))
			return fits;
	}
#endif

	return round_numeric(f, scale, mode, minor);
}
