-- What the outbox knows of one row. Called by: engines/sqlite/events.py. Reads: replicator_relation, replicator_outbox.

-- name: list_versions
-- ?1: topology, ?2: table. The captured versions of a table.
select id, "key" from replicator_relation where topology = ?1 and lower(table_name) = lower(?2) order by id

-- name: read_outbox
-- One row's changes in order; ?1: relation, then its key as text.
select seq, op, changed_at, coalesce(origin, ''), coalesce(route, '') from replicator_outbox
where relation = ?1 and /*: same */ cast(k0 as text) = ?2 /*:*/ order by seq

-- name: read_change
-- ?1: number. One captured change.
select r.table_name, r."key", o.* from replicator_outbox as o join replicator_relation as r on r.id = o.relation where o.seq = ?1
