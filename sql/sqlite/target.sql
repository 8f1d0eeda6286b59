-- Bookkeeping of a link at a SQLite target: lease, position, contact, parked changes. Times are microseconds since 1970.

-- name: ensure_link
insert into replicator_link (topology, site, direction) values (?, ?, ?)
on conflict (topology, site, direction) do nothing

-- name: read_link
select id, position, source_identity, lease_holder, lease_until from replicator_link
where topology = ? and site = ? and direction = ?

-- name: read_stamp
select stamp from replicator_link where id = ?

-- name: same_source
-- ?1: our number for the link, ?2: a database's name. Another site's link that is fed by it or a copy.
select o.site from replicator_link as l
join replicator_link as o on o.topology = l.topology and o.direction = l.direction and o.site <> l.site
where l.id = ?1 and l.direction = 'to_centre' and instr(o.source_identity, ?2) order by 1 limit 1

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
update replicator_link set position = ?1, stamp = ?10, recorded_at = ?2, changes = changes + ?3,
    conflicts = conflicts + ?4, parked = parked + ?5, newest_changed_at = max(newest_changed_at, ?6)
where id = ?7 and position is ?8 and lease_holder = ?9

-- name: record_clock
-- Hybrid time: what this database writes from now on counts as later than what it has just seen.
update replicator_control set seen = ?1 where only_row = 1 and seen < ?1

-- name: record_contact
update replicator_link set source_identity = ?1, contact_at = ?2, skew_us = ?3 where id = ?4 and source_identity in ('', ?1, ?5)

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
-- The newest so many (?4, -1: all), oldest of them first.
-- The last column: the conflict that the change's row waits with for a person.
select * from (
select p.id, l.site, p.relation, p."key", p.op, p.state, p.columns, p.before, p.after, p.sqlstate, p.cause, p.parked_at,
    p.attempts,
    coalesce((select min(f.id) from replicator_conflict as f join replicator_parked as q on q.id = f.parked
        where f.state = 'waiting' and q.link = p.link and q.relation = p.relation and q."key" = p."key"), 0)
from replicator_parked as p join replicator_link as l on l.id = p.link
where p.link = ?1 and (?2 = '[]' or p.id in (select value from json_each(?2))) and (?3 = '' or p.relation = ?3)
order by p.id desc limit ?4) order by 1

-- name: list_conflicts
-- The newest decisions of a link, oldest of them first.
select * from (
    select c.id, c.relation, c."key", c.kind, c.before, c.after, c.current, c.changed_at, c.policy, c.verdict, c.reason,
        c.decided_at, l.site, c.based, c.result, c.current_origin, c.current_at, c.clock_error_us, c.unsure, c.state,
        c.resolution, c.parked
    from replicator_conflict as c join replicator_link as l on l.id = c.link
    where c.link = ?1 and (?2 = '[]' or c.id in (select value from json_each(?2))) and (?3 = '' or c.relation = ?3)
    order by c.id desc limit ?4
) order by id

-- name: count_held
-- Tables of a link that have more changes parked than ?2 for a cause of their own, by code and cause.
select sqlstate, max(cause), count(*) from replicator_parked
where link = ?1 and sqlstate in ('held', 'unkeyed') group by relation, sqlstate having count(*) > ?2

-- name: list_queues
-- Parked changes by row, where trying again may help: refused by a constraint, held until now (?3: tables that still are), or
-- changes wait behind; and nobody is asked.
select json_group_array(id) from (
    select p.id, p.relation, p."key", p.sqlstate, p.state from replicator_parked as p
    where p.link = ?1 and p."key" <> '' and p.relation not in (select value from json_each(?3)) order by p.id
) as q
where not exists (
    select 1 from replicator_conflict as c join replicator_parked as w on w.id = c.parked
    where c.link = ?1 and c.state = 'waiting' and w.link = ?1 and w.relation = q.relation and w."key" = q."key")
group by q.relation, q."key"
having (count(*) > 1 or max(q.sqlstate) like 'SQLITE_CONSTRAINT%' or max(q.sqlstate) in ('', 'held'))
   and max(q.sqlstate) <> 'unkeyed'
order by min(q.id) limit ?2

-- name: waits
-- Whether a row waits for a person's decision.
select exists (select 1 from replicator_conflict where link = ? and state = 'waiting' and relation = ? and "key" = ?)

-- name: read_conflict
select relation, "key", state, parked, result, after, current, before from replicator_conflict where id = ? and link = ?

-- name: settle_conflict
-- The conflict itself, and with it every other that waited for the same row.
update replicator_conflict set state = 'resolved', resolution = ?3, resolved_at = ?4,
    result = case when id = ?1 then ?5 else result end
where id = ?1 or (link = ?2 and state = 'waiting' and relation = ?6 and "key" = ?7)

-- name: reopen_conflict
-- A parked change that is put back under its number keeps its conflict.
update replicator_conflict set state = 'waiting', resolution = '', resolved_at = null
where link = ?1 and parked = ?2 and resolution = 'tried again'

-- name: end_waiting
-- The parked changes a conflict waited with are gone: it waits no more.
update replicator_conflict set state = 'resolved', resolution = ?2, resolved_at = ?3
where link = ?1 and state = 'waiting' and parked <> 0 and parked not in (select id from replicator_parked)

-- name: row_parked
select id, op, changed_at, columns, before, after from replicator_parked
where link = ?1 and relation = ?2 and "key" = ?3 order by id

-- name: row_versions
select changed_at, version, deleted, origin from replicator_ledger where link = 0 and relation = ?1 and "key" = ?2

-- name: row_beliefs
select changed_at, version, deleted, image from replicator_ledger where link = ?1 and relation = ?2 and "key" = ?3

-- name: row_conflicts
select decided_at, kind, after, policy, verdict, reason, state, resolution, changed_at from replicator_conflict
where link = ?1 and relation = ?2 and "key" = ?3 order by id

-- name: row_waiting
select parked_at, op, columns, after, cause from replicator_parked
where link = ?1 and relation = ?2 and "key" = ?3 order by id

-- name: read_parked
-- The last column: the first parked change of the same row.
select p.relation, p."key", p.op, p.changed_at, p.columns, p.before, p.after, p.attempts, p.sqlstate, p.cause,
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
    decided_at, based, result, current_origin, current_at, clock_error_us, unsure, state, parked)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: overtake_parked
-- A TRUNCATE overtakes the parked changes of its table: applied later, they would bring rows back.
insert into replicator_conflict (link, relation, "key", kind, changed_at, policy, verdict, reason, decided_at)
select link, relation, "key", 'parked', changed_at, 'manual', 'keep',
    'overtaken by a TRUNCATE of the table; was: ' || cause, ?3
from replicator_parked where link = ?1 and relation = ?2

-- name: drop_overtaken
delete from replicator_parked where link = ?1 and relation = ?2

-- name: read_row
-- One row by its key.
select /*: values */ t."__column__" /*:*/ from "__table__" as t where /*: same_key */ t."__key__" = ?1 /*:*/

-- name: read_blocking
-- A row with the same values in a unique index, besides the row of this key.
select /*: values */ t."__column__" /*:*/ from "__table__" as t
where /*: same_unique */ t."__column__" = ?1 /*:*/ and not (/*: same_key */ t."__key__" = ?1 /*:*/) limit 1
