-- What `check` looks at. Reads: pg_catalog. Writes: nothing. Called by: engines/postgres/checks.py.

-- name: database
select current_setting('server_version_num')::integer, current_setting('server_version'), current_user::text,
    current_database()::text, pg_is_in_recovery(), current_setting('server_encoding'),
    has_database_privilege(current_database(), 'create'),
    case when to_regnamespace('replicator') is null then null else has_schema_privilege('replicator', 'create') end,
    current_setting('max_prepared_transactions')::integer, current_setting('fsync') = 'on';

-- name: our_rights
-- Where our schema is: whether this role may use it, and read and write all that is in it. Reads the catalogue alone.
select has_schema_privilege(n.oid, 'usage'),
    not exists (select from pg_class c where c.relnamespace = n.oid and (
        c.relkind in ('r', 'p') and not (has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
            and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete'))
        or c.relkind = 'S' and not has_sequence_privilege(c.oid, 'usage')))
from pg_namespace n where n.nspname = 'replicator';

-- name: tables
-- $1: schemas, $2: tables. What may be wrong with a table that is to be captured.
select n.nspname, c.relname, c.relkind::text, c.relpersistence = 'u', c.relrowsecurity and c.relforcerowsecurity,
    pg_has_role(c.relowner, 'usage'), pg_get_userbyid(c.relowner)::text, has_table_privilege(c.oid, 'select'),
    has_table_privilege(c.oid, 'insert') and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete'),
    has_schema_privilege(n.oid, 'usage'),
    coalesce((select rn.nspname || '.' || r.relname
        from pg_partition_ancestors(c.oid) a join pg_class r on r.oid = a.relid join pg_namespace rn on rn.oid = r.relnamespace
        where a.relid <> c.oid and r.oid = pg_partition_root(c.oid)), ''),
    exists (select from pg_rewrite r where r.ev_class = c.oid and r.ev_type <> '1'),
    c.relrowsecurity
from unnest($1::text[], $2::text[]) as wanted (schema, name)
join pg_namespace n on n.nspname = wanted.schema
join pg_class c on c.relnamespace = n.oid and c.relname = wanted.name
order by 1, 2;

-- name: schemas
-- $1: schemas. Whether tables may be made in those that exist.
select n.nspname, has_schema_privilege(n.oid, 'create') and has_schema_privilege(n.oid, 'usage')
from pg_namespace n
where n.nspname = any ($1::text[]);

-- name: is_indexed
-- Schema, table, columns: whether a whole index begins with these columns, in any order.
select exists (
    select from pg_index i
    join pg_class c on c.oid = i.indrelid and c.relname = $2
    join pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
    where i.indisvalid and i.indpred is null and cardinality($3::text[]) = (
        select count(*) from unnest(i.indkey::int2[]) with ordinality as k (number, place)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
        where k.place <= cardinality($3::text[]) and a.attname = any ($3::text[])));

-- name: open_transactions
-- Transactions older than ten minutes hold back what VACUUM may remove, the outbox included.
select pid::text, coalesce(usename, ''), coalesce(application_name, ''), coalesce(state, ''),
    extract(epoch from clock_timestamp() - xact_start)::bigint
from pg_stat_activity
where datname = current_database() and xact_start < clock_timestamp() - interval '10 minutes'
    and (backend_xid is not null or backend_xmin is not null) and pid <> pg_backend_pid()
union all
select 'prepared ' || gid, owner, '', 'prepared', extract(epoch from clock_timestamp() - prepared)::bigint
from pg_prepared_xacts
where database = current_database() and prepared < clock_timestamp() - interval '10 minutes'
order by 5 desc;

-- name: fix_create_index
create index concurrently on "__schema__"."__table__" (/*: columns */ "__column__" /*:*/);

-- name: fix_grant_create
grant create on database "__database__" to "__role__";

-- name: fix_grant_ours
grant create, usage on schema replicator to "__role__";

-- name: fix_grant_use
grant usage on schema replicator to "__role__";

-- name: fix_grant_our_tables
grant select, insert, update, delete on all tables in schema replicator to "__role__";

-- name: fix_grant_sequences
grant usage, select on all sequences in schema replicator to "__role__";

-- name: fix_grant_select
grant select on "__schema__"."__table__" to "__role__";

-- name: fix_grant_tables
grant create, usage on schema "__schema__" to "__role__";

-- name: fix_grant_usage
grant usage on schema "__schema__" to "__role__";

-- name: fix_grant_write
grant select, insert, update, delete, truncate on "__schema__"."__table__" to "__role__";

-- name: fix_grant_owner
grant "__owner__" to "__role__";

-- name: fix_bypass
alter role "__role__" bypassrls;

-- name: fix_set_logged
alter table "__schema__"."__table__" set logged;

-- name: fix_no_force
alter table "__schema__"."__table__" no force row level security;

-- name: fix_terminate
select pg_terminate_backend(/*: pid */1/*:*/);

-- name: fix_roll_back
rollback prepared /*: gid */'x'/*:*/;
