/*
 * canon.c
 *	  One canonical text form for keys, members and attributes.
 *
 * Values that are equal have the same text, and no setting of the session is
 * part of it: where a type's output function reads one, the text is made here.
 */
#include "canon.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "common/shortest_dec.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/formatting.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Values that are longer, in bytes, name nothing */
#define MAX_CANON_LENGTH	65536

/*
 * Is this the type citext of the extension citext?  Its equality folds case
 * under the default collation, whatever the column's collation.
 */
bool
type_is_citext(Oid typid)
{
	HeapTuple	tuple;
	bool		named;

	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(typid));
	if (!HeapTupleIsValid(tuple))
		return false;
	{
		Form_pg_type type = (Form_pg_type) GETSTRUCT(tuple);

		named = type->typtype == TYPTYPE_BASE &&
			type->typcategory == TYPCATEGORY_STRING &&
			strcmp(NameStr(type->typname), "citext") == 0;
	}
	ReleaseSysCache(tuple);

	if (named)
	{
		Oid			extension = get_extension_oid("citext", true);

		named = OidIsValid(extension) &&
			getExtensionOfObject(TypeRelationId, typid) == extension;
	}
	return named;
}

/*
 * Decide how values of a type become text, looking through domains.  Texts
 * under a collation that holds different texts for equal have no single form,
 * nor do types whose equality we do not know.
 */
bool
canon_type_init(CanonType *ct, Oid typid, Oid collation, char **why)
{
	Oid			base = getBaseType(typid);
	bool		varlena;

	ct->kind = CANON_REFUSED;
	ct->typid = base;
	ct->collation = collation;
	ct->output = InvalidOid;
	*why = NULL;

	switch (base)
	{
		case INT2OID:
			ct->kind = CANON_INT2;
			break;
		case INT4OID:
			ct->kind = CANON_INT4;
			break;
		case INT8OID:
			ct->kind = CANON_INT8;
			break;
		case NUMERICOID:
			ct->kind = CANON_NUMERIC;
			break;
		case TEXTOID:
		case VARCHAROID:
		case NAMEOID:
		case UNKNOWNOID:
			ct->kind = CANON_TEXT;
			break;
		case BPCHAROID:
			ct->kind = CANON_BPCHAR;
			break;
		case TIMESTAMPTZOID:
			ct->kind = CANON_TIMESTAMPTZ;
			break;
		case BOOLOID:
		case BYTEAOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case OIDOID:
		case UUIDOID:
		case DATEOID:
		case TIMESTAMPOID:
		case TIMEOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
			ct->kind = CANON_OUTPUT;
			break;
		default:
			if (get_typtype(base) == TYPTYPE_ENUM)
				ct->kind = CANON_OUTPUT;
			else if (type_is_citext(base))
				ct->kind = CANON_CITEXT;
			break;
	}

	if (ct->kind == CANON_REFUSED)
	{
		*why = psprintf(_("type %s has no canonical text"),
						format_type_be(typid));
		return false;
	}
	if ((ct->kind == CANON_TEXT || ct->kind == CANON_BPCHAR) &&
		OidIsValid(collation) && !get_collation_isdeterministic(collation))
	{
		char	   *name = get_collation_name(collation);

		ct->kind = CANON_REFUSED;
		*why = psprintf(_("type %s has no canonical text under the nondeterministic collation \"%s\""),
						format_type_be(typid), name ? name : "?");
		return false;
	}
	if (ct->kind == CANON_OUTPUT)
		getTypeOutputInfo(base, &ct->output, &varlena);
	return true;
}

/*
 * ISO text of a time, in UTC if it has a zone.
 */
static char *
timestamp_text(Timestamp value, bool has_zone)
{
	char		buf[MAXDATELEN + 1];
	struct pg_tm tm;
	fsec_t		fsec;

	if (TIMESTAMP_NOT_FINITE(value))
		EncodeSpecialTimestamp(value, buf);
	else if (timestamp2tm(value, NULL, &tm, &fsec, NULL, NULL) == 0)
	{
		tm.tm_isdst = 0;		/* else the zone is left out */
		EncodeDateTime(&tm, fsec, has_zone, 0, NULL, USE_ISO_DATES, buf);
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return pstrdup(buf);
}

/*
 * ISO text of a date.
 */
static char *
date_text(DateADT value)
{
	char		buf[MAXDATELEN + 1];
	struct pg_tm tm;

	if (DATE_NOT_FINITE(value))
		EncodeSpecialDate(value, buf);
	else
	{
		j2date(value + POSTGRES_EPOCH_JDATE,
			   &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
		EncodeDateOnly(&tm, USE_ISO_DATES, buf);
	}
	return pstrdup(buf);
}

/*
 * Shortest exact text of a float; the two zeros are equal.
 */
static char *
float_text(double value, bool single)
{
	char	   *buf = palloc(DOUBLE_SHORTEST_DECIMAL_LEN);

	if (value == 0)
		strcpy(buf, "0");
	else if (single)
		float_to_shortest_decimal_buf((float) value, buf);
	else
		double_to_shortest_decimal_buf(value, buf);
	return buf;
}

/*
 * Text by the output function, but for the types whose output function reads
 * settings.
 */
static char *
output_text(const CanonType *ct, Datum value)
{
	switch (ct->typid)
	{
		case FLOAT4OID:
			return float_text(DatumGetFloat4(value), true);
		case FLOAT8OID:
			return float_text(DatumGetFloat8(value), false);
		case DATEOID:
			return date_text(DatumGetDateADT(value));
		case TIMESTAMPOID:
			return timestamp_text(DatumGetTimestamp(value), false);
		case BYTEAOID:
			{
				bytea	   *bytes = DatumGetByteaPP(value);
				Size		len = VARSIZE_ANY_EXHDR(bytes);
				char	   *buf = palloc(len * 2 + 3);

				buf[0] = '\\';
				buf[1] = 'x';
				buf[2 + hex_encode(VARDATA_ANY(bytes), len, buf + 2)] = '\0';
				return buf;
			}
		default:
			return OidOutputFunctionCall(ct->output, value);
	}
}

/*
 * Is a value too long to be anybody's name?  Looks at its length only.
 */
bool
canon_is_huge(const CanonType *ct, Datum value)
{
	switch (ct->typid)
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case BYTEAOID:
		case NUMERICOID:
			break;
		default:
			if (ct->kind != CANON_CITEXT)
				return false;
	}
	return toast_raw_datum_size(value) > MAX_CANON_LENGTH;
}

/*
 * Canonical text of a value that is not null: equal for equal values, whatever
 * the session's settings.
 */
char *
canon_text(const CanonType *ct, Datum value)
{
	char	   *buf;
	text	   *str;

	switch (ct->kind)
	{
		case CANON_INT2:
			buf = palloc(7);
			pg_itoa(DatumGetInt16(value), buf);
			return buf;
		case CANON_INT4:
			buf = palloc(12);
			pg_ltoa(DatumGetInt32(value), buf);
			return buf;
		case CANON_INT8:
			buf = palloc(MAXINT8LEN + 1);
			pg_lltoa(DatumGetInt64(value), buf);
			return buf;
		case CANON_TEXT:
			if (unlikely(ct->typid == NAMEOID))
				return pstrdup(NameStr(*DatumGetName(value)));
			if (unlikely(ct->typid == UNKNOWNOID))
				return pstrdup(DatumGetCString(value));
			return TextDatumGetCString(value);
		case CANON_BPCHAR:
			str = DatumGetTextPP(value);
			return pnstrdup(VARDATA_ANY(str),
							bpchartruelen(VARDATA_ANY(str),
										  VARSIZE_ANY_EXHDR(str)));
		case CANON_CITEXT:
			str = DatumGetTextPP(value);
			return str_tolower(VARDATA_ANY(str), VARSIZE_ANY_EXHDR(str),
							   DEFAULT_COLLATION_OID);
		case CANON_NUMERIC:
			return numeric_normalize(DatumGetNumeric(value));
		case CANON_TIMESTAMPTZ:
			return timestamp_text(DatumGetTimestampTz(value), true);
		case CANON_OUTPUT:
			return output_text(ct, value);
		case CANON_REFUSED:
			break;
	}
	elog(ERROR, "type %u has no canonical text", ct->typid);
	return NULL;				/* keep compiler quiet */
}

/*
 * Canonical text of what a person wrote for a type.  Input functions of times
 * read settings: the caller has pinned those that shall count.
 */
char *
canon_from_text(const CanonType *ct, const char *value)
{
	Oid			input;
	Oid			ioparam;

	if (ct->kind == CANON_TEXT && ct->typid != NAMEOID)
		return pstrdup(value);

	getTypeInputInfo(ct->typid, &input, &ioparam);
	return canon_text(ct, OidInputFunctionCall(input, pstrdup(value),
											   ioparam, -1));
}

/*
 * Canonical key: the part itself if there is one, else a JSON array of texts,
 * spelled as jsonb shows it.
 */
char *
canon_key(int nparts, char **parts)
{
	StringInfoData buf;

	if (nparts == 1)
		return parts[0];

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '[');
	for (int i = 0; i < nparts; i++)
	{
		if (i > 0)
			appendBinaryStringInfo(&buf, ", ", 2);
		escape_json(&buf, parts[i]);
	}
	appendStringInfoChar(&buf, ']');
	return buf.data;
}

/*
 * Append one value to the key of a scope.  The length keeps values apart
 * whatever bytes they hold.
 */
void
canon_append_scope(StringInfo buf, const char *value)
{
	size_t		len = strlen(value);
	char		digits[24];
	int			ndigits = pg_ulltoa_n(len, digits);

	digits[ndigits++] = ':';
	appendBinaryStringInfo(buf, digits, ndigits);
	appendBinaryStringInfo(buf, value, len);
}
