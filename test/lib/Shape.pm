# What an extension and its store consist of, as texts that two databases can be compared by.
package Shape;
use strict;
use warnings;
use Exporter 'import';
our @EXPORT = qw(shapes difference);

# What others than the owner are granted
my $acl = sub {
    my ($column, $owner) = @_;
    return qq{(SELECT string_agg(concat_ws(' ', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, a.privilege_type, CASE WHEN a.is_grantable THEN '*' END), ', '
        ORDER BY a.grantee::regrole::text, a.privilege_type) FROM aclexplode($column) a WHERE a.grantee <> $owner)};
};

my $ours = q{IN ('rebate'::regnamespace, 'rebate_data'::regnamespace)};
my %query = (
    'members of the extension' => q{SELECT pg_describe_object(classid, objid, 0) FROM pg_depend
        WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'rebate') ORDER BY 1},
    'what a dump takes along' => q{SELECT extversion, extconfig::regclass[]::text[], extcondition FROM pg_extension WHERE extname = 'rebate'},
    functions => qq{SELECT p.oid::regprocedure, prokind, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), lanname, prosrc, probin, proconfig,
        provolatile, proparallel, proisstrict, prosecdef, proleakproof, procost, prorows, obj_description(p.oid, 'pg_proc') FROM pg_proc p
        JOIN pg_language l ON l.oid = prolang WHERE pronamespace $ours ORDER BY p.oid::regprocedure::text},
    'rights on functions' => qq{SELECT p.oid::regprocedure, } . $acl->('p.proacl', 'p.proowner') . qq{ FROM pg_proc p WHERE pronamespace $ours ORDER BY p.oid::regprocedure::text},
    relations => qq{SELECT c.oid::regclass, relkind, relpersistence, pg_get_userbyid(relowner), reloptions, relrowsecurity, obj_description(c.oid, 'pg_class'), }
        . $acl->('c.relacl', 'c.relowner') . qq{ FROM pg_class c WHERE relnamespace $ours ORDER BY c.oid::regclass::text},
    columns => qq{SELECT attrelid::regclass, row_number() OVER (PARTITION BY attrelid ORDER BY attnum), attname, format_type(atttypid, atttypmod), attnotnull, attstorage,
        attcollation::regcollation, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE relnamespace $ours AND attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'v', 'p', 'S') ORDER BY attrelid::regclass::text, attnum},
    indexes => qq{SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relnamespace $ours ORDER BY 1},
    constraints => qq{SELECT conrelid::regclass, conname, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint') FROM pg_constraint
        WHERE connamespace $ours ORDER BY conrelid::regclass::text, conname},
    views => qq{SELECT c.oid::regclass, pg_get_viewdef(c.oid) FROM pg_class c WHERE relkind = 'v' AND relnamespace $ours ORDER BY c.oid::regclass::text},
    'triggers of the store' => qq{SELECT pg_get_triggerdef(t.oid), tgenabled, obj_description(t.oid, 'pg_trigger') FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
        WHERE relnamespace $ours AND NOT tgisinternal ORDER BY 1},
    'event triggers' => q{SELECT evtname, evtevent, evtfoid::regprocedure, evtenabled, evttags, obj_description(oid, 'pg_event_trigger') FROM pg_event_trigger ORDER BY 1},
    types => qq{SELECT t.oid::regtype, typtype FROM pg_type t WHERE typnamespace $ours ORDER BY t.oid::regtype::text},
    sequences => qq{SELECT seqrelid::regclass, seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle FROM pg_sequence JOIN pg_class c ON c.oid = seqrelid
        WHERE relnamespace $ours ORDER BY 1},
    schemas => q{SELECT nspname, pg_get_userbyid(nspowner), obj_description(oid, 'pg_namespace'), } . $acl->('nspacl', 'nspowner') . q{ FROM pg_namespace
        WHERE nspname IN ('rebate', 'rebate_data') ORDER BY 1},
    'what a store begins with' => q{SELECT 'ledger_account', l::text FROM rebate_data.ledger_account l UNION ALL SELECT 'campaign', c::text FROM rebate_data.campaign c
        UNION ALL SELECT 'currency', c::text FROM rebate_data.currency c ORDER BY 1, 2},
    'shape of the store' => 'SELECT rebate.store_shape()',
    versions => 'SELECT * FROM rebate.versions()',
);

# Name => text, of a database
sub shapes
{
    my ($node, $database) = @_;
    return { map { $_ => $node->safe_psql($database, $query{$_}) } keys %query };
}

# The lines that one text has and the other has not
sub difference
{
    my ($found, $expected) = @_;
    my %found = map { $_ => 1 } split /\n/, $found;
    my %expected = map { $_ => 1 } split /\n/, $expected;
    return join '', map { "$_\n" } (map { "- $_" } grep { !$found{$_} } sort keys %expected), (map { "+ $_" } grep { !$expected{$_} } sort keys %found);
}

1;
