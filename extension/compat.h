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

/* 16: macros of varlena values have a header of their own */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
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

/* 18: index_beginscan takes an instrumentation argument; 19: flags, as scans of tables do */
#if PG_VERSION_NUM >= 190000
#define index_beginscan_compat(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0, 0)
#define table_beginscan_compat(rel, snapshot)	table_beginscan(rel, snapshot, 0, NULL, 0)
#define table_beginscan_tidrange_compat(rel, snapshot, first, last) \
	table_beginscan_tidrange(rel, snapshot, first, last, 0)
#else
#define table_beginscan_compat(rel, snapshot)	table_beginscan(rel, snapshot, 0, NULL)
#define table_beginscan_tidrange_compat(rel, snapshot, first, last) \
	table_beginscan_tidrange(rel, snapshot, first, last)
#if PG_VERSION_NUM >= 180000
#define index_beginscan_compat(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define index_beginscan_compat(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif
#endif

/* 16: a relation's files are found by a locator, no longer by a node */
#if PG_VERSION_NUM >= 160000
#define relation_locator(rel)	((rel)->rd_locator)
#else
#define relation_locator(rel)	((rel)->rd_node)
#endif

/* 18: a word before the declaration; until then an attribute, which gcc and clang take there, too */
#ifndef pg_noreturn
#define pg_noreturn		pg_attribute_noreturn()
#endif

/* 19: a word for the end of a case that goes on with the next */
#ifndef pg_fallthrough
#define pg_fallthrough	__attribute__((fallthrough))
#endif

/* What an update means for the indexes of a table */
#define UPDATE_NO_INDEX				0
#define UPDATE_ALL_INDEXES			1
#define UPDATE_SUMMARIZING_INDEXES	2

/*
 * 16: heap_update tells which indexes need entries; before, the tuple does.  19:
 * it has options.  A macro, so that this header needs no access method's headers.
 */
#if PG_VERSION_NUM >= 190000
#define UPDATE_OPTIONS	0,
#else
#define UPDATE_OPTIONS
#endif
#if PG_VERSION_NUM >= 160000
#define heap_update_compat(rel, tid, tuple, cid, crosscheck, wait, tmfd, lockmode, update) \
	({ \
		TU_UpdateIndexes which_; \
		TM_Result	result_ = heap_update(rel, tid, tuple, cid, UPDATE_OPTIONS crosscheck, wait, \
										  tmfd, lockmode, &which_); \
		*(update) = result_ != TM_Ok || which_ == TU_None ? UPDATE_NO_INDEX : \
			which_ == TU_Summarizing ? UPDATE_SUMMARIZING_INDEXES : UPDATE_ALL_INDEXES; \
		result_; \
	})
#else
#define heap_update_compat(rel, tid, tuple, cid, crosscheck, wait, tmfd, lockmode, update) \
	({ \
		TM_Result	result_ = heap_update(rel, tid, tuple, cid, crosscheck, wait, tmfd, \
										  lockmode); \
		*(update) = result_ == TM_Ok && !HeapTupleIsHeapOnly(tuple) ? \
			UPDATE_ALL_INDEXES : UPDATE_NO_INDEX; \
		result_; \
	})
#endif

#if PG_VERSION_NUM >= 160000
#define index_is_summarizing(info)	((info)->ii_Summarizing)
#else
#define index_is_summarizing(info)	false
#endif

/* 17: an index access method may keep something from insert to insert */
#if PG_VERSION_NUM >= 170000
#define index_insert_cleanup_compat(index, info) index_insert_cleanup(index, info)
#else
#define index_insert_cleanup_compat(index, info) ((void) (info))
#endif

/* 19: pruning may need the page of the visibility map; needs storage/bufmgr.h */
#if PG_VERSION_NUM >= 190000
#define heap_page_prune_opt_compat(rel, buffer) \
	do { \
		Buffer		map_ = InvalidBuffer; \
		heap_page_prune_opt(rel, buffer, &map_, false); \
		if (BufferIsValid(map_)) \
			ReleaseBuffer(map_); \
	} while (0)
#else
#define heap_page_prune_opt_compat(rel, buffer)	heap_page_prune_opt(rel, buffer)
#endif

/* 19: a backslash is an ordinary character in all strings that do not begin with E */
#if PG_VERSION_NUM >= 190000
#define strings_conform()	true
#else
#define strings_conform()	standard_conforming_strings
#endif

/* 17: a stronger lock can count as well */
#if PG_VERSION_NUM >= 170000
#define lock_held_by_me(tag, mode)	LockHeldByMe(tag, mode, true)
#else
#define lock_held_by_me(tag, mode)	LockHeldByMe(tag, mode)
#endif

/* 16: columns without a counterpart can be allowed; needs access/attmap.h */
#if PG_VERSION_NUM >= 160000
#define attrmap_by_name_compat(in, out)	build_attrmap_by_name_if_req(in, out, false)
#else
#define attrmap_by_name_compat(in, out)	build_attrmap_by_name_if_req(in, out)
#endif

/* 16: one function for all kinds of objects */
#if PG_VERSION_NUM >= 160000
#define pg_class_ownercheck_compat(relid, role)	object_ownercheck(RelationRelationId, relid, role)
#define pg_database_ownercheck_compat(dbid, role) \
	object_ownercheck(DatabaseRelationId, dbid, role)
#define pg_namespace_aclcheck_compat(nspid, role, mode) \
	object_aclcheck(NamespaceRelationId, nspid, role, mode)
#else
#define pg_class_ownercheck_compat(relid, role)	pg_class_ownercheck(relid, role)
#define pg_database_ownercheck_compat(dbid, role)	pg_database_ownercheck(dbid, role)
#define pg_namespace_aclcheck_compat(nspid, role, mode)	pg_namespace_aclcheck(nspid, role, mode)
#endif

/* 18: NOT NULL may not hold for rows that are there; needs access/tupdesc.h */
#if PG_VERSION_NUM >= 180000
#define column_not_null(desc, i) \
	(TupleDescAttr(desc, i)->attnotnull && \
	 TupleDescCompactAttr(desc, i)->attnullability != ATTNULLABLE_INVALID)
#else
#define column_not_null(desc, i)	(TupleDescAttr(desc, i)->attnotnull)
#endif

#endif							/* REBATE_COMPAT_H */
