-- Reading a centre's outbox and tables for one site. Run by replicator/engines/sqlite/routed.py in short read transactions.
-- Rows are found by route, so the cost follows the site's own changes; ``indexed by`` makes sure of it. Routes: a JSON list.
-- function: replicator_checksum/-1

-- name: has_news
-- Whether anything in a stretch of the outbox is for the site: not written by itself, or a marker.
select exists (
    select 1 from replicator_outbox indexed by replicator_outbox_route
    where route in (select value from json_each(?1)) and seq > ?2 and seq <= ?3 and (op in ('m', 'a') or origin is not ?4)
)

-- name: stretch_end
-- The last outbox row of the next chunk of rows with these routes.
select seq from replicator_outbox indexed by replicator_outbox_route
where route in (select value from json_each(?1)) and seq > ?2 and seq <= ?3 order by seq limit 1 offset ?4

-- name: first_read_all
select seq, relation, changed_at from replicator_outbox indexed by replicator_outbox_route
where route in (select value from json_each(?1)) and seq > ?2 and seq <= ?3 and op = 'a' order by seq limit 1

-- name: relations_between
select distinct relation from replicator_outbox indexed by replicator_outbox_route
where route in (select value from json_each(?1)) and seq > ?2 and seq <= ?3 and op not in ('a', 'm')

-- name: newest_marker
select k0 from replicator_outbox indexed by replicator_outbox_route
where route = ?1 and seq > ?2 and seq <= ?3 and op = 'm' order by seq desc limit 1

-- name: read_fed
-- Which database feeds the site's link to the centre.
select source_identity from replicator_link where topology = ? and site = ? and direction = 'to_centre'

-- name: has_delivered
-- Whether the link's site is known to have got rows: only an acknowledgement writes down the routes.
select exists (select 1 from replicator_acknowledged where link = ? and routes is not null)

-- name: processed_upto
-- How far the site's changes have been processed, for a site that reads for the first time.
select position from replicator_link where topology = ? and site = ? and direction = 'to_centre'

-- name: read_changed
-- As read_changed of source.sql: the rows as they are now, op g where there is none that the site gets. Left out are rows that
-- only the site itself has touched. The last value is the base the site is to keep.
select case when /*: present */ m."__column__" is not null /*:*/ then c.replicator_first else c.replicator_last end + ?4,
    case when /*: present */ m."__column__" is not null /*:*/
        then case when /*: fits */ 1 /*:*/ then 's' else 'o' end else 'g' end,
    c.replicator_changed_at,
    /*: values */ m."__column__" /*:*/,
    case when /*: present */ m."__column__" is not null /*:*/ then /*: base */ null /*:*/ end
from (
    select min(seq) as replicator_first, max(seq) as replicator_last,
        coalesce(max(changed_at), 0) as replicator_changed_at, /*: places */ k0 as replicator_k0 /*:*/
    from replicator_outbox indexed by replicator_outbox_route
    where route in (select value from json_each(?5)) and seq > ?1 and seq <= ?2 and relation = ?3 and op not in ('a', 'm')
    group by /*: distinct */ k0 /*:*/ having max(origin is not ?6)
) as c left join "__table__" as m on /*: same_row */ m."__column__" = c.replicator_k0 /*:*/
where /*: mine */ 1 /*:*/

-- name: read_page
-- Op g: a row that is not the site's.
select ?1 + row_number() over (),
    case when /*: inside */ 1 /*:*/ then case when /*: fits */ 1 /*:*/ then 's' else 'o' end else 'g' end, ?2,
    /*: values */ m."__column__" /*:*/, /*: base */ null /*:*/
from "__table__" as m where /*: between */ 1 /*:*/

-- name: by_path
-- A condition on the row at the end of a path of followed tables.
exists (select 1 from "__table__" as p0 /*: joins */ /*:*/ where /*: follows */ p0."__column__" = 1 /*:*/)

-- name: read_lag
select count(*), min(changed_at) from replicator_outbox indexed by replicator_outbox_route
where route in (select value from json_each(?1)) and seq > ?2 and op <> 'm' and (op = 'a' or origin is not ?3)

-- name: expire_links
-- Links that have let their changes lie for longer than ?2 days: pruning waits for them no more.
update replicator_acknowledged as a set expired_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
where a.expired_at is null and a.topology = ?1 and julianday(a.acknowledged_at) < julianday('now') - ?2
    and (select o.changed_at from replicator_outbox as o
         where o.seq > cast(substr(a.position, instr(a.position, ':') + 1) as integer) order by o.seq limit 1)
        < cast((julianday('now') - ?2 - 2440587.5) * 86400000000.0 as integer)

-- name: record_routes
update replicator_acknowledged set routes = ?2 where link = ?1 and routes is not ?2

-- name: read_shares
select shares, routes from replicator_acknowledged where link = ?

-- name: record_shares
update replicator_acknowledged set shares = ?2 where link = ?1

-- name: unexpire_link
-- A link that has been read anew.
update replicator_acknowledged set expired_at = null where link = ? and expired_at is not null
