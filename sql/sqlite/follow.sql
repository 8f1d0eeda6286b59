-- Applying at a site what comes from the centre, by the marker rule. Run by replicator/engines/sqlite/follow.py and
-- pending.py, on the stage and the net of apply.sql: s = stage, n = net, t = the site's table. A row the site itself has
-- changed beyond the marker is passed over; all others become what the centre says, whatever they are.
-- function: replicator_key/-1
-- function: replicator_checksum/-1

-- name: create_pending
-- Rows with a change of the site's own, and the newest such change. Key '': an order to read all rows. Relation 0: up to
-- where the outbox is in this table.
create temp table if not exists replicator_pending (relation integer, "key" text, seq integer, primary key (relation, "key")) without rowid

-- name: pending_upto
select coalesce(max(seq), 0) from replicator_pending where relation = 0

-- name: note_pending_upto
insert into replicator_pending (relation, "key", seq) values (0, '', ?)
on conflict (relation, "key") do update set seq = excluded.seq

-- name: load_pending
insert into replicator_pending (relation, "key", seq)
select relation, case when op = 'a' then '' else /*: key */ replicator_key(k0) /*:*/ end, seq
from replicator_outbox where seq > ?1 and seq <= ?2 and relation = ?3
on conflict (relation, "key") do update set seq = max(seq, excluded.seq)

-- name: forget_pending
delete from replicator_pending where relation <> 0 and seq <= ?

-- name: empty_pending
delete from replicator_pending

-- name: reads_all_behind
select exists (select 1 from replicator_pending where relation = ?1 and "key" = '' and seq > ?2)

-- name: read_marker
-- How far the centre had processed this site's changes, as far as the site has heard.
select position, expired_at from replicator_acknowledged where link = ?

-- name: first_marker
select epoch || ':0:0' from replicator_identity where only_row = 1

-- name: record_marker
-- The site's outbox keeps all that is behind it. It is no acknowledgement that a nonce belongs to.
insert into replicator_acknowledged (link, topology, position, acknowledged_at)
values (?1, ?2, ?3, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
on conflict (link) do update set position = excluded.position, acknowledged_at = excluded.acknowledged_at

-- name: forget_first_marker
-- The row that install wrote, before the link had a name.
delete from replicator_acknowledged where link = ?1 || '//from_centre'

-- name: stage_followed
-- raw_before: the row's base as the centre spells it.
insert into replicator_stage (/*: columns */ ord, relation, op, changed_at, "key", fault, raw_before, raw_after /*:*/)
values (/*: values */ ?, ?, ?, ?, ?, ?, ?, ? /*:*/)

-- name: load_followed
-- ?4: the relation the site captures the table under, ?5: the marker, ?6: whether all rows are to be read behind it.
insert into replicator_net (ord, relation, "key", changed_at, existed, present, verdict, found, place, /*: places */ k0 /*:*/)
select l.ord, l.relation, l."key", l.changed_at, 0, l.op = 's',
    case
        when exists (select 1 from replicator_pending as p where p.relation = ?4 and p."key" = l."key" and p.seq > ?5) then 'passed'
        when not (/*: found */ t."__key__" is not null /*:*/) then case when l.op = 'g' then 'there' else 'insert' end
        when ?6 then 'passed'
        when l.op = 'g' then 'delete'
        when /*: same_after */ t."__column__" is l.a0 /*:*/ then 'there'
        else 'update'
    end,
    /*: found */ t."__key__" is not null /*:*/, /*: place */ t.rowid /*:*/, /*: values */ l.k0 /*:*/
from (
    select max(ord) as last from replicator_stage
    where relation = ?1 and ord between ?2 and ?3 group by "key"
) as n
cross join replicator_stage as l on l.ord = n.last
left join "__table__" as t on /*: same_key */ t."__key__" = l.k0 /*:*/

-- name: mark_rewritten
-- Rows we wrote that are not as we wrote them: triggers of the application's own have been at them since.
update replicator_net as n set verdict = ?2, found = 1,
    place = (select /*: place */ t.rowid /*:*/ from "__table__" as t where /*: same_key */ t."__key__" = n.k0 /*:*/)
where n.relation = ?1 and n.verdict in (select value from json_each(?3)) and not case
    when n.present then exists (
        select 1 from "__table__" as t where /*: same_key */ t."__key__" = n.k0 /*:*/ and /*: same_after */ t."__column__" is n.a0 /*:*/)
    else not exists (select 1 from "__table__" as t where /*: same_key */ t."__key__" = n.k0 /*:*/)
end

-- name: count_differing
-- Rows of a backfill's chunk, in a stretch, that met another row here.
select count(*) from replicator_net as n cross join replicator_stage as s on s.ord = n.ord
where s.loaded and n.ord between ? and ? and n.verdict in ('update', 'delete')

-- name: rename_verdict
update replicator_net set verdict = ?3 where relation = ?1 and verdict = ?2

-- name: erase_tail
-- The site's triggers note what we write as well: it is not the site's own, and must not go back. The write lock makes
-- the tail ours; other topologies send theirs on.
delete from replicator_outbox where seq > ?1 and relation in (select value from json_each(?2))

-- name: erase_tail_of_rows
-- Where the application has triggers, only what stands as we wrote it: what its triggers did is the site's own change.
delete from replicator_outbox where seq > ?1 and relation = ?2 and /*: key */ replicator_key(k0) /*:*/ in (
    select n."key" from replicator_net as n where n.relation = ?3 and n.verdict in (select value from json_each(?4)))

-- name: write_bases
-- What the site believes each row to be from here on: ?2 names the table, ?3 is the newest outbox row that is not ours.
insert into replicator_base (relation, "key", seq, deleted, checksum, image)
select ?2, n."key", ?3, not n.present,
    case when not n.present then null when instr(s.raw_before, '|') then substr(s.raw_before, 1, instr(s.raw_before, '|') - 1)
        else s.raw_before end,
    case when n.present and instr(s.raw_before, '|') then substr(s.raw_before, instr(s.raw_before, '|') + 1) end
from replicator_net as n cross join replicator_stage as s on s.ord = n.ord
where n.relation = ?1 and n.verdict in (select value from json_each(?4))
    and (n.present or n.verdict <> 'there' or exists (select 1 from replicator_base as b where b.relation = ?2 and b."key" = n."key"))
on conflict (relation, "key") do update set seq = excluded.seq, deleted = excluded.deleted, checksum = excluded.checksum,
    image = excluded.image

-- name: has_parked
select exists (select 1 from replicator_parked where link = ?)

-- name: drop_answered
-- The site has changed a parked row itself: the centre answers that change, with a newer state of the row or by taking it.
delete from replicator_parked where link = ?1 and relation = ?2 and "key" in (
    select p."key" from replicator_pending as p where p.relation = ?3 and p.seq > ?4)

-- name: drop_superseded
-- A newer state of a parked row has come.
delete from replicator_parked where link = ?1 and relation = ?2 and "key" in (
    select s."key" from replicator_stage as s where s.relation = ?3)

-- name: list_parked_keys
select id, "key" from replicator_parked where link = ?1 and relation = ?2

-- name: is_there
select exists (select 1 from "__table__" as t cross join (select /*: values */ ?1 as k0 /*:*/) as n where /*: same_key */ t."__key__" = n.k0 /*:*/)

-- name: staged_later
select exists (select 1 from replicator_stage where relation = ?1 and "key" = ?2 and ord > ?3)

-- name: park_followed
insert into replicator_parked (id, link, relation, "key", op, state, changed_at, columns, after, sqlstate, cause, parked_at,
    attempts, base)
values (?, ?, ?, ?, ?, 'parked', ?, ?, ?, ?, ?, ?, ?, ?)

-- name: read_parked_state
select id, relation, "key", op, changed_at, columns, after, attempts, base from replicator_parked
where link = ?1 and id in (select value from json_each(?2)) order by id desc

-- name: holders
-- Keys of the rows that hold the unique values a staged row wants.
select /*: key */ replicator_key(t."__key__") /*:*/ from replicator_stage as s
cross join "__table__" as t on /*: same_unique */ t."__column__" = s.a0 /*:*/ where s.ord = ?1

-- name: read_parked_row
select id, op, changed_at, columns, after, base from replicator_parked where link = ?1 and relation = ?2 and "key" = ?3

-- name: forget_parked
delete from replicator_parked where link = ?1 and relation = ?2 and "key" = ?3
