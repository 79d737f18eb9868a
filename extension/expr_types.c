/*
 * expr_types.c
 *	  Which types an expression over an order may use.
 */
#include "expr_check_internal.h"

#include "access/transam.h"
#include "access/tupdesc.h"
#include "canon.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/*
 * Types whose input and output functions are harmless: built-in, without
 * catalog lookups of their own, reading pinned settings only.
 */
bool
expr_scalar_is_allowed(Oid typid)
{
	switch (typid)
	{
		case BOOLOID:
		case BYTEAOID:
		case CHAROID:
		case NAMEOID:
		case INT8OID:
		case INT2OID:
		case INT4OID:
		case TEXTOID:
		case OIDOID:
		case JSONOID:
		case JSONBOID:
		case JSONPATHOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case MACADDROID:
		case MACADDR8OID:
		case INETOID:
		case CIDROID:
		case BPCHAROID:
		case VARCHAROID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
		case BITOID:
		case VARBITOID:
		case NUMERICOID:
		case UUIDOID:
		case UNKNOWNOID:
			return true;
		default:
			return get_typtype(typid) == TYPTYPE_ENUM || type_is_citext(typid);
	}
}

/*
 * As expr_scalar_is_allowed(), but arrays of such and built-in ranges as well.
 */
bool
expr_type_is_allowed(Oid typid)
{
	Oid			element = get_element_type(typid);
	char		typtype;

	if (OidIsValid(element))
		typid = element;
	if (expr_scalar_is_allowed(typid))
		return true;
	typtype = get_typtype(typid);
	return typid < FirstNormalObjectId &&
		(typtype == TYPTYPE_RANGE || typtype == TYPTYPE_MULTIRANGE);
}

/*
 * Does a type hold domains inside, see the header.
 */
bool
type_hides_domain(Oid typid)
{
	Oid			base = getBaseType(typid);
	Oid			inner = get_element_type(base);
	bool		result = false;

	check_stack_depth();
	if (!OidIsValid(inner) && get_typtype(base) == TYPTYPE_RANGE)
		inner = get_range_subtype(base);
	if (!OidIsValid(inner) && get_typtype(base) == TYPTYPE_MULTIRANGE)
		inner = get_range_subtype(get_multirange_range(base));
	if (OidIsValid(inner))
		return get_typtype(inner) == TYPTYPE_DOMAIN || type_hides_domain(inner);
	if (get_typtype(base) == TYPTYPE_COMPOSITE)
	{
		TupleDesc	desc = lookup_rowtype_tupdesc(base, -1);

		for (int i = 0; !result && i < desc->natts; i++)
		{
			Oid			field = TupleDescAttr(desc, i)->atttypid;

			result = !TupleDescAttr(desc, i)->attisdropped &&
				(get_typtype(field) == TYPTYPE_DOMAIN || type_hides_domain(field));
		}
		ReleaseTupleDesc(desc);
	}
	return result;
}
