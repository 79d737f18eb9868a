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
	char	  **given_original;
	int			ngiven_original;
	char	  **given_replaces;
	int			ngiven_replaces;
	Jsonb	   *given_phases;
	Jsonb	   *given_attributes;
	bool		has_since;
	TimestampTz since;
	Interval   *max_backdate;
	Interval   *max_future;
	char	   *on_delete;
	char	   *on_truncate;
	char	   *on_error;
	bool		row_triggers;

	/* the meaning */
	char	   *text[NUM_MAP_ITEMS];	/* deparsed */
	Oid			type[NUM_MAP_ITEMS];	/* base type before any coercion */
	char	   *currency_code;	/* then text[MAP_CURRENCY] is NULL */
	char	  **key;
	int			nkey;
	char	  **original;		/* deparsed, one for each key column; NULL: not mapped */
	char	  **replaces;		/* the same */
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
/* Whether the call maps other orders' keys otherwise than is recorded */
extern bool record_links_differ(const Recorded *recorded);
extern void record_write(Store *store, Relation rel, AttachMap *map, Recorded *recorded);

/* Whether orders of the table are set aside because the mapping did not fit */
extern bool record_has_misfits(Store *store, const Recorded *recorded);

/* Whether the table was attached with row_triggers */
extern bool record_row_triggers(Store *store, Oid relid);

/* attach_follow.c: what is recorded follows what was renamed */
extern void record_free_name(Oid relid, const char *name);
extern void record_rename_column(Store *store, Oid relid, const char *oldname,
								 const char *newname);
extern void record_rename_tables(void);

/* attach_triggers.c: a table and, if it is partitioned, all below it */
extern void triggers_lock_tree(Oid relid, LOCKMODE mode, const char *function);
extern bool triggers_complete(Oid relid, bool row_triggers);
extern void triggers_create(Oid relid, bool row_triggers);
extern void triggers_drop(Oid relid);

/* Whether the table itself has our trigger for INSERT; and those of rows, if asked */
extern bool triggers_on(Oid relid, bool *row_triggers);

/* attach.c */
extern void attach_check_partition(Relation rel, const char *root);

#endif							/* REBATE_ATTACH_H */
