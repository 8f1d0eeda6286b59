-- Chunks of a backfill, read at their source in key order. Their numbers lie behind every number of an outbox. Called by:
-- engines/postgres/chunks.py, slices.py.

-- name: read_chunk
copy (
    select 4611686018427387904 + row_number() over (), u.*
    from (/*: part */select 1 as relation, 'i' as op, 0 as changed_at, '' as before, '' as after/*:*/) as u
) to stdout;

-- name: read_plain
copy (/*: part */select 1/*:*/) to stdout;

-- name: read_numbered
copy (
    select 4611686018427387904 + row_number() over (), 'i', 0, u.* from (/*: part */select 1/*:*/) as u
) to stdout;

-- name: hold
-- Waits for who alters the table; until the transaction ends nobody does.
select /*: key */t."a"/*:*/ from /*: only *//*:*/ "__schema__"."__table__" as t limit 0;

-- name: is_as_seen
-- Whether every table that the transaction holds is the one its snapshot shows. One that was rewritten or emptied meanwhile, or
-- made anew, has no rows for it.
select not exists (
    select from pg_locks l
    left join pg_class c on c.oid = l.relation
    where l.pid = pg_backend_pid() and l.locktype = 'relation'
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
      and c.relfilenode is distinct from 0 and coalesce(c.relkind, 'r') in ('r', 'm')
      and c.relnamespace is distinct from 'replicator'::regnamespace
      and c.relfilenode is distinct from pg_relation_filenode(l.relation)
);

-- name: key_order
-- $1: schema, $2: table, $3: key. Column by column: where the operators that compare the key's values are, as its index does
-- (those of an extension's type are not where ours are looked for), what type they have, and what their order depends on.
with recursive kind (place, id, type, spelled) as (
    select k.place, a.atttypid, format_type(a.atttypid, a.atttypmod),
        concat_ws(' ', quote_ident(k.name), a.atttypid::regtype, a.attcollation::regcollation)
    from unnest($3::text[]) with ordinality k (name, place)
    join pg_class c on c.relname = $2 join pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
    join pg_attribute a on a.attrelid = c.oid and a.attname = k.name
    union
    select kind.place, t.typbasetype, kind.type, kind.spelled from kind join pg_type t on t.oid = kind.id where t.typtype = 'd'
)
select coalesce((
    select n.nspname from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
    where o.oprname = '<' and o.oprleft = kind.id and o.oprright = kind.id limit 1
), 'pg_catalog'), kind.type, kind.spelled
from kind join pg_type t on t.oid = kind.id where t.typtype <> 'd' order by kind.place;

-- name: site_part
-- A site's rows as they are.
select /*: relation */1/*:*/ as relation, 'i' as op, 0 as changed_at, null::text as before, row(/*: values */t."a"/*:*/)::text as after
from /*: only *//*:*/ "__schema__"."__table__" as t
where (/*: inside */true/*:*/) is true and /*: behind */true/*:*/
order by /*: order */t."a"/*:*/ limit /*: limit */1/*:*/

-- name: site_plain
-- The same, value by value.
select /*: values */t."a"/*:*/
from /*: only *//*:*/ "__schema__"."__table__" as t
where (/*: inside */true/*:*/) is true and /*: behind */true/*:*/
order by /*: order */t."a"/*:*/ limit /*: limit */1/*:*/

-- name: site_keys
-- Rows that were asked for by key, there or not.
select /*: relation */1/*:*/ as relation, case when i.inside then 'i' else 'd' end as op, 0 as changed_at,
    case when not i.inside then row(/*: gone */w.k0/*:*/)::text end as before,
    case when i.inside then row(/*: values */t."a"/*:*/)::text end as after
from (values /*: keys */(1, 'x')/*:*/) as w (place, /*: names */k0/*:*/)
left join /*: only *//*:*/ "__schema__"."__table__" as t on /*: same_row */true/*:*/
cross join lateral (select (/*: there */t."a" is not null/*:*/ and (/*: inside */true/*:*/)) is true as inside) as i
order by w.place

-- name: behind
(/*: key */t."a"/*:*/) operator("__operators__".>) (/*: values */'x'/*:*/)

-- name: behind_in_part
-- The same column by column, where the operators are not all in one place.
(/*: first */t."a" > 'x'/*:*/ or /*: same */t."a" = 'x'/*:*/ and /*: rest */true/*:*/)

-- name: in_order
select t."a" from "__operators__" as t order by
/*: column */t."a"/*:*/ using operator("__operators__".<)

-- name: typed
/*: value */'x'/*:*/::/*: type */text/*:*/

-- name: same_value
/*: column */t."a"/*:*/ operator("__operators__".=) /*: value */'x'/*:*/

-- name: there
/*: value */t."a"/*:*/ is not null

-- name: nothing
null

-- name: estimate
explain (format json) /*: part */select 1/*:*/;

-- name: site_count
select from /*: only *//*:*/ "__schema__"."__table__" as t where (/*: inside */true/*:*/) is true

-- name: truncated
-- $1, $2: ranges, $3: relations. Whether the table was emptied in the window.
select exists (
    select from unnest($1::bigint[], $2::bigint[]) g (low, high)
    join replicator.outbox o on o.xid > g.low::text::xid8 and o.xid < g.high::text::xid8
    where abs(o.relation) = any($3::integer[]) and o.op = 't'
);
