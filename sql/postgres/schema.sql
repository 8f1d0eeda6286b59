-- Changes of users' tables, as `schema diff` shows them and `schema apply` runs them, and as messages name them.
-- Reads, writes: the users' tables. Rendered by: replicator/alters.py.

-- name: add_column
alter table "__schema__"."__table__" add column /*: column */"c" integer/*:*/;

-- name: drop_column
alter table "__schema__"."__table__" drop column "__column__";

-- name: rename_column
alter table "__schema__"."__table__" rename column "__column__" to /*: new */"other"/*:*/;

-- name: rename_table
alter table "__schema__"."__table__" rename to /*: new */"other"/*:*/;

-- name: set_type
-- By way of text where PostgreSQL has no cast of its own: what cannot be read as the new type stops the statement.
alter table "__schema__"."__table__" alter column "__column__" type /*: type */integer/*:*/ using "__column__"::text::/*: type */integer/*:*/;

-- name: set_not_null
alter table "__schema__"."__table__" alter column "__column__" set not null;

-- name: drop_not_null
alter table "__schema__"."__table__" alter column "__column__" drop not null;

-- name: add_key
alter table "__schema__"."__table__" add primary key (/*: columns */id/*:*/);

-- name: replace_key
-- Both in one statement, so that the table is never without a key.
alter table "__schema__"."__table__" drop constraint "__constraint__", add primary key (/*: columns */id/*:*/);

-- name: schema_mark
-- $1: schemas, $2: tables. Another text whenever one of these tables has other columns, types or keys, is another table, or
-- has other triggers of ours.
with wanted as (
    select c.oid
    from unnest($1::text[], $2::text[]) w (schema, name)
    join pg_namespace n on n.nspname = w.schema
    join pg_class c on c.relnamespace = n.oid and c.relname = w.name
),
facts (fact) as (
    select concat_ws(' ', a.attrelid::bigint, a.attnum, a.attname, a.atttypid::bigint, a.atttypmod, a.attnotnull, a.attgenerated)
    from wanted join pg_attribute a on a.attrelid = wanted.oid
    where a.attnum > 0 and not a.attisdropped
    union all
    select concat_ws(' ', i.indrelid::bigint, i.indkey::text, i.indisprimary, i.indimmediate)
    from wanted join pg_index i on i.indrelid = wanted.oid
    where i.indisunique and i.indisvalid
    union all
    select concat_ws(' ', t.tgrelid::bigint, t.tgname, t.tgenabled)
    from wanted join pg_trigger t on t.tgrelid = wanted.oid
    where not t.tgisinternal and t.tgname like '!replicator%'
)
select coalesce(md5(string_agg(fact, ',' order by fact)), '') from facts;
