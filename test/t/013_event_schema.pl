# Everything a client is given is valid by schema/event.schema.json: over a ledger with all kinds, buckets and currencies
# of several scales, whose members, keys, rules and tables have the oddest names and texts.
use strict;
use warnings;
use utf8;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use EventSchema;
use Listener;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Encode qw(encode_utf8);
use IPC::Run ();
use JSON::PP ();

my $dir = PostgreSQL::Test::Utils::tempdir;
delete $ENV{PGAPPNAME};
system_or_bail('make', '-s', '-C', "$FindBin::RealBin/../../client", "BUILDDIR=$dir", 'all');

# --- the check itself ------------------------------------------------------------------------------------------------

# A checker that finds nothing wrong with anything would pass everything below.
my $event = '{"v": 1, "account": "7d0e0000-0000-0000-0000-00000000000a", "seq": "5", "member": "alice", "currency": "EUR",'
  . ' "kind": "accrue", "amount": "10.00", "from": null, "to": "available", "balance": {"tracked": "0.00", "pending": "0.00",'
  . ' "maturing": "0.00", "available": "-10.00", "held": "0.00"}, "rule": "welcome", "source": "public.orders", "order": {"id": "1"},'
  . ' "accrual_id": "64", "posting_id": "64", "event_at": "2026-11-24T22:37:24.129355Z", "posted_at": "2026-11-24T22:37:24.131000Z",'
  . ' "effective_date": "2026-11-24", "book_date": "2026-11-24"}';
my $many = '{"v": 1, "many": true}';
my $shared = '{"v": 1, "accounts": [["7d0e0000-0000-0000-0000-00000000000a", "5"]]}';
is_deeply([ invalid_events('event', $event), invalid_events('member_payload', $event, "[$event, $event]"),
        invalid_events('shared_payload', $shared, $many) ], [], 'good ones are valid');
my @bad = map {
    my ($from, $to) = @$_;
    (my $bad = $event) =~ s/\Q$from\E/$to/ or die "there is no $from";
    $bad;
  } ([ '"v": 1', '"v": 2' ], [ '"seq": "5"', '"seq": 5' ], [ '"seq": "5"', '"seq": "0"' ], [ '"10.00"', '"-10.00"' ],
    [ '"10.00"', '10.00' ], [ '"from": null', '"from": "pending"' ], [ '"to": "available"', '"to": null' ],
    [ '"accrue"', '"move"' ], [ '"accrue"', '"payout"' ], [ '"held": "0.00"', '"more": "0.00"' ], [ '"member": "alice", ', '' ],
    [ '"EUR"', '"eur"' ], [ '{"id": "1"}', '{"id": 1}' ], [ '{"id": "1"}', '{}' ], [ '129355Z', '129Z' ],
    [ '"book_date": "2026-11-24"', '"book_date": "24.11.2026"' ], [ '"v": 1', '"v": 1, "secret": "x"' ], [ '"v": 1', '"v": 1, "v": 1' ],
    [ '"alice"', "\"a\tb\"" ], [ '"alice"', "\"\xFF\"" ], [ '"alice"', 'NaN' ], [ '"2026-11-24"}', '"2026-11-24"}}' ], [ '"held"', 'held' ]);
sub lines_with_errors { my %lines = map { /^(\d+):/ ? ($1 => 1) : () } @_; return [ sort { $a <=> $b } keys %lines ]; }
is_deeply(lines_with_errors(invalid_events('event', @bad)), [ 1 .. @bad ], 'events with one thing wrong are not');
@bad = ('{"v": 1, "accounts": []}', '{"v": 1}', '{"v": 1, "many": false}', '{"v": 1, "many": true, "accounts": [["7d0e0000-0000-0000-0000-00000000000a", "5"]]}', $shared =~ s/"5"/5/r, $shared =~ s/7d0e0000/alice/r, $shared =~ s/\]\]/, "1"]]/r, $event);
is_deeply(lines_with_errors(invalid_events('shared_payload', @bad)), [ 1 .. @bad ], 'nor such payloads of the shared channel');
@bad = ("[$event]", '[]', $shared, 'null', '');
is_deeply(lines_with_errors(invalid_events('member_payload', @bad)), [ 1 .. @bad ], 'nor such of a member\'s');

# --- a shop of odd things --------------------------------------------------------------------------------------------

my @odd = ('alice', q{o'brien "the" \\ 2nd}, "line\nbreak\ttab\r\x01\x1f\x7f", 'übung ✓ 日本 😀', "\x{2028}\x{202e}\x{feff}", '</script>$x$ %s {"v": 1}',
    'l' x 2000, '"' x 900, ' ', '\\u0000');
my $text = sub { my ($s) = @_; return q{E'} . encode_utf8($s) =~ s/([\\'])/\\$1/gr . q{'} };

my $node = PostgreSQL::Test::Cluster->new('odd');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'rebate'\n");
$node->start;
$node->safe_psql('postgres', encode_utf8(q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, currency text, total numeric NOT NULL, refunded numeric,
        state text NOT NULL DEFAULT 'c', product text,
        at timestamptz NOT NULL DEFAULT now());
    SELECT rebate.add_currency('POINTS_2', 0);
    SELECT rebate.add_currency('MILLI', 12);
    SELECT rebate.attach('orders', 'customer', 'total', 'currency', refunded => 'refunded', status => 'state', order_time => 'at',
        phases => '{"t": "tracked", "p": "pending", "c": "confirmed", "v": "void"}', max_backdate => NULL, since => '1990-01-01');
    SELECT rebate.set_rule('ten', percent => 10, scope => '{"product": "now"}', unlinked_return => 'today', valid_from => '1900-01-01');
    SELECT rebate.set_rule(E'h"eld \\\\ \n ✓ 😀', percent => 10, scope => '{"product": "later"}', hold => '14 days');
    CREATE SCHEMA "we.ird ""s✓";
    CREATE TABLE "we.ird ""s✓"."T able \\ ü" ("Key ""1"" ✓" text, "日付" date, n numeric, "Flag" boolean, b bytea, who text, total numeric,
        "key\b" timestamptz, PRIMARY KEY ("Key ""1"" ✓", "日付", n, "Flag", b, "key\b"));
    SELECT rebate.attach('"we.ird ""s✓"."T able \\ ü"', 'who', 'total', 'EUR');
    SELECT rebate.set_rule('all', fixed => 1.5, currency => 'EUR', source => '"we.ird ""s✓"."T able \\ ü"');
}));

my $l = listener($node, 'postgres', 'rebate');
my %channel_of;
foreach my $member (@odd)
{
    $channel_of{$member} = $node->safe_psql('postgres', 'SELECT rebate.channel(' . $text->($member) . ')');
    listen_on($l, $channel_of{$member});
}

my $id = 0;
foreach my $member (@odd)
{
    my $who = $text->($member);
    my @of = map { ++$id } 1 .. 3;
    # by itself, since what comes together is told together
    $node->safe_psql('postgres', "INSERT INTO orders VALUES ($of[0], $who, 'EUR', 100, 0, 't', 'later')");
    ok(wait_until($l, 5, sub { on_channel($l, $channel_of{$member}) }), 'an odd member is told');
    # each in a transaction of its own
    $node->safe_psql('postgres', join ";\n",
        # through all buckets, and back
        (map { "UPDATE orders SET state = '$_' WHERE id = $of[0]" } 'p', 'c', 'p', 't', 'c'),
        qq{UPDATE orders SET refunded = 33.33 WHERE id = $of[0]}, qq{UPDATE orders SET state = 'v' WHERE id = $of[0]},
        # below zero
        qq{INSERT INTO orders VALUES ($of[1], $who, 'EUR', -50, 0, 'c', 'now')},
        qq{INSERT INTO orders VALUES ($of[2], $who, 'EUR', 20, 0, 'c', 'now', '1999-12-31 23:59:59.999999+00')},
        qq{DELETE FROM orders WHERE id = $of[2]},
        # the odd table, three in one transaction
        qq{INSERT INTO "we.ird ""s\xE2\x9C\x93"."T able \\ \xC3\xBC" SELECT $who, '2026-02-28', n / 7.0, n > 2, '\\x00ff', $who, 1,
            '2026-01-01 00:00+01' FROM generate_series(1, 3) n});
}
foreach my $unit ([ 'EUR', 1234.5 ], [ 'JPY', 12345 ], [ 'KWD', 12.3456 ], [ 'POINTS_2', 99999 ], [ 'MILLI', 0.00000000001 ], [ 'USD', 1e13 ])
{
    my ($currency, $amount) = @$unit;
    $node->safe_psql('postgres', sprintf q{INSERT INTO orders SELECT %d + n, 'alice', '%s', %s, 0, (ARRAY['t', 'p', 'c'])[n], 'now' FROM generate_series(1, 3) n},
        ($id += 3), $currency, $amount);
}
# Too many for a notification; and many accounts.
my @many = grep { length >= 900 || $_ eq 'alice' } @odd;
$node->safe_psql('postgres', 'INSERT INTO orders SELECT ' . 1000 * (10 + $_) . ' + n, ' . $text->($many[$_]) . q{, 'EUR', 1, 0, 'c', 'now' FROM generate_series(1, 100) n})
  foreach 0 .. $#many;
$node->safe_psql('postgres', q{INSERT INTO orders SELECT 50000 + n, 'm' || n, 'JPY', 1000, 0, 'c', 'now' FROM generate_series(1, 500) n});
is_announced($l, 10, '%', 'all of it');
ok(wait_until($l, 5, sub { on_channel($l, $channel_of{$_}) >= 2 or return for @odd; 1 }), 'and again');

# --- each way to events ----------------------------------------------------------------------------------------------

my $entries = $node->safe_psql('postgres', 'SELECT count(*) FROM rebate.entries');
my @feed = split /\n/, $node->safe_psql('postgres', 'SELECT event FROM rebate.feed(NULL, 1000000)');
is(scalar(@feed), $entries, 'the feed has a line for each entry');
my @events = split /\n/, $node->safe_psql('postgres', 'SELECT e.event FROM (SELECT DISTINCT member FROM rebate.balances) b, rebate.events(b.member, NULL, 1000000) e');
is(scalar(@events), $entries, 'and so has events()');
is_deeply([ sort @events ], [ sort @feed ], 'which are the same');
note_events('event', @feed);

my %kinds;
my $decoder = JSON::PP->new->utf8;
foreach my $e (map { $decoder->decode($_) } @feed)
{
    $kinds{$_}++ foreach $e->{kind}, 'from ' . ($e->{from} // 'outside'), 'to ' . ($e->{to} // 'outside'), $e->{currency},
      map { $e->{balance}{$_} =~ /^-/ ? "$_ below zero" : () } keys %{ $e->{balance} };
}
is_deeply([ sort keys %kinds ],
    [ sort qw(accrue reverse move EUR JPY KWD MILLI POINTS_2 USD), 'from outside', 'to outside', 'available below zero',
        map { ("from $_", "to $_") } qw(tracked pending maturing available) ], 'all kinds, buckets and currencies are among them');
my %members = map { $decoder->decode($_)->{member} => 1 } @feed;
is(scalar(grep { !$members{$_} } @odd), 0, 'each member as he is called');

# What each member was told is what events() has.
foreach my $member (@odd)
{
    my %told;
    my ($single, $array, $truncated) = (0, 0, 0);
    foreach my $payload (map { $decoder->decode($_->[1]) } on_channel($l, $channel_of{$member}))
    {
        ref $payload eq 'ARRAY' ? $array++ : $payload->{truncated} ? $truncated++ : $single++;
        $told{"$_->{account} $_->{seq}"} = $_ foreach ref $payload eq 'ARRAY' ? @$payload : $payload->{truncated} ? () : $payload;
    }
    my %there = map { my $e = $decoder->decode($_); ("$e->{account} $e->{seq}" => $e) } split /\n/,
      $node->safe_psql('postgres', 'SELECT event FROM rebate.events(' . $text->($member) . ', NULL, 100000)');
    is(scalar(grep { !$there{$_} } keys %told), 0, 'on a channel nothing but events');
    is_deeply(\%told, { map { $_ => $there{$_} } keys %told }, 'as events() has them');
    cmp_ok($single, '>', 0, 'single ones') if length $member < 900;
    cmp_ok($array + $truncated, '>', 0, 'and several at once');
    cmp_ok($truncated, '>', 0, 'and too many at once') if grep { $_ eq $member } @many;
}

# rebate-listen in each form that has JSON.
foreach my $mode ([], [ '--member', encode_utf8($odd[2]) ])
{
    my ($count) = @$mode ? scalar(grep { $decoder->decode($_)->{member} eq $odd[2] } @feed) : $entries;
    my $file = "$dir/file" . @$mode;
    my ($out, $err) = ('', '');
    IPC::Run::run([ "$dir/rebate-listen", '-d', $node->connstr('postgres'), '--from=beginning', "--count=$count", @$mode, '--format=json' ],
        '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
    is($err, '', 'rebate-listen --format=json');
    my @lines = split /\n/, $out;
    is(scalar(@lines), $count, "prints $count lines");
    note_events('event', @lines);
    IPC::Run::run([ "$dir/rebate-listen", '-d', $node->connstr('postgres'), '--from=beginning', "--count=$count", @$mode, "--file=$file" ],
        '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
    my @in_file = split /\n/, slurp_file($file);
    is_deeply([ sort map { (split /\t/, $_, 2)[1] } @in_file ], [ sort @lines ], '--file has the same');
    note_file_lines(@in_file);
}

# A database in another encoding gives UTF-8 to a client that asks for it.
$node->safe_psql('postgres', q{CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('latin1', encode_utf8(q{
    SET client_min_messages = warning; SET client_encoding = 'UTF8';
    CREATE EXTENSION rebate;
    CREATE TABLE "bücher" ("schlüssel" text PRIMARY KEY, customer text, total numeric);
    SELECT rebate.attach('"bücher"', 'customer', 'total', 'EUR');
    SELECT rebate.set_rule('über', percent => 10);
    INSERT INTO "bücher" VALUES ('ä', 'jürgen', 100)}));
my $latin1 = $node->safe_psql('latin1', q{SET client_encoding = 'UTF8'; SELECT event FROM rebate.feed()});
like($latin1, qr/"j\xC3\xBCrgen".*"\xC3\xBCber".*b\xC3\xBCcher.*"schl\xC3\xBCssel": "\xC3\xA4"/, 'LATIN1 becomes UTF-8');
note_events('event', $latin1);

events_are_valid('everything', 'event', 'member_payload', 'shared_payload');
is($node->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
close_listener($l);
$node->stop;
done_testing();
