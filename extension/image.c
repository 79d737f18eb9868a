/*
 * image.c
 *	  Reads one row of a source through its mapping.
 */
#include "rebate.h"

#include "access/detoast.h"
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "arith.h"
#include "former.h"
#include "order.h"

/* The row cannot be decided: remember why, once. */
static void
fail(OrderImage *image, const char *error, const char *detail)
{
	if (image->sqlerrcode == 0)
	{
		image->sqlerrcode = ERRCODE_RB_ORDER_FAILED;
		image->error = error;
		image->error_detail = detail;
	}
}

static char *
full_key(Source *source, TupleTableSlot *slot)
{
	char	  **parts;
	bool		isnull;

	if (source->nkeys == 1)
	{
		Datum		value = slot_getattr(slot, source->key_attnos[0], &isnull);

		return isnull ? pstrdup("") : canon_text(&source->key_canon[0], value);
	}
	parts = palloc(sizeof(char *) * source->nkeys);
	for (int i = 0; i < source->nkeys; i++)
	{
		Datum		value = slot_getattr(slot, source->key_attnos[i], &isnull);

		parts[i] = isnull ? pstrdup("") : canon_text(&source->key_canon[i], value);
	}
	return canon_key(source->nkeys, parts);
}

/*
 * What stands for a key that does not fit into an index of the store.  Equal
 * keys have equal stand-ins; the row cannot be found by it, and fails.
 */
static char *
stand_in(const char *key)
{
	return psprintf(LONG_KEY_PREFIX "%016lx%016lx",
					(unsigned long) hash_bytes_extended((const unsigned char *) key, strlen(key), 1),
					(unsigned long) hash_bytes_extended((const unsigned char *) key, strlen(key), 2));
}

/* Canonical key of the row in "slot". */
char *
image_key(Source *source, TupleTableSlot *slot)
{
	char	   *key = full_key(source, slot);

	return strlen(key) > MAX_KEY_LENGTH ? stand_in(key) : key;
}

/* Canonical key of the order that a row is about, or NULL: if it is null in part, too */
static char *
read_other_key(Source *source, OrderExpr *exprs, TupleTableSlot *slot)
{
	char	  **parts = palloc(sizeof(char *) * source->nkeys);

	for (int i = 0; i < source->nkeys; i++)
	{
		bool		isnull;
		Datum		value = expr_eval(&exprs[i], slot, &isnull);

		if (isnull)
			return NULL;
		parts[i] = canon_text(&source->key_canon[i], value);
	}
	return source->nkeys == 1 ? parts[0] : canon_key(source->nkeys, parts);
}

/* Whether the order time of a row is before the attachment's "since". */
bool
image_is_old(Source *source, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value;

	if (source->broken || !source->has_order_time)
		return false;
	value = expr_eval(&source->order_time, slot, &isnull);
	return !isnull && DatumGetTimestampTz(value) < source->since;
}

/* Years 1 to 9999: room for holds and limits on both sides */
static bool
in_calendar(TimestampTz moment)
{
	return moment > -1999 * (int64) 366 * USECS_PER_DAY && moment < 7999 * (int64) 365 * USECS_PER_DAY;
}

/* A number that is mapped: NULL, or finite; else the row fails. */
static Numeric
read_number(OrderExpr *expr, TupleTableSlot *slot, OrderImage *image, const char *what)
{
	bool		isnull;
	Datum		value = expr_eval(expr, slot, &isnull);
	Numeric		result;

	if (isnull)
		return NULL;
	result = DatumGetNumeric(value);
	if (!arith_is_finite(result))
	{
		fail(image, psprintf("%s is not a finite number", what), NULL);
		return NULL;
	}
	if (!arith_is_bounded(result))
	{
		fail(image, psprintf("%s has too many digits", what), NULL);
		return NULL;
	}
	return result;
}

/* Refunds of a negative row are not read */
static bool
is_return(OrderImage *image)
{
	return image->amount && arith_sign(image->amount) < 0;
}

/* The phase that a status stands for; fails the row if none. */
static Phase
read_phase(Source *source, TupleTableSlot *slot, OrderImage *image)
{
	static const PhaseName own_names[] = {
		{"tracked", PHASE_TRACKED}, {"pending", PHASE_PENDING},
		{"confirmed", PHASE_CONFIRMED}, {"void", PHASE_VOID}
	};
	const PhaseName *names = source->nphases ? source->phases : own_names;
	int			n = source->nphases ? source->nphases : (int) lengthof(own_names);
	bool		isnull;
	Datum		value = expr_eval(&source->status, slot, &isnull);
	char	   *status;

	if (isnull)
	{
		fail(image, "the status is null", NULL);
		return PHASE_VOID;
	}
	if (toast_raw_datum_size(value) > MAX_KEY_LENGTH + VARHDRSZ)
	{
		fail(image, "the status is too long", NULL);
		return PHASE_VOID;
	}
	status = TextDatumGetCString(value);
	for (int i = 0; i < n; i++)
		if (strcmp(status, names[i].status) == 0)
			return names[i].phase;
	fail(image, "the status is not in the map of phases",
		 psprintf("The status is \"%s\".", status));
	return PHASE_VOID;
}

static CurrencyInfo *
read_currency(Store *store, Source *source, TupleTableSlot *slot, OrderImage *image)
{
	const char *code = source->currency_code;
	CurrencyInfo *currency;

	if (source->has_currency_expr)
	{
		bool		isnull;
		Datum		value = expr_eval(&source->currency, slot, &isnull);
		char	   *given;
		int			len;

		if (isnull)
		{
			fail(image, "the currency is null", NULL);
			return NULL;
		}
		if (toast_raw_datum_size(value) > MAX_KEY_LENGTH + VARHDRSZ)
		{
			fail(image, "the currency is too long", NULL);
			return NULL;
		}
		/* a char(n) column comes with its padding */
		given = TextDatumGetCString(value);
		len = strlen(given);
		while (len > 0 && given[len - 1] == ' ')
			given[--len] = '\0';
		code = given;
	}
	currency = store_currency(store, code);
	if (currency == NULL)
		fail(image, "the currency is unknown", psprintf("The currency is \"%s\".", code));
	return currency;
}

/* The member of a row, NULL if it has none or that is too long */
static char *
read_member(Source *source, TupleTableSlot *slot, bool *isnull)
{
	Datum		value = expr_eval(&source->member, slot, isnull);
	char	   *member = NULL;

	if (!*isnull && !canon_is_huge(&source->member_canon, value))
		member = canon_text(&source->member_canon, value);
	return member && strlen(member) > MAX_KEY_LENGTH ? NULL : member;
}

/* Whether a row is of this member, under whatever key of his, or of one who is erased */
bool
image_is_of(Store *store, Source *source, TupleTableSlot *slot, const char *member)
{
	bool		isnull;
	char	   *key = read_member(source, slot, &isnull);
	char	   *now = key;

	return key && (former_find_now(store, key, &now) == FORMER_ERASED || strcmp(now, member) == 0);
}

/*
 * The same as image_read_row(), for an order that is to be decided.  A member's
 * key that was replaced is the one that took its place.  Of an erased member's
 * order nothing more is read, so that nothing more of it can be wrong, and be
 * written down; but what a return takes belongs to its original, whoever brings
 * it.
 */
void
image_read(Store *store, Source *source, TupleTableSlot *slot, const char *key, OrderImage *image)
{
	char	   *now = NULL;

	if (store->maybe_former && !source->broken)
	{
		bool		isnull;
		char	   *member = read_member(source, slot, &isnull);
		FormerKind	kind = member ? former_find(store, member, &now) : FORMER_NOT;

		if (kind == FORMER_ERASED &&
			(source->original == NULL || read_other_key(source, source->original, slot) == NULL))
		{
			memset(image, 0, sizeof(*image));
			image->slot = slot;
			image->key = key ? key : image_key(source, slot);
			image->erased = true;
			return;
		}
	}
	image_read_row(store, source, slot, key, image);
	if (now)
		image->member = now;
}

/*
 * Fill *image from the row in "slot".  A row that cannot be decided has
 * sqlerrcode set; what is wrong with it does not raise.  Everything is allocated
 * in the current context or points into the slot.
 */
void
image_read_row(Store *store, Source *source, TupleTableSlot *slot, const char *key,
			   OrderImage *image)
{
	bool		isnull;
	Datum		value;

	memset(image, 0, sizeof(*image));
	image->slot = slot;
	image->key = key ? key : image_key(source, slot);

	if (source->broken)
	{
		fail(image, "the mapping no longer fits the table",
			 psprintf("%s; attach it again with replace => true.", source->broken));
		image->sqlerrcode = ERRCODE_RB_INVALID_MAPPING;
		return;
	}

	if (strncmp(image->key, LONG_KEY_PREFIX, strlen(LONG_KEY_PREFIX)) == 0)
		fail(image, "the key is too long", NULL);
	image->member = read_member(source, slot, &isnull);
	if (!isnull && image->member == NULL)
		fail(image, "the member is too long", NULL);

	image->amount = read_number(&source->amount, slot, image, "the amount");
	if (image->amount == NULL)
		fail(image, "the amount is null", NULL);

	if (source->has_quantity)
		image->quantity = read_number(&source->quantity, slot, image, "the quantity");
	if (source->has_refunded)
	{
		image->refunded = read_number(&source->refunded, slot, image, "the refunded amount");
		if (image->refunded && arith_sign(image->refunded) < 0 && !is_return(image))
			fail(image, "the refunded amount is negative", NULL);
	}
	if (source->has_refunded_quantity)
	{
		image->refunded_quantity = read_number(&source->refunded_quantity, slot, image,
											   "the refunded quantity");
		if (image->refunded_quantity && arith_sign(image->refunded_quantity) < 0 &&
			!is_return(image))
			fail(image, "the refunded quantity is negative", NULL);
	}

	if (source->original)
		image->original = read_other_key(source, source->original, slot);
	if (source->replaces)
		image->replaces = read_other_key(source, source->replaces, slot);
	if ((image->original && strlen(image->original) > MAX_KEY_LENGTH) ||
		(image->replaces && strlen(image->replaces) > MAX_KEY_LENGTH))
	{
		fail(image, "the key of the order that it is about is too long", NULL);
		image->original = image->replaces = NULL;
	}

	image->phase = source->has_status ? read_phase(source, slot, image) : PHASE_CONFIRMED;
	image->currency = read_currency(store, source, slot, image);

	if (source->has_order_time)
	{
		value = expr_eval(&source->order_time, slot, &isnull);
		if (isnull)
			fail(image, "the order time is null", NULL);
		else if (!in_calendar(DatumGetTimestampTz(value)))
			fail(image, "the order time is out of range", NULL);
		else
		{
			image->has_order_time = true;
			image->order_time = DatumGetTimestampTz(value);
		}
	}
	if (source->has_confirmed_at)
	{
		value = expr_eval(&source->confirmed_at, slot, &isnull);
		if (!isnull && !in_calendar(DatumGetTimestampTz(value)))
			fail(image, "the confirmed time is out of range", NULL);
		else if (!isnull)
		{
			image->has_confirmed_at = true;
			image->confirmed_at = DatumGetTimestampTz(value);
		}
	}
}

/*
 * The part of image_read() that other orders need to know of this one: its key,
 * what it returns, and its currency, NULL if that is no known one.
 */
void
image_read_link(Store *store, Source *source, TupleTableSlot *slot, OrderImage *image)
{
	memset(image, 0, sizeof(*image));
	image->slot = slot;
	image->key = image_key(source, slot);
	if (source->original)
		image->original = read_other_key(source, source->original, slot);
	if (source->replaces)
		image->replaces = read_other_key(source, source->replaces, slot);
	image->currency = read_currency(store, source, slot, image);
}
