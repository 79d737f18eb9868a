/*
 * audit_archive.c
 *	  What must hold between the archive, its boundaries and the other entries.
 *
 * That archived entries are as they were posted is seen where all entries are
 * read, in audit_pass.c and audit_ledger.c.
 */
#include "rebate.h"

#include "audit.h"

const char *const audit_archive_queries[] = {
	/* readers by cursor are told of the boundary only */
	"SELECT 'boundary does not match', 'account ' || b.account_id,"
	"       CASE WHEN e.seq IS NULL THEN 'It is at entry ' || b.seq || ', and no entry is archived.'"
	"            WHEN b.seq <> e.seq THEN 'It is at entry ' || b.seq || ', entries up to ' || e.seq || ' are archived.'"
	"            ELSE 'Time, check or balances are not those of entry ' || b.seq || '.' END"
	"  FROM rebate_data.boundary b"
	"  LEFT JOIN LATERAL (SELECT seq, posted_at, \"check\", tracked, pending, maturing, available, held"
	"                       FROM rebate_data.entry_archive x WHERE x.account_id = b.account_id"
	/* where all of them were dropped, it is what is carried forward */
	"                      UNION ALL"
	"                     SELECT seq, posted_at, \"check\", tracked, pending, maturing, available, held"
	"                       FROM rebate_data.carried c WHERE c.account_id = b.account_id"
	"                      ORDER BY seq DESC LIMIT 1) e ON true"
	" WHERE b.seq IS DISTINCT FROM e.seq OR b.posted_at <> e.posted_at OR b.\"check\" <> e.\"check\""
	"    OR (b.tracked, b.pending, b.maturing, b.available, b.held)"
	"       <> (coalesce(e.tracked, 0), coalesce(e.pending, 0), coalesce(e.maturing, 0),"
	"           coalesce(e.available, 0), coalesce(e.held, 0))",
	"SELECT 'archived entries without a boundary', 'account ' || e.account_id,"
	"       'Up to entry ' || max(e.seq) || '.'"
	"  FROM rebate_data.entry_archive e"
	" WHERE NOT EXISTS (SELECT FROM rebate_data.boundary b WHERE b.account_id = e.account_id)"
	" GROUP BY e.account_id",
	"SELECT 'entry before the boundary is not archived', 'account ' || e.account_id || ', entry ' || e.seq,"
	"       'The boundary is at entry ' || b.seq || '.'"
	"  FROM rebate_data.boundary b"
	"  JOIN rebate_data.entry e ON e.account_id = b.account_id AND e.seq <= b.seq",
	"SELECT 'last entry of an account is archived', 'account ' || a.account_id, 'Entry ' || a.last_entry || '.'"
	"  FROM rebate_data.boundary b"
	"  JOIN rebate_data.account a ON a.account_id = b.account_id AND a.last_entry <= b.seq",
	"SELECT 'entry was dropped and is there', 'account ' || e.account_id || ', entry ' || e.seq,"
	"       'What is carried forward is after entry ' || c.seq || '.'"
	"  FROM rebate_data.carried c"
	"  JOIN rebate_data.entry_archive e ON e.account_id = c.account_id AND e.seq <= c.seq",
	"SELECT 'more is carried forward than was archived', 'account ' || c.account_id,"
	"       'It is after entry ' || c.seq || '.'"
	"  FROM rebate_data.carried c"
	" WHERE NOT EXISTS (SELECT FROM rebate_data.boundary b WHERE b.account_id = c.account_id AND b.seq >= c.seq)",
	/* and readers of the feed of the youngest transaction */
	"SELECT 'archive does not know its youngest transaction', 'rebate_data.archive',"
	"       'It is ' || e.xid || ' of epoch ' || e.epoch || '.'"
	"  FROM (SELECT epoch, xid FROM rebate_data.entry_archive ORDER BY epoch DESC, xid DESC LIMIT 1) e"
	" WHERE NOT EXISTS (SELECT FROM rebate_data.archive r WHERE (r.epoch, r.xid) >= (e.epoch, e.xid))",
	NULL
};
