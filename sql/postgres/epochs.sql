-- A database that begins a new epoch, for replicator rejoin. Called by: engines/postgres/epochs.py, in one transaction each,
-- which at a site sees one snapshot: what is committed meanwhile is neither dropped here nor passed by the position.

-- name: renew
-- $1: whether the database gets a new name as well.
update replicator.identity
set epoch = gen_random_uuid()::text, database_id = case when $1 then gen_random_uuid()::text else database_id end;

-- name: inherit
-- A copy that becomes another site goes on where the one it was copied from had got. $1: link, $2: topology.
insert into replicator.acknowledged (link, topology, position)
select $1, topology, position from replicator.acknowledged
where topology = $2 and right(link, 10) = '/to_centre' and link <> $1
order by pg_snapshot_xmax(position::pg_snapshot) limit 1
on conflict (link) do nothing;

-- name: forget_others
-- $1: topology, $2: link, $3: its reverse. What is known of other sites' links.
delete from replicator.acknowledged where topology = $1 and link not in ($2, $3);

-- name: forget_other_links
-- $1: topology, $2: site.
delete from replicator.link where topology = $1 and site <> $2;

-- name: is_ahead
-- Whether the outbox, or what is on record, is of transactions this server has not given out yet: it came in a dump.
select exists (select from replicator.outbox where xid >= pg_snapshot_xmax(pg_current_snapshot()))
    or exists (
        select from replicator.acknowledged
        where pg_snapshot_xmax(position::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot())
    );

-- name: drop_outbox
-- $1: topology. Nobody can say any more which of these were before which.
delete from replicator.outbox where abs(relation) in (select id from replicator.relation where topology = $1);

-- name: drop_processed
-- $1: topology, $2: the time of the newest change that the centre has of this site, $3: link, $4: the centre's position. For a
-- database that was put back: nothing else tells what of it the centre had. Where the centre has less than was acknowledged
-- here, it was put back itself, and has nothing beyond that.
delete from replicator.outbox o
where o.changed_at <= $2 and o.route is null and abs(o.relation) in (select id from replicator.relation where topology = $1)
    and not exists (
        select from replicator.acknowledged a
        where a.link = $3 and not pg_visible_in_snapshot(o.xid, a.position::pg_snapshot)
            and (pg_snapshot_xmax(a.position::pg_snapshot), pg_snapshot_xmin(a.position::pg_snapshot))
                >= (pg_snapshot_xmax($4::text::pg_snapshot), pg_snapshot_xmin($4::text::pg_snapshot))
    );

-- name: drop_passed
-- $1: topology, $2: as above, $3: how far the centre has read this very history, $4: and the log. Not by time alone: a change
-- may be older than others, and be committed behind them.
delete from replicator.outbox
where changed_at <= $2 and route is null and abs(relation) in (select id from replicator.relation where topology = $1)
    and (pg_visible_in_snapshot(xid, $3::text::pg_snapshot) or lsn < $4::text::pg_lsn);

-- name: see_one_snapshot
-- First in the transaction.
set transaction isolation level repeatable read;

-- name: drop_ticks
delete from replicator.tick where pg_snapshot_xmax(snapshot) > pg_snapshot_xmax(pg_current_snapshot());

-- name: go_on_from_now
-- $1: link, $2: topology.
insert into replicator.acknowledged (link, topology, position) values ($1, $2, pg_current_snapshot()::text)
on conflict (link) do update set position = excluded.position;

-- name: unexpire
-- $1: link.
update replicator.acknowledged set expired_at = null where link = $1;

-- name: read_acknowledged
-- $1: link.
select position from replicator.acknowledged where link = $1;

-- name: mark
-- $1: link from the centre, $2: topology, $3: position. What the site changed beyond that is yet to be processed.
insert into replicator.acknowledged (link, topology, position) values ($1, $2, $3)
on conflict (link) do update set position = excluded.position, expired_at = null;

-- name: hold_back
-- $1: topology, $2: site, $3: a position that no centre knows.
insert into replicator.link (topology, site, direction, position) values ($1, $2, 'from_centre', $3)
on conflict (topology, site, direction) do update set position = excluded.position, stamp = '', source_identity = '';

-- name: go_on
-- $1: topology, $2: site, $3: position, $4: the source's identity.
insert into replicator.link (topology, site, direction, position, source_identity) values ($1, $2, 'to_centre', $3, $4)
on conflict (topology, site, direction) do update
set position = excluded.position, stamp = '', source_identity = excluded.source_identity;

-- name: forget_beliefs
-- $1: topology, $2: site.
delete from replicator.ledger where feed in (
    select f.id from replicator.feed f join replicator.link l on l.id = f.link
    where l.topology = $1 and l.site = $2 and l.direction = 'to_centre'
);

-- name: wait_from_start
-- $1: link from the centre, $2: topology. It is to read everything anew, and what it is told meanwhile stays for it.
insert into replicator.acknowledged (link, topology, position) values ($1, $2, '1:1:')
on conflict (link) do update
set position = excluded.position, delivered = null, shares = null, expired_at = null, acknowledged_at = now();

-- name: forget_markers
-- $1: the site's own route. Places in a history that is over.
delete from replicator.outbox where op = 'm' and route = $1;

-- name: let_fall
-- $1: topology, $2: site.
update replicator.link set position = null, stamp = '' where topology = $1 and site = $2 and direction = 'from_centre';
