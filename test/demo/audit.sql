-- The audit's verdict, at the end of each demo.
\set QUIET on
\set ON_ERROR_STOP on
\pset pager off
\pset footer off
\pset null ''
SET client_min_messages = warning;
SELECT count(*) AS violations FROM rebate.audit() \gset
SELECT count(*) AS orders FROM rebate.decisions \gset
SELECT count(*) AS entries FROM rebate.entries \gset
\echo :orders 'orders,' :entries 'entries,' :violations 'violations.'
SELECT :violations = 0 AS clean \gset
\if :clean
\echo
\else
SELECT * FROM rebate.audit() LIMIT 20;
\endif
