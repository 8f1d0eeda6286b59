-- What the outbox knows of one row. Called by: engines/postgres/events.py. Reads: relation, outbox.

-- name: list_versions
-- $1: topology, $2: schema, $3: table. The captured versions of a table.
select id, columns, key from replicator.relation where topology = $1 and table_schema = $2 and table_name = $3 order by id;

-- name: read_outbox
-- $1: relations. Their changes in order; a centre's have a key instead of images.
select seq, relation, op::text, changed_at, coalesce(origin, ''), before, after, key, coalesce(route, '')
from replicator.outbox where relation = any($1::integer[]) order by seq;

-- name: read_change
-- $1: number, $2: position (null: the beginning). One captured change, and whether it lies before the position.
select r.table_schema, r.table_name, r.columns, r.key, o.op::text, o.changed_at, coalesce(o.origin, ''), o.before, o.after, o.key,
    coalesce(pg_visible_in_snapshot(o.xid, $2::text::pg_snapshot), false)
from replicator.outbox o join replicator.relation r on r.id = o.relation where o.seq = $1::bigint;
