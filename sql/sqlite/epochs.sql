-- A file that begins a new epoch, for replicator rejoin. Run by replicator/engines/sqlite/epochs.py, in one transaction each.

-- name: renew
-- ?1: whether the database gets a new name as well.
update replicator_identity set epoch = lower(hex(randomblob(6))),
    database_id = case when ?1 then lower(hex(randomblob(16))) else database_id end
where only_row = 1

-- name: inherit
-- A copy that becomes another site goes on where the one it was copied from had got. ?1: link, ?2: topology.
insert or ignore into replicator_acknowledged (link, topology, position, nonce, acknowledged_at)
select ?1, topology, position, nonce, acknowledged_at from replicator_acknowledged
where topology = ?2 and nonce is not null and link <> ?1 order by acknowledged_at desc limit 1

-- name: forget_others
-- ?1: topology, ?2: link, ?3: its reverse. What is known of other sites' links.
delete from replicator_acknowledged where topology = ?1 and link not in (?2, ?3)

-- name: forget_other_links
delete from replicator_link where topology = ? and site <> ?

-- name: unexpire
update replicator_acknowledged set expired_at = null where link = ?

-- name: pass_processed
-- ?1: link, ?2: the time of the newest change that the centre has of this site, ?3: topology. The link goes on behind the
-- last change that is not later.
insert into replicator_acknowledged (link, topology, position, nonce, acknowledged_at)
select ?1, ?3, n.nonce || ':' || n.seq || ':' || coalesce((select changed_at from replicator_outbox where seq = n.seq), 0), n.nonce,
    strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
from (
    select max(coalesce(cast(substr(a.position, instr(a.position, ':') + 1) as integer), 0),
        coalesce((select min(o.seq) - 1 from replicator_outbox as o where o.changed_at > ?2 and o.relation in (
                select id from replicator_relation where topology = ?3)
            and o.seq > coalesce(cast(substr(a.position, instr(a.position, ':') + 1) as integer), 0)),
        (select max(seq) from replicator_outbox))) as seq, lower(hex(randomblob(6))) as nonce
    from (select 1) left join replicator_acknowledged as a on a.link = ?1
) as n
where ?2 > 0
on conflict (link) do update set position = excluded.position, nonce = excluded.nonce,
    acknowledged_at = excluded.acknowledged_at

-- name: read_acknowledged
select position from replicator_acknowledged where link = ?

-- name: first_place
-- A position before everything.
select epoch || ':0:0' from replicator_identity where only_row = 1

-- name: mark
-- ?1: link from the centre, ?2: topology, ?3: position. What the site changed beyond that is yet to be processed.
insert into replicator_acknowledged (link, topology, position, acknowledged_at)
values (?1, ?2, ?3, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
on conflict (link) do update set position = excluded.position, expired_at = null

-- name: forget_first_marker
delete from replicator_acknowledged where link = ?1 || '//from_centre'

-- name: forget_bases
delete from replicator_base where substr(relation, 1, length(?1) + 1) = ?1 || '/'

-- name: hold_back
-- ?1: topology, ?2: site, ?3: a position that no centre knows.
insert into replicator_link (topology, site, direction, position) values (?1, ?2, 'from_centre', ?3)
on conflict (topology, site, direction) do update set position = excluded.position, stamp = '', source_identity = ''

-- name: go_on
-- ?1: topology, ?2: site, ?3: position, ?4: the source's identity.
insert into replicator_link (topology, site, direction, position, source_identity) values (?1, ?2, 'to_centre', ?3, ?4)
on conflict (topology, site, direction) do update set position = excluded.position, stamp = '',
    source_identity = excluded.source_identity

-- name: forget_beliefs
delete from replicator_ledger where link in (
    select id from replicator_link where topology = ? and site = ? and direction = 'to_centre')

-- name: wait_from_start
-- ?1: link from the centre, ?2: topology. It is to read everything anew, and what it is told meanwhile stays for it.
insert into replicator_acknowledged (link, topology, position, nonce, acknowledged_at)
select ?1, ?2, epoch || ':0:0', lower(hex(randomblob(6))), strftime('%Y-%m-%dT%H:%M:%fZ', 'now') from replicator_identity
where only_row = 1
on conflict (link) do update set position = excluded.position, nonce = excluded.nonce, expired_at = null, routes = null,
    acknowledged_at = excluded.acknowledged_at

-- name: forget_markers
-- ?1: the site's own route, ?2: a position before everything. The highest row never leaves.
update replicator_outbox set k0 = ?2 where op = 'm' and route = ?1

-- name: let_fall
update replicator_link set position = null, stamp = '' where topology = ? and site = ? and direction = 'from_centre'

-- name: has_identity
select 1 from sqlite_master where type = 'table' and name = 'replicator_identity'
