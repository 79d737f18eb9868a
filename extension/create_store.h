/*
 * create_store.h
 *	  Makes the store, or takes over one that is there.
 */
#ifndef REBATE_CREATE_STORE_H
#define REBATE_CREATE_STORE_H

#include "rebate.h"
#include "api.h"

#define DEFAULT_OWNER	"rebate_owner"

/*
 * The owner of the store, which is created, with a NOTICE, if there is none.
 * Raises RB001 if schema rebate_data is there but is not ours.
 */
extern Oid create_store_if_missing(void);

/* Is there a store?  Raises RB001 if the schema's name is taken otherwise. */
extern bool store_exists(void);

/* The owner of the extension, and the extension's OID in *extension */
extern Oid	extension_owner(Oid *extension);

/* Names and shapes of what is made from here on do not depend on the caller's settings */
extern int	begin_scripts(void);
extern void end_scripts(int level);

/*
 * Run a script, or a query that gives one text (NULL if null), as "role": names
 * in pg_catalog only, and nothing that could outlive the call.
 */
extern void run_script(Oid role, const char *script);
extern char *run_query(Oid role, const char *sql, SqlParams *params);

/* What rebate.<function>(argument) gives the extension's owner; argument NULL: none */
extern char *script_text(Oid extowner, const char *function, const char *argument);

/* Schema, tables, rows of a version */
extern void make_store(Oid extowner, Oid owner, int32 version);

/* The rows that version 1 begins with; the guards must be off */
extern void fill_store(Oid extowner, Oid owner);

/* Grants, views, guards: what comes with the extension; those that are there stay */
extern void make_ours(Oid extowner, Oid owner);

/* versions.c: the latest version that library and SQL know; the step to a version */
extern int32 upgrade_latest(Oid extowner);
extern void upgrade_step(Oid extowner, Oid owner, int32 version);

#endif							/* REBATE_CREATE_STORE_H */
