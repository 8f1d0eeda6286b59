-- What a site gets from a centre: the outbox says which rows were touched (`key`) and whom that concerns (`route`), the rows
-- are read as they are. Called by:
-- engines/postgres/{routed,slices,dispatch}.py. Windows between two snapshots are as in
-- source.sql.

-- name: reserve
-- $1: link, $2: topology. What is committed from now on waits for the link, before it reads for the first time; and what
-- waits for it already, since its site's first change (add_marker), goes on waiting; of an expired link, all that is left. Since
-- when.
insert into replicator.acknowledged as a (link, topology, position) values ($1, $2, pg_current_snapshot()::text)
on conflict (link) do update
set position = case when a.expired_at is null then a.position else '1:1:' end, acknowledged_at = now(),
    expired_at = null, delivered = null
returning position;

-- name: link_state
-- $1: link, $2: the position it asks for. Whether pruning stopped waiting for it, the shares on record, and whether its site has
-- been further already. Nothing of a link that has read nothing here, though rows wait for it.
select expired_at is not null, shares,
    coalesce(pg_snapshot_xmax(delivered::pg_snapshot) > pg_snapshot_xmax($2::text::pg_snapshot), false)
from replicator.acknowledged where link = $1 and shares is not null;

-- name: record_delivered
-- $1: link, $2: the position its site has on record.
update replicator.acknowledged set delivered = $2 where link = $1;

-- name: record_shares
-- $1: link, $2: what its site gets of which table.
update replicator.acknowledged set shares = $2 where link = $1;

-- name: open_window
-- $1: after, $2: routes of the site, $3: its own origin, $4: relations, $5: its own route. The present snapshot, whether
-- `after` is of this server's past, the newest relation's number, the window's ranges; whether somebody else touched a
-- row that may concern the site, the newest marker, and the relations of which every row has to be looked at.
with edge (id) as (
    select pg_snapshot_xmax($1::text::pg_snapshot)::text::bigint - 1
    union
    select x::text::bigint from pg_snapshot_xip(pg_current_snapshot()) x where x >= pg_snapshot_xmax($1::text::pg_snapshot)
    union
    select pg_snapshot_xmax(pg_current_snapshot())::text::bigint
),
gap (low, high) as materialized (
    select low, high from (select id, lead(id) over (order by id) from edge) as pair (low, high) where high - low > 1
    union all
    select x::text::bigint - 1, x::text::bigint + 1
    from pg_snapshot_xip($1::text::pg_snapshot) x where pg_visible_in_snapshot(x, pg_current_snapshot())
)
select pg_current_snapshot()::text, pg_snapshot_xmax($1::text::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()),
    (select coalesce(max(id), 0) from replicator.relation),
    array(select low from gap order by low), array(select high from gap order by low),
    exists (
        select from gap cross join unnest($2::text[]) as r (route) cross join lateral (
            select from replicator.outbox o
            where o.route = r.route and o.xid > gap.low::text::xid8 and o.xid < gap.high::text::xid8
                and o.origin is distinct from $3 and abs(o.relation) = any($4::integer[])
            limit 1
        ) one
    ),
    (
        select newest.key from gap cross join lateral (
            select o.seq, o.key from replicator.outbox o
            where o.route = $5 and o.xid > gap.low::text::xid8 and o.xid < gap.high::text::xid8 and o.op = 'm'
            order by o.seq desc limit 1
        ) newest
        order by newest.seq desc limit 1
    ),
    array(
        select distinct o.relation from gap
        join replicator.outbox o on o.route = '' and o.xid > gap.low::text::xid8 and o.xid < gap.high::text::xid8
        where o.op = 'a' and o.relation = any($4::integer[])
    );

-- name: state_marker
-- $1: topology, $2: site. How far the centre has processed the site's changes, and a time not before any row's.
select (select position from replicator.link where topology = $1 and site = $2 and direction = 'to_centre'),
    greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, (select seen from replicator.clock)),
    pg_current_snapshot()::text, (select coalesce(max(id), 0) from replicator.relation);

-- name: read_rows
copy (
    select row_number() over (), u.* from (/*: parts */select 1 as relation, 's' as op, 0 as changed_at, '' as base, '' as image/*:*/) as u
) to stdout;

-- name: touched
-- Keys with a change in the window on one of the site's routes. Rows captured by name (negative relation) hold JSON.
select c.k, c.changed_at, c.own
from (
    select (left(g.key, -1) || repeat(',', 32 - /*: count */1/*:*/) || ')')::replicator.key_fields as k, max(g.changed_at) as changed_at,
        bool_and(g.own) as own
    from (
        select case when o.relation < 0 then row(/*: named */o.key::json ->> 'a'/*:*/)::text else o.key end as key, o.changed_at,
            o.origin is not distinct from /*: origin */'x'/*:*/ as own
        from (values /*: ranges */(1, 2)/*:*/) w (low, high)
        cross join (values /*: routes */('')/*:*/) r (route)
        join replicator.outbox o on o.route = r.route and o.xid > w.low::text::xid8 and o.xid < w.high::text::xid8
        where o.relation in (/*: relations */1, -1/*:*/) and o.op <> 'a'
        /*: everything *//*:*/
    ) as g
    group by g.key offset 0
) as c

-- name: every_key
-- Besides, all rows there are.
union all
select row(/*: key */t."a"/*:*/)::text, /*: changed_at */0/*:*/, false from /*: only *//*:*/ "__schema__"."__table__" as t

-- name: change_part
-- One table's touched rows as they are: `s` while they are the site's, `g` when not. What the site itself wrote it has;
-- it is told only when that is not its row any more.
select /*: relation */1/*:*/ as relation, case when i.inside then 's' else 'g' end as op, c.changed_at,
    case when i.inside then /*: base */null::text/*:*/ end as base,
    case when i.inside then row(/*: values */t."a"/*:*/)::text else row(/*: gone */(c.k).k0/*:*/)::text end as image
from (/*: touched */select null::replicator.key_fields as k, 0 as changed_at, false as own/*:*/) as c
left join /*: only *//*:*/ "__schema__"."__table__" as t on /*: same_row */true/*:*/
/*: parents *//*:*/
cross join lateral (select (/*: inside */true/*:*/) is true as inside) as i
where /*: own_key */true/*:*/ and (not c.own or /*: there */t."a" is not null/*:*/ and not i.inside)
    and /*: wanted */true/*:*/

-- name: only_gone
not i.inside

-- name: state_part
-- All rows of one table that are the site's.
select /*: relation */1/*:*/ as relation, 's' as op, /*: changed_at */0/*:*/ as changed_at, /*: base */null::text/*:*/ as base,
    row(/*: values */t."a"/*:*/)::text as image
from /*: only *//*:*/ "__schema__"."__table__" as t
/*: parents *//*:*/
where (/*: inside */true/*:*/) is true

-- name: chunk_part
-- As state_part, the rows of a backfill's chunk.
select /*: relation */1/*:*/ as relation, 's' as op, /*: changed_at */0/*:*/ as changed_at, /*: base */null::text/*:*/ as base,
    row(/*: values */t."a"/*:*/)::text as image
from /*: only *//*:*/ "__schema__"."__table__" as t
/*: parents *//*:*/
where (/*: inside */true/*:*/) is true and /*: behind */true/*:*/
order by /*: order */t."a"/*:*/ limit /*: limit */1/*:*/

-- name: chunk_keys
-- Rows that were asked for by key, the site's or not.
select /*: relation */1/*:*/ as relation, case when i.inside then 's' else 'g' end as op, /*: changed_at */0/*:*/ as changed_at,
    case when i.inside then /*: base */null::text/*:*/ end as base,
    case when i.inside then row(/*: values */t."a"/*:*/)::text else row(/*: gone */w.k0/*:*/)::text end as image
from (values /*: keys */(1, 'x')/*:*/) as w (place, /*: names */k0/*:*/)
left join /*: only *//*:*/ "__schema__"."__table__" as t on /*: same_row */true/*:*/ and /*: own_row */true/*:*/
/*: parents *//*:*/
cross join lateral (select (/*: inside */true/*:*/) is true as inside) as i
order by w.place

-- name: part_rows
-- As count_part, for an estimate.
select from /*: only *//*:*/ "__schema__"."__table__" as t
/*: parents *//*:*/
where (/*: inside */true/*:*/) is true

-- name: count_part
select count(*) from /*: only *//*:*/ "__schema__"."__table__" as t
/*: parents *//*:*/
where (/*: inside */true/*:*/) is true

-- name: parent
select 1 from x left join "__schema__"."__table__" as /*: alias */p0/*:*/ on /*: ties */true/*:*/

-- name: checksum
hashtextextended(row(/*: values */t."a"/*:*/)::text, 0)::text

-- name: checksum_and_image
hashtextextended(row(/*: values */t."a"/*:*/)::text, 0)::text || '|' || row(/*: values */t."a"/*:*/)::text

-- name: no_base
null::text

-- name: present
/*: value */t."a"/*:*/ is not null

-- name: missing
null

-- name: constant
/*: column */t."a"/*:*/ = /*: value */'x'/*:*/

-- name: key_constant
/*: field */(c.k).k0::text/*:*/ = /*: value */'x'/*:*/::/*: type */text/*:*/

-- name: key_field
(c.k)./*: name */k0/*:*/

-- name: named_field
o.key::json ->> /*: name */'a'/*:*/

-- name: use_all_plans
-- For the transaction: a whole table is not read row by row.
select set_config('enable_seqscan', 'on', true), set_config('enable_hashjoin', 'on', true),
    set_config('enable_mergejoin', 'on', true);

-- name: read_lag
-- $1, $2: ranges, $3: routes, $4: own origin, $5: relations. Changes in a window and the time of the oldest.
select count(*), coalesce(min(o.changed_at), 0)
from unnest($1::bigint[], $2::bigint[]) g (low, high)
cross join unnest($3::text[]) r (route)
join replicator.outbox o on o.route = r.route and o.xid > g.low::text::xid8 and o.xid < g.high::text::xid8
where o.origin is distinct from $4 and abs(o.relation) = any($5::integer[]);

-- name: outdated_keys
-- $1, $2: ranges, $3: routes, $4: relations.
select true
from unnest($1::bigint[], $2::bigint[]) g (low, high)
cross join unnest($3::text[]) r (route)
join replicator.outbox o on o.route = r.route and o.xid > g.low::text::xid8 and o.xid < g.high::text::xid8
where o.relation = any($4::integer[])
limit 1;

-- name: read_keys
-- $1, $2: ranges, $3: routes, $4: relations. Touched keys with their relation (negative: by name, in JSON) and kind.
select o.relation, o.op, o.key
from unnest($1::bigint[], $2::bigint[]) g (low, high)
cross join unnest($3::text[]) r (route)
join replicator.outbox o on o.route = r.route and o.xid > g.low::text::xid8 and o.xid < g.high::text::xid8
where abs(o.relation) = any($4::integer[]);

-- name: touched_routes
-- $1: after (NULL: look for nothing yet), $2: topology. The present snapshot, whether `after` is of this server's past, and
-- the routes that got rows since: asked once for all sites that wait.
with edge (id) as (
    select pg_snapshot_xmax($1::text::pg_snapshot)::text::bigint - 1
    union
    select x::text::bigint from pg_snapshot_xip(pg_current_snapshot()) x where x >= pg_snapshot_xmax($1::text::pg_snapshot)
    union
    select pg_snapshot_xmax(pg_current_snapshot())::text::bigint
),
gap (low, high) as materialized (
    select low, high from (select id, lead(id) over (order by id) from edge) as pair (low, high) where high - low > 1
    union all
    select x::text::bigint - 1, x::text::bigint + 1
    from pg_snapshot_xip($1::text::pg_snapshot) x where pg_visible_in_snapshot(x, pg_current_snapshot())
)
select pg_current_snapshot()::text,
    coalesce(pg_snapshot_xmax($1::text::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()), true),
    case when $1::text is null then '{}' else array(
        select distinct o.route from gap
        join replicator.outbox o on o.xid > gap.low::text::xid8 and o.xid < gap.high::text::xid8
        where o.route is not null and (starts_with(o.route, '@' || $2::text || '/')
            or abs(o.relation) in (select id from replicator.relation where topology = $2))
    ) end;

-- name: expire
-- $1: topology, $2: the link that prunes, $3: retention in seconds. Pruning no longer waits for these links.
update replicator.acknowledged set expired_at = now()
where topology = $1 and link <> $2 and right(link, 12) = '/from_centre' and expired_at is null
    and acknowledged_at < now() - make_interval(secs => $3);

-- name: bound
-- $1: topology. Below this transaction id every link that is waited for has seen all.
select min(pg_snapshot_xmin(position::pg_snapshot)::text::bigint) from replicator.acknowledged
where topology = $1 and expired_at is null;

-- name: prune
-- $1: from this transaction id, $2: below this one, $3: topology, $4: rows at most. Whatever the bound says, no row goes that
-- a link of the topology has not passed: that stands in the deleting statement itself.
delete from replicator.outbox o
where o.ctid = any(array(
    select p.ctid from replicator.outbox p
    where p.xid >= $1::bigint::text::xid8 and p.xid < $2::bigint::text::xid8
        and (abs(p.relation) in (select id from replicator.relation where topology = $3)
            or p.relation = 0 and starts_with(p.route, '@' || $3 || '/'))
    limit $4
))
and o.xid < (
    select min(pg_snapshot_xmin(position::pg_snapshot)::text::bigint) from replicator.acknowledged
    where topology = $3 and expired_at is null
)::text::xid8;

-- name: prune_tombstones
-- $1: topology, $2: retention in seconds. Deleted rows that are past the retention, and whose deletion every link has passed:
-- it is gone from the outbox.
delete from replicator.ledger l
using replicator.feed f, replicator.relation r
where f.id = l.feed and f.link = 0 and r.topology = $1
    and f.relation = case when r.table_schema = 'public' then r.table_name else r.table_schema || '.' || r.table_name end
    and l.deleted and l.changed_at < (extract(epoch from clock_timestamp()) * 1000000)::bigint - ($2::float8 * 1000000)::bigint
    and not exists (select from replicator.outbox o where o.relation = r.id and o.key = l.key);

-- name: follow_moves
-- $1: topology.
select replicator.follow_moves($1);
