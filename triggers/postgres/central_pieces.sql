-- What a centre's capture function is filled with. o = a row before the change, n = after it, p0, p1 … = the tables it
-- follows, f = a table that follows it, m = a followed row that moved. Rendered by: engines/postgres/central.py.

-- name: own_route
case when num_nulls(/*: columns */n."a"/*:*/) > 0 then '' else '=' || row(/*: texts */n."a"::text/*:*/)::text end

-- name: followed_route
-- Through the tables the row follows; a parent that is not there, and NULL, concern every site.
coalesce((
    select '=' || row(/*: texts */p0."a"::text/*:*/)::text from /*: parents */pg_class as p0/*:*/
    where /*: ties */true/*:*/ and num_nulls(/*: columns */p0."a"/*:*/) = 0 limit 1
), '')

-- name: same_route
-- The route before the change: the same, without another look, while the row follows the same parent.
case when record_image_eq(row(/*: old_via */o."a"/*:*/), row(/*: new_via */n."a"/*:*/)) then /*: new_route */''/*:*/ else /*: old_route */''/*:*/ end

-- name: tie
/*: left */p0."a"/*:*/ = /*: right */n."b"/*:*/

-- name: odd_tie
-- Where the type's "=" is not PostgreSQL's own.
/*: left */p0."a"/*:*/ operator("__schema__".=) /*: right */n."b"/*:*/::/*: type */text/*:*/

-- name: text
/*: value */n."a"/*:*/::text

-- name: field
-- A key's column out of a record literal.
(/*: fields */k/*:*/)./*: name */k0/*:*/::/*: type */text/*:*/

-- name: table
select 1 from "__schema__"."__table__" as /*: alias */p0/*:*/

-- name: is_null
/*: value */"a"/*:*/ is null

-- name: has_type
format_type(pg_typeof(/*: value */"a"/*:*/), null) = /*: type */'integer'/*:*/

-- name: ready_by_statement
-- See README.md: a column the rows do not have is found one query further out, where it is true.
(
    select found.ready
    from (values (/*: wanted_values */true, true/*:*/)) as wanted (/*: wanted_names */"a", "b"/*:*/),
        lateral (select /*: wanted_test */"a" is null and "b" is null/*:*/ as ready
            from (select) as nothing left join /*: rows */new_rows/*:*/ as x on false) as found
)

-- name: ready_by_row
(
    select count(*) from pg_attribute as a
    where a.attrelid = tg_relid and a.attnum > 0 and not a.attisdropped
        and (a.attname, format_type(a.atttypid, null)) in (values /*: wanted_types */('a', 'integer')/*:*/)
) = /*: wanted_count */1/*:*/

-- name: is_table
tg_relid = to_regclass(/*: name */'x.t'/*:*/)

-- name: others_ready
(
    select count(*) from pg_attribute as a
    join (values /*: others */('x.t', 'a', 'integer')/*:*/) as wanted (place, name, type)
        on a.attrelid = to_regclass(wanted.place) and a.attname = wanted.name and format_type(a.atttypid, null) = wanted.type
    where not a.attisdropped
) = /*: others_count */1/*:*/

-- name: pairs_by_statement
-- Both transition tables are filled in step, so the n-th old row belongs to the n-th new row. A full join, kept one by
-- offset 0, because a session keeps the plan it made for a few rows: a nested loop would be quadratic for many.
select 1
from (
    select replicator_old, replicator_new
    from (select row_number() over () as replicator_place, row(x.*) as replicator_image, /*: columns */x."a"/*:*/ from old_rows as x)
        as replicator_old
    full join (select row_number() over () as replicator_place, row(x.*) as replicator_image, /*: columns */x."a"/*:*/ from new_rows as x)
        as replicator_new on replicator_new.replicator_place = replicator_old.replicator_place
    offset 0
) as pair
cross join lateral (select (pair.replicator_old).*) as o
join lateral (select (pair.replicator_new).*) as n on o.replicator_image *<> n.replicator_image

-- name: pairs_by_row
select 1
from (select /*: old_columns */old."a" as "a"/*:*/) as o
join (select /*: new_columns */new."a" as "a"/*:*/) as n on old *<> new

-- name: rows_by_statement
select 1 from /*: rows */new_rows/*:*/ as /*: alias */n/*:*/

-- name: rows_by_row
select 1 from (select /*: columns */new."a" as "a"/*:*/) as /*: alias */n/*:*/

-- name: rows_of_table
select 1 from (select * from /*: only *//*:*/ "__schema__"."__table__") as /*: alias */o/*:*/

-- name: write_rows
insert into replicator.outbox (relation, op, changed_at, origin, key, route)
select /*: relation */1/*:*/, /*: op */'i'/*:*/, capture.stamp, capture.origin, row(/*: key */n."a"/*:*/)::text, /*: route */''/*:*/
from /*: rows */new_rows as n/*:*/

-- name: write_updated
-- A row that leaves its key or its route behind is also said under the old one; to the site that moved it away, too.
insert into replicator.outbox (relation, op, changed_at, origin, key, route)
select /*: relation */1/*:*/, w.op, capture.stamp, w.origin, w.key, w.route
from (
    select row(/*: old_key */o."a"/*:*/)::text as old_key, row(/*: new_key */n."a"/*:*/)::text as new_key,
        /*: old_route */''/*:*/ as old_route, /*: new_route */''/*:*/ as new_route
    from /*: pairs */old_rows as o, new_rows as n/*:*/
) as c
cross join lateral (values
    (1, case when c.old_key = c.new_key then 'u'::"char" else 'd' end,
        case when c.old_route = c.new_route then capture.origin end, c.old_key, c.old_route),
    (2, case when c.old_key = c.new_key then 'u'::"char" else 'i' end, capture.origin, c.new_key, c.new_route)
) as w (place, op, origin, key, route)
where w.place = 2 or c.old_key <> c.new_key or c.old_route <> c.new_route

-- name: touched
select row(/*: key */n."a"/*:*/)::text as key, /*: deleted */false/*:*/ as deleted from /*: rows */new_rows as n/*:*/

-- name: touched_both
select w.key, w.deleted
from /*: pairs */old_rows as o, new_rows as n/*:*/
cross join lateral (values (row(/*: old_key */o."a"/*:*/)::text, true), (row(/*: new_key */n."a"/*:*/)::text, false)) as w (key, deleted)

-- name: write_versions
-- Written at the centre: origin NULL. A key both left and taken by the statement is there.
insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted)
select f.id, w.key, capture.stamp, 0, bool_and(w.deleted)
from replicator.feed as f, (/*: touched */select '' as key, false as deleted/*:*/) as w
where f.link = 0 and f.relation = /*: table */'t'/*:*/
group by f.id, w.key
on conflict (feed, key) do update
set version = l.version + 1, changed_at = excluded.changed_at, deleted = excluded.deleted, origin = null

-- name: write_followers
insert into replicator.outbox (relation, op, changed_at, key, route)
/*: parts */select 1, 'u'::"char", 0, '', ''/*:*/

-- name: no_followers
select 0, 'u'::"char", 0, '', '' where false

-- name: no_moves
select '', '', '' where false

-- name: followers
select /*: relation */1/*:*/, 'u'::"char", capture.stamp, row(/*: key */f."a"/*:*/)::text, m.route
from (/*: moved */select 1 as m0, '' as route, false as moved/*:*/) as m, /*: chain */pg_class as f/*:*/
where /*: ties */true/*:*/

-- name: moved_rows
select /*: values */n."a" as m0/*:*/, /*: route */''/*:*/ as route, true as moved from /*: rows */new_rows as n/*:*/

-- name: moved_pairs
select /*: fields */w.m0/*:*/, w.route, c.moved
from (
    select /*: old_values */o."a" as o0/*:*/, /*: new_values */n."a" as n0/*:*/, /*: old_route */''/*:*/ as old_route,
        /*: new_route */''/*:*/ as new_route,
        record_image_ne(row(/*: old_referred */o."a"/*:*/), row(/*: new_referred */n."a"/*:*/)) as renamed
    from /*: pairs */old_rows as o, new_rows as n/*:*/
    where record_image_ne(row(/*: old_watched */o."a"/*:*/), row(/*: new_watched */n."a"/*:*/))
) as b
cross join lateral (select b.renamed or b.old_route <> b.new_route as moved) as c
cross join lateral (values (1, /*: old_fields */b.o0/*:*/, b.old_route), (2, /*: new_fields */b.n0/*:*/, b.new_route)) as w (place, /*: names */m0/*:*/, route)
where c.moved or w.place = 1 and /*: watched */true/*:*/

-- name: write_moves
insert into replicator.moved (topology, statement, key)
/*: parts */select '', '', ''/*:*/

-- name: moves
select distinct /*: topology */'x'/*:*/, /*: statement */'x'/*:*/, row(/*: fields */m.m0/*:*/)::text
from (/*: moved */select 1 as m0, '' as route, true as moved/*:*/) as m
where m.moved

-- name: announce_followers
-- Parameters: the followed row's columns as a record literal, the time.
insert into replicator.outbox (relation, op, changed_at, key, route)
select /*: relation */1/*:*/, 'u', $2, row(/*: key */f."a"/*:*/)::text, /*: route */''/*:*/
from (select (left($1, -1) || repeat(',', 32 - /*: count */1/*:*/) || ')')::replicator.key_fields as k offset 0) as m,
    /*: chain */pg_class as f/*:*/
where /*: ties */true/*:*/
