/*
 * canon.h
 *	  One canonical text form for keys, members and attributes.
 */
#ifndef REBATE_CANON_H
#define REBATE_CANON_H

#include "rebate.h"
#include "lib/stringinfo.h"

typedef enum CanonKind
{
	CANON_REFUSED,				/* equal values may have different texts */
	CANON_INT2,
	CANON_INT4,
	CANON_INT8,
	CANON_TEXT,					/* text, varchar, name, unknown */
	CANON_BPCHAR,
	CANON_CITEXT,
	CANON_NUMERIC,
	CANON_TIMESTAMPTZ,
	CANON_OUTPUT				/* the output function, under pinned settings */
} CanonKind;

/* How to make the canonical text of one type; plain data, copy at will */
typedef struct CanonType
{
	CanonKind	kind;
	Oid			typid;			/* base type, domains looked through */
	Oid			collation;
	Oid			output;			/* type output function */
} CanonType;

/*
 * Fill "ct" for a type and collation.  Returns false, with *why a message
 * (translated, "type %s ..." style, no final period) if the type cannot have
 * one text form.
 */
extern bool canon_type_init(CanonType *ct, Oid typid, Oid collation,
							char **why);

/*
 * Is a non-null value so long that it can neither be a member nor match a scope?
 * It is not read then: there may be a gigabyte of it.
 */
extern bool canon_is_huge(const CanonType *ct, Datum value);

/* Canonical text of a non-null value, palloc'd in the current context */
extern char *canon_text(const CanonType *ct, Datum value);

/*
 * Canonical text of a text given by a person ("42.0") for a type: through the
 * type's input function.  Raises the input function's error.
 */
extern char *canon_from_text(const CanonType *ct, const char *value);

/* Canonical key of one or several columns (several: JSON array of texts) */
extern char *canon_key(int nparts, char **parts);

/* Append one value to the composite key of a scope: "<length>:<bytes>" */
extern void canon_append_scope(StringInfo buf, const char *value);

/* Is this the type citext of the extension citext? */
extern bool type_is_citext(Oid typid);

#endif							/* REBATE_CANON_H */
