-- Who wrote each row of a centre last (the ledger's rows of link 0), and what apply leaves in the centre's own outbox. All
-- run under the file's write lock. Key texts are JSON arrays over the whole key, in the order of the captured relation.
-- function: replicator_row_key/-1

-- name: central_relations
-- What is captured at this centre.
select id, table_name, "key", versioned from replicator_relation where topology = ? and retired_at is null

-- name: dividing_triggers
-- The triggers of tables whose rows are divided among the sites.
select name from sqlite_master where type = 'trigger' and name like 'replicator\_%\_ar' escape '\'

-- name: versioned_upto
select coalesce(versioned_upto, 0), (select max(seq) from replicator_outbox) from replicator_control where only_row = 1

-- name: touched_relations
-- Relations with versions that an application here wrote to.
select distinct o.relation from replicator_outbox as o join replicator_relation as r on r.id = o.relation
where o.seq > ? and r.versioned and r.retired_at is null

-- name: fold_local
-- Writes of applications here: the outbox says when, the table whether the row is there. A row noted only for what became of
-- another (origin '') was written here only if it is gone.
insert into replicator_ledger (link, relation, "key", changed_at, checksum, deleted, origin)
select 0, ?3, replicator_row_key(/*: noted */ c.replicator_k0 /*:*/), c.replicator_changed_at, zeroblob(0),
    not (/*: found */ t."__key__" is not null /*:*/), null
from (
    select max(case when origin is null then changed_at end) as replicator_written_at,
        coalesce(max(changed_at), 0) as replicator_changed_at, /*: places */ k0 as replicator_k0 /*:*/
    from replicator_outbox where seq > ?1 and relation = ?2 and op in ('i', 'u', 'd') and coalesce(origin, '') = ''
    group by /*: distinct */ k0 /*:*/
) as c left join "__table__" as t on /*: same_key */ t."__key__" = c.replicator_k0 /*:*/
where c.replicator_written_at is not null or not (/*: found */ t."__key__" is not null /*:*/)
on conflict (link, relation, "key") do update set version = version + 1, changed_at = excluded.changed_at,
    deleted = excluded.deleted, origin = excluded.origin

-- name: write_versions
-- When a row of a backfill was written nobody knows (0): not before what is known.
insert into replicator_ledger (link, relation, "key", changed_at, checksum, deleted, origin)
select 0, ?1, /*: version_key */ n."key" /*:*/, n.changed_at, zeroblob(0), not n.present, ?4
from replicator_net as n
where n.relation = ?2 and n.verdict in (select value from json_each(?3))
on conflict (link, relation, "key") do update set version = version + 1,
    changed_at = case when excluded.changed_at <> 0 then excluded.changed_at else changed_at end,
    deleted = excluded.deleted, origin = excluded.origin

-- name: set_versioned_upto
update replicator_control set versioned_upto = (select max(seq) from replicator_outbox) where only_row = 1

-- name: tag_own_tail
-- What capture noted while we applied was written by this link's site. Rows noted for nobody stay as they are.
update replicator_outbox set origin = ? where seq > ? and origin is null

-- name: return_strays
-- Rows that the site wrote, and rows that follow them (origin ''), that are not its own (by the routes ?2 it is known to read):
-- it is to look at them.
insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/, origin, route)
select relation, 'u', /*: hybrid_time */ 0 /*:*/, /*: places */ k0 /*:*/, '', ?3
from replicator_outbox where seq > ?1 and coalesce(origin, '') = '' and substr(route, 1, 1) = '='
    and route not in (select value from json_each(?2))

-- name: read_routes
select coalesce((select routes from replicator_acknowledged where link = ?), '[]')

-- name: mark_in_flight
-- Rows of a backfill that stand against what somebody else wrote here, or a correction, behind what the site is known to have
-- applied before the chunk was read: it has not seen that. ?1: relation; ?2: the captured relation; ?3: how far the site had
-- come; ?4: where the outbox ended when we began; ?5: origin of the site's changes; ?6: route to it alone.
update replicator_net as n set unseen = 1
where n.relation = ?1 and n.loaded and n.verdict in ('insert_exists', 'delete_differs', 'update_missing')
    and (/*: version_key */ n."key" /*:*/ in (
            select replicator_row_key(/*: places */ k0 /*:*/) from replicator_outbox
            where seq > ?3 and seq <= ?4 and relation = ?2 and op in ('i', 'u', 'd') and origin is not ?5
                and (substr(route, 1, 1) <> '@' or route = ?6))
        or exists (select 1 from replicator_outbox where seq > ?3 and seq <= ?4 and relation = ?2 and op = 'a'))

-- name: correct
-- The row, to one site alone: its change was not taken as it was. Of a backfill all that was decided: nothing the site wrote
-- keeps back what is on its way there.
insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/, origin, route)
select ?1, 'u', /*: hybrid_time */ 0 /*:*/, /*: key */ n.k0 /*:*/, '', ?2
from replicator_net as n
where n.relation = ?3 and (n.corrected or n.loaded and n.verdict in ('won_delete', 'won_update', 'won_insert', 'won_vacated'))

-- name: correct_there
-- A change that was there already moved nothing here, so nothing else tells the site whether the row is still its own, or,
-- where rows are divided (?4), ever was; nor of a row that came and went at the site, which has passed over what came for it.
insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/, origin, route)
select ?1, 'u', /*: hybrid_time */ 0 /*:*/, /*: key */ n.k0 /*:*/, '', ?2
from replicator_net as n where n.relation = ?3 and (n.verdict = 'there' and n.present and (n.existed or ?4) or n.verdict = 'nothing')

-- name: correct_row
insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/, origin, route)
values (?1, 'u', /*: hybrid_time */ 0 /*:*/, /*: values */ ?3 /*:*/, '', ?2)

-- name: keep_for
-- From its first change on, what the site is to be told waits for it.
insert into replicator_acknowledged (link, topology, position, acknowledged_at)
select ?1, ?2, epoch || ':0:0', strftime('%Y-%m-%dT%H:%M:%fZ', 'now') from replicator_identity where only_row = 1
on conflict (link) do nothing

-- name: mark
-- A marker: up to this place the centre has processed the site's changes.
insert into replicator_outbox (relation, op, changed_at, k0, origin, route)
values (0, 'm', /*: hybrid_time */ 0 /*:*/, ?1, '', ?2)

-- name: believe
-- What a site believes a row to be, where no batch says it: a change dropped for good, or set aside with its base.
insert into replicator_ledger (link, relation, "key", changed_at, checksum, deleted, image) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)
on conflict (link, relation, "key") do update set version = version + 1, changed_at = excluded.changed_at,
    checksum = excluded.checksum, deleted = excluded.deleted, image = excluded.image

-- name: list_skews
select site, skew_us from replicator_link where topology = ? and direction = 'to_centre'
