-- Bookkeeping of a link at a SQLite target: lease, position, contact, parked changes. Times are microseconds since 1970.

-- name: ensure_link
insert into replicator_link (topology, site, direction) values (?, ?, ?)
on conflict (topology, site, direction) do nothing

-- name: read_link
select id, position, source_identity, lease_holder, lease_until from replicator_link
where topology = ? and site = ? and direction = ?

-- name: take_lease
-- Mine, nobody's, run out, or (told by the caller) of a process that is gone.
update replicator_link set lease_holder = ?1, lease_until = ?2
where id = ?3 and (lease_holder is null or lease_holder = ?1 or lease_until < ?4 or lease_holder = ?5)

-- name: hold_lease
-- Renews the lease and takes the file's write lock at once, before anything of it is read.
update replicator_link set lease_until = ?1 where id = ?2 and lease_holder = ?3

-- name: release_lease
update replicator_link set lease_holder = null, lease_until = null where id = ? and lease_holder = ?

-- name: record_batch
update replicator_link set position = ?1, recorded_at = ?2, changes = changes + ?3, conflicts = conflicts + ?4,
    parked = parked + ?5, newest_changed_at = max(newest_changed_at, ?6)
where id = ?7 and position is ?8 and lease_holder = ?9

-- name: record_clock
-- Hybrid time: what this database writes from now on counts as later than what it has just seen.
update replicator_control set seen = ?1 where only_row = 1 and seen < ?1

-- name: record_contact
update replicator_link set source_identity = ?1, contact_at = ?2, skew_us = ?3 where id = ?4 and source_identity in ('', ?1)

-- name: read_clock
select cast((julianday('now') - 2440587.5) * 86400000000.0 as integer)

-- name: outbox_top
select max(seq) from replicator_outbox

-- name: erase_own_tail
-- A target that is captured itself must not send back what was applied. The write lock makes it exact.
delete from replicator_outbox where seq > ?

-- name: parked_relations
select distinct relation from replicator_parked where link = ?

-- name: add_parked
insert into replicator_parked (id, link, relation, "key", op, state, changed_at, columns, before, after, sqlstate, cause,
    parked_at, attempts)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: list_parked
select p.id, l.site, p.relation, p."key", p.op, p.state, p.columns, p.before, p.after, p.sqlstate, p.cause, p.parked_at,
    p.attempts
from replicator_parked as p join replicator_link as l on l.id = p.link
where p.link = ?1 and (?2 = '[]' or p.id in (select value from json_each(?2))) and (?3 = '' or p.relation = ?3)
order by p.id

-- name: list_conflicts
-- The newest decisions of a link, oldest of them first.
select * from (
    select id, relation, "key", kind, before, after, current, changed_at, policy, verdict, reason, decided_at
    from replicator_conflict
    where link = ?1 and (?2 = '[]' or id in (select value from json_each(?2))) and (?3 = '' or relation = ?3)
    order by id desc limit ?4
) order by id

-- name: read_parked
-- The last column: the first parked change of the same row.
select p.relation, p."key", p.op, p.changed_at, p.columns, p.before, p.after, p.attempts,
    (select min(q.id) from replicator_parked as q
     where q.link = p.link and q.relation = p.relation and q."key" = p."key" and p."key" <> '')
from replicator_parked as p where p.id = ? and p.link = ?

-- name: remove_parked
delete from replicator_parked where id = ?

-- name: promote_next
-- The next of a row's queue becomes its first.
update replicator_parked set state = 'parked' where id = (
    select min(id) from replicator_parked where link = ?1 and relation = ?2 and "key" = ?3 and ?3 <> '')

-- name: demote_others
update replicator_parked set state = 'waiting' where link = ?1 and relation = ?2 and "key" = ?3 and ?3 <> '' and id <> ?4

-- name: edit_parked
update replicator_parked set after = ?, cause = ?, sqlstate = '' where id = ?

-- name: add_conflict
insert into replicator_conflict (link, relation, "key", kind, before, after, current, changed_at, policy, verdict, reason,
    decided_at)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: overtake_parked
-- A TRUNCATE overtakes the parked changes of its table: applied later, they would bring rows back.
insert into replicator_conflict (link, relation, "key", kind, changed_at, policy, verdict, reason, decided_at)
select link, relation, "key", 'parked', changed_at, 'manual', 'keep',
    'overtaken by a TRUNCATE of the table; was: ' || cause, ?3
from replicator_parked where link = ?1 and relation = ?2

-- name: drop_overtaken
delete from replicator_parked where link = ?1 and relation = ?2
