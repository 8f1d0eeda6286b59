-- Which column of which table a place of a captured version is, whatever the column is called by now; and changes of captured
-- tables as event triggers note them.

-- `attnums`: the columns' numbers in the table `table_oid` (pg_attribute), in the order of `columns`. Null where the version
-- is older than this migration and its table has changed since.
alter table replicator.relation add column table_oid oid, add column attnums smallint[];

update replicator.relation as r
set table_oid = t.oid, attnums = t.attnums
from (
    select v.id, c.oid,
        array(
            select a.attnum from unnest(v.columns) with ordinality as n (name, place)
            join pg_attribute as a on a.attrelid = c.oid and a.attname = n.name and not a.attisdropped
            order by n.place
        ) as attnums
    from replicator.relation as v
    join pg_namespace as s on s.nspname = v.table_schema
    join pg_class as c on c.relnamespace = s.oid and c.relname = v.table_name
    where v.retired_at is null
) as t
where r.id = t.id and cardinality(t.attnums) = cardinality(r.columns);

-- `place`: the outbox's newest number then, so that one sees which changes came before.
create table replicator.schema_change (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    table_schema text not null,
    table_name text not null,
    command text not null,
    statement text not null default '',
    who text not null default session_user,
    place bigint not null default 0
);
