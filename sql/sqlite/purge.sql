-- How large a file's outbox is, how fast it fills, and capture that is stopped when it is full. Called by:
-- engines/sqlite/outbox.py. Times in microseconds since 1970.

-- name: measure
-- ?1: topology, ?2: a day ago. The ends of the outbox, and about how many bytes its newest rows take each (with the rowid, the
-- record's header and a share of free page space); a number of a day ago (else the oldest known); when capture was stopped and resumed, why.
select (select min(seq) from replicator_outbox), (select max(seq) from replicator_outbox),
    (select avg(18 + coalesce(length(cast(op as blob)), 0) + coalesce(length(cast(origin as blob)), 0)
        + 2 * coalesce(length(cast(route as blob)), 0) + coalesce(length(cast(k0 as blob)), 0) + coalesce(length(cast(k1 as blob)), 0)
        + coalesce(length(cast(k2 as blob)), 0) + coalesce(length(cast(k3 as blob)), 0))
     from (select * from replicator_outbox order by seq desc limit 200)),
    s.at, s.seq, p.stopped_at, p.resumed_at, p.reason
from (select 1) as one
left join (
    select at, seq from replicator_outbox_sample
    order by at < ?2 desc, case when at < ?2 then -at else at end limit 1
) as s on 1
left join replicator_capture_stop as p on p.topology = ?1

-- name: count_changes
-- The sentinel and rows of nobody apart.
select count(*), coalesce(min(nullif(changed_at, 0)), 0) from replicator_outbox where relation <> 0 or op <> ''

-- name: read_waiting
-- ?1: topology. Changes that are not delivered yet: behind the slowest link that reads the outbox; and when the one
-- that has been silent longest was heard of. A site's marker, which says that the centre has answered, delivers nothing.
select count(*), (
    select cast((julianday(min(a.acknowledged_at)) - 2440587.5) * 86400000000 as integer) from replicator_acknowledged as a
    where a.topology = ?1 and a.expired_at is null and a.nonce is not null
)
from replicator_outbox
where (relation <> 0 or op <> '') and seq > coalesce((
    select min(cast(substr(a.position, instr(a.position, ':') + 1) as integer)) from replicator_acknowledged as a
    where a.expired_at is null and not exists (
        select 1 from replicator_acknowledged as b
        where b.nonce is not null and b.link <> a.link and b.link = replace(a.link, '/from_centre', '/to_centre')
    )
), 0)

-- name: free_pages
select (select freelist_count from pragma_freelist_count()) * (select page_size from pragma_page_size())

-- name: take_sample
-- ?1: now.
insert or ignore into replicator_outbox_sample (at, seq)
select ?1, (select max(seq) from replicator_outbox)
where not exists (select 1 from replicator_outbox_sample where at > ?1 - 3600000000)

-- name: wants_sample
-- ?1: now.
select not exists (select 1 from replicator_outbox_sample where at > ?1 - 3600000000)

-- name: forget_samples
delete from replicator_outbox_sample where at < ? - 8 * 86400000000

-- name: list_captures
-- ?1: what the names of a topology's triggers begin with.
select name from sqlite_master where type = 'trigger' and substr(name, 1, length(?1)) = ?1

-- name: drop_capture
drop trigger if exists "__trigger__"

-- name: record_stop
-- ?1: topology, ?2: why, ?3: now.
insert into replicator_capture_stop (topology, reason, stopped_at) values (?1, ?2, ?3)
on conflict (topology) do update set reason = excluded.reason, stopped_at = excluded.stopped_at, resumed_at = null

-- name: read_stop
select stopped_at, resumed_at is not null, reason from replicator_capture_stop where topology = ?

-- name: resume
update replicator_capture_stop set resumed_at = cast((julianday('now') - 2440587.5) * 86400000000.0 as integer)
where topology = /*: topology */ '' /*:*/ and resumed_at is null

-- name: forget_stop
-- ?1: topology, ?2: when it was resumed, as it was read before the tables were compared. One that was stopped again stays.
delete from replicator_capture_stop where topology = ?1 and resumed_at = ?2

-- name: expire_slowest
-- ?1: topology, ?2: days a link has to have been silent for. At a centre: the link that holds the outbox back furthest is waited
-- for no more; it has to be read anew.
update replicator_acknowledged set expired_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
where link = (
    select link from replicator_acknowledged
    where topology = ?1 and nonce is not null and expired_at is null and julianday(acknowledged_at) < julianday('now') - ?2
    order by cast(substr(position, instr(position, ':') + 1) as integer) limit 1
)
returning link
