/*
 * attach.h
 *	  Parts of rebate.attach() and rebate.detach().
 */
#ifndef REBATE_ATTACH_H
#define REBATE_ATTACH_H

#include "rebate.h"
#include "store.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

/* Mappings that are one expression each */
typedef enum MapItem
{
	MAP_MEMBER,
	MAP_AMOUNT,
	MAP_CURRENCY,
	MAP_QUANTITY,
	MAP_ORDER_TIME,
	MAP_STATUS,
	MAP_CONFIRMED_AT,
	MAP_REFUNDED,
	MAP_REFUNDED_QUANTITY,
	NUM_MAP_ITEMS
} MapItem;

extern const char *const map_names[NUM_MAP_ITEMS];

/* What attach() was asked for, and what that means for the table */
typedef struct AttachMap
{
	/* as given; NULL if not */
	char	   *given[NUM_MAP_ITEMS];
	char	  **given_key;
	int			ngiven_key;
	Jsonb	   *given_phases;
	Jsonb	   *given_attributes;
	bool		has_since;
	TimestampTz since;
	Interval   *max_backdate;
	Interval   *max_future;
	char	   *on_delete;
	char	   *on_truncate;
	char	   *on_error;

	/* the meaning */
	char	   *text[NUM_MAP_ITEMS];	/* deparsed */
	Oid			type[NUM_MAP_ITEMS];	/* base type before any coercion */
	char	   *currency_code;	/* then text[MAP_CURRENCY] is NULL */
	char	  **key;
	int			nkey;
	char	   *attributes;		/* JSON: name to deparsed text; NULL: all */
} AttachMap;

/* The recorded row of a table, as far as it is compared */
#define MAX_SETTINGS 24

typedef struct Setting
{
	const char *name;
	char	   *old_given;
	char	   *old_meaning;
	char	   *new_given;
	char	   *new_meaning;
} Setting;

typedef struct Recorded
{
	bool		exists;
	int32		source_id;
	bool		detached;
	TimestampTz since;
	int			nsettings;
	Setting		settings[MAX_SETTINGS];
} Recorded;

/* attach_mapping.c */
extern void mapping_check(AttachMap *map, Relation rel, Store *store);
extern void mapping_warn(AttachMap *map, Relation rel, Store *store);
extern char *mapping_key_json(char **key, int nkey);

/* attach_record.c */
extern void record_read(Store *store, Oid relid, AttachMap *map, Recorded *recorded);
extern bool record_check(Store *store, Relation rel, const AttachMap *map,
						 const Recorded *recorded, bool replace);
extern TimestampTz record_default_since(const AttachMap *map, const Recorded *recorded,
										Store *store);
extern void record_write(Store *store, Relation rel, AttachMap *map, Recorded *recorded);

/* attach_triggers.c */
extern void triggers_lock_table(Oid relid, LOCKMODE mode, const char *function);
extern bool triggers_complete(Oid relid);
extern void triggers_create(Relation rel);
extern void triggers_drop(Relation rel);

#endif							/* REBATE_ATTACH_H */
