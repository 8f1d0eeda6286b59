-- What a database has. Reads: pg_catalog. Writes: nothing. Called by: engines/postgres/catalogue.py.
-- One query per kind of thing, never one per table: 500 tables cost four queries. User tables are those outside the
-- system's schemas and ours that no extension owns.

-- name: version
select current_setting('server_version'), current_setting('server_version_num')::integer;

-- name: tables
select c.oid::bigint, n.nspname, c.relname,
    case
        when c.relkind = 'f' then 'foreign'
        when c.relispartition then 'partition'
        when c.relkind = 'p' then 'partitioned'
        when exists (select from pg_inherits i where i.inhrelid = c.oid or i.inhparent = c.oid) then 'inherited'
        else 'table'
    end,
    greatest(c.reltuples, 0)::bigint
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'f') and c.relpersistence <> 't'
    and n.nspname not in ('pg_catalog', 'information_schema', 'replicator') and n.nspname !~ '^pg_(toast|temp)'
    and not exists (
        select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
    )
order by 2, 3;

-- name: columns
-- $1: table oids. Collation and default only where they are not the type's own.
select a.attrelid::bigint, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated <> '',
    a.attidentity = 'a',
    case when a.attcollation <> t.typcollation then a.attcollation::regcollation::text else '' end,
    case when a.attgenerated = '' then coalesce(pg_get_expr(d.adbin, d.adrelid), '') else '' end, a.attnum
from pg_attribute a
join pg_type t on t.oid = a.atttypid
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = any($1::bigint[]::oid[]) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum;

-- name: uniques
-- $1: table oids. Expression and partial indexes are listed with what plain columns they have.
select i.indrelid::bigint, x.relname, i.indisprimary, i.indpred is null and i.indexprs is null, not i.indimmediate,
    coalesce(pg_get_expr(i.indpred, i.indrelid), ''),
    array(
        select a.attname::text
        from unnest(i.indkey::smallint[]) with ordinality k (attnum, place)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        where k.place <= i.indnkeyatts order by k.place
    ),
    array(
        select case when k.sorted_by in (0, a.attcollation) then '' else k.sorted_by::regcollation::text end
        from unnest(i.indkey::smallint[], i.indcollation::oid[]) with ordinality k (attnum, sorted_by, place)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        where k.place <= i.indnkeyatts order by k.place
    )
from pg_index i
join pg_class x on x.oid = i.indexrelid
where i.indrelid = any($1::bigint[]::oid[]) and i.indisunique and i.indisvalid
order by i.indrelid, i.indisprimary desc, x.relname;

-- name: foreign_keys
-- $1: table oids. Constraints of partitions that their root passed down are left out.
select k.conrelid::bigint, k.conname, pn.nspname, p.relname, k.condeferrable, k.confdeltype::text, k.confupdtype::text,
    array(
        select a.attname::text from unnest(k.conkey) with ordinality u (attnum, place)
        join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.attnum order by u.place
    ),
    array(
        select a.attname::text from unnest(k.confkey) with ordinality u (attnum, place)
        join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.attnum order by u.place
    )
from pg_constraint k
join pg_class p on p.oid = k.confrelid
join pg_namespace pn on pn.oid = p.relnamespace
where k.contype = 'f' and k.conrelid = any($1::bigint[]::oid[]) and k.conparentid = 0
order by k.conrelid, k.conname;

-- name: type_settings
-- $1: table oids. Which settings change the text of a column's values: its type followed through domains, arrays, ranges
-- and composites down to base types. A base type that is not PostgreSQL's own may print floats.
with recursive used (type, part) as (
    select distinct a.atttypid, a.atttypid
    from pg_attribute a
    where a.attrelid = any($1::bigint[]::oid[]) and a.attnum > 0 and not a.attisdropped
    union
    select u.type, inner_type.oid
    from used u
    join pg_type t on t.oid = u.part
    cross join lateral (
        select t.typbasetype where t.typtype = 'd'
        union all
        select t.typelem where t.typelem <> 0 and t.typcategory = 'A'
        union all
        select r.rngsubtype from pg_range r where r.rngtypid = t.oid
        union all
        -- A multirange (PostgreSQL 14 and later) depends on its range.
        select r.rngsubtype from pg_depend d join pg_range r on r.rngtypid = d.refobjid
        where t.typtype = 'm' and d.classid = 'pg_type'::regclass and d.objid = t.oid and d.refclassid = 'pg_type'::regclass
        union all
        select f.atttypid from pg_attribute f
        where t.typtype = 'c' and f.attrelid = t.typrelid and f.attnum > 0 and not f.attisdropped
    ) inner_type (oid)
),
needs as (
    select u.type, array_agg(distinct s.name) as names
    from used u
    join pg_type t on t.oid = u.part
    cross join lateral (
        select 'datestyle' as name where t.typname in ('date', 'timestamp', 'timestamptz', 'timetz', 'abstime')
        union all
        select 'timezone' where t.typname = 'timestamptz'
        union all
        select 'intervalstyle' where t.typname = 'interval'
        union all
        select 'extra_float_digits' where t.typname in ('float4', 'float8') or t.typcategory = 'G'
            or (t.typtype = 'b' and t.typnamespace <> 'pg_catalog'::regnamespace and t.typcategory <> 'A')
        union all
        select 'bytea_output' where t.typname = 'bytea'
        union all
        select 'lc_monetary' where t.typname = 'money'
    ) s
    group by u.type
)
select a.attrelid::bigint, a.attname, n.names
from pg_attribute a join needs n on n.type = a.atttypid
where a.attrelid = any($1::bigint[]::oid[]) and a.attnum > 0 and not a.attisdropped;

-- name: all_rows
-- A small table whole: the sites' parameters.
select * from "__schema__"."__table__";
