-- Statements every connection runs. Reads: replicator.migration. Writes: session settings only.
-- Called by: engines/postgres/{connection,level}.py.

-- name: settle
-- Fixes everything that changes how a value is spelled as text or read back, in one round trip; and puts away role and
-- database defaults that would end our work half way (statement_timeout) or hide rows from it (row_security).
select pg_catalog.set_config(name, value, false)
from (values
    ('search_path', 'pg_catalog'),
    ('datestyle', 'ISO, MDY'),
    ('intervalstyle', 'postgres'),
    ('timezone', 'UTC'),
    ('extra_float_digits', '1'),
    ('bytea_output', 'hex'),
    ('lc_monetary', 'C'),
    ('xmloption', 'content'),
    ('xmlbinary', 'base64'),
    ('array_nulls', 'on'),
    ('standard_conforming_strings', 'on'),
    ('backslash_quote', 'safe_encoding'),
    ('transform_null_equals', 'off'),
    ('quote_all_identifiers', 'off'),
    ('default_transaction_isolation', 'read committed'),
    ('statement_timeout', '0'),
    ('idle_in_transaction_session_timeout', '0'),
    ('row_security', 'off'),
    ('jit', 'off')
) as setting (name, value);

-- name: has_migrations
-- Whether the role may read which migrations ran; no row where nothing of ours is installed. Never an error.
select has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'replicator' and c.relname = 'migration';

-- name: read_level
-- The last migration that ran here.
select coalesce(max(number), 0) from replicator.migration;

-- name: set_lock_timeout
-- $1: milliseconds, as text. For the transaction only.
select pg_catalog.set_config('lock_timeout', $1, true);

-- name: settle_target
reset search_path;
