-- Whether a position is of this database's history. What is acknowledged here is known; what is ahead of that is told by a
-- stamp of the batch it ended, whose rows are still in the outbox: nothing goes that is not acknowledged. Called by:
-- engines/postgres/stamps.py.

-- name: compare
-- $1: link, $2: the position its target has. Whether that lies in this server's past; what is on record here of the link, and
-- whether that is further than $2 or just as far; whether its target is known here to have been further; whether it expired; what a site is known to have.
select pg_snapshot_xmax($2::text::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()), a.position,
    (pg_snapshot_xmax(a.position::pg_snapshot), pg_snapshot_xmin(a.position::pg_snapshot))
        >= (pg_snapshot_xmax($2::text::pg_snapshot), pg_snapshot_xmin($2::text::pg_snapshot)),
    (pg_snapshot_xmax(a.known::pg_snapshot), pg_snapshot_xmin(a.known::pg_snapshot))
        > (pg_snapshot_xmax($2::text::pg_snapshot), pg_snapshot_xmin($2::text::pg_snapshot)),
    a.expired, a.delivered
from (select) as one
left join (
    select position, case when right(link, 12) = '/from_centre' then delivered else position end as known,
        expired_at is not null as expired, delivered
    from replicator.acknowledged where link = $1 and (shares is not null or right(link, 12) <> '/from_centre')
) as a on true;

-- name: find_stamp
-- $1, $2: ranges of the batch, $3: its newest row, $4: of which time. How many rows there are up to it, and whether it is there.
select count(*), coalesce(bool_or(o.seq = $3 and o.changed_at = $4), false)
from unnest($1::bigint[], $2::bigint[]) g (low, high)
join replicator.outbox o on o.xid > g.low::text::xid8 and o.xid < g.high::text::xid8
where o.seq <= $3;

-- name: routed_stamp
-- $1, $2: ranges, $3: routes. How many rows a window has, and its newest with its time.
select count(*) over (), o.seq, o.changed_at
from unnest($1::bigint[], $2::bigint[]) g (low, high)
cross join unnest($3::text[]) r (route)
join replicator.outbox o on o.route = r.route and o.xid > g.low::text::xid8 and o.xid < g.high::text::xid8
order by o.seq desc limit 1;

-- name: add_nonce
-- $1: link, $2: the position the batch follows (NULL: none), $3: the one it ends at. Older ones are of no use any more.
with old as (
    delete from replicator.history
    where link = $1 and pg_snapshot_xmax(position::pg_snapshot) < pg_snapshot_xmax($2::text::pg_snapshot)
)
insert into replicator.history (nonce, link, position) values (gen_random_uuid()::text, $1, $3) returning nonce;

-- name: has_nonce
-- $1: link, $2: nonce.
select exists (select from replicator.history where link = $1 and nonce = $2);

-- name: read_fed
-- $1: topology, $2: site. Which database feeds the site's link to the centre.
select source_identity from replicator.link where topology = $1 and site = $2 and direction = 'to_centre';

-- name: incarnation
-- What changes when a server is started again or a database is made anew.
select pg_postmaster_start_time()::text || ' ' || (select oid from pg_database where datname = current_database());
