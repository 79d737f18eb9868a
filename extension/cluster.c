/*
 * cluster.c
 *	  Clusters that this database was in before pg_upgrade brought it here.
 *
 * pg_upgrade keeps transaction ids and files but makes a new cluster, so that its
 * system identifier says less than what a dump and restore changes.  The two are
 * told apart by a table of the extension: CREATE EXTENSION writes the cluster's
 * identifier there, a dump leaves it out, and pg_upgrade, which runs no script of
 * an extension, brings that of the old cluster along.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "cluster.h"

bool
cluster_is_former(uint64 system_identifier)
{
	Oid			nspid = get_namespace_oid("rebate", true);
	Oid			relid = OidIsValid(nspid) ? get_relname_relid("cluster", nspid) : InvalidOid;
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	/* an older version of the extension has no such table */
	if (system_identifier == GetSystemIdentifier() || !OidIsValid(relid) ||
		get_rel_relkind(relid) != RELKIND_RELATION)
		return false;
	rel = table_open(relid, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		found = DatumGetInt64(heap_getattr(tuple, 1, RelationGetDescr(rel), &isnull)) ==
			(int64) system_identifier;
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}
