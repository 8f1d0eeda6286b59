-- Backfills as everybody may look at them: of all links that end here. Orders are written and moved by backfill.sql.

-- name: has_orders
select to_regclass('replicator.backfill') is not null and to_regclass('replicator.link') is not null;

-- name: list_orders
-- $1: topology, $2: only the unfinished. Times in microseconds since 1970.
select b.id, l.site, l.direction, b.table_schema, b.table_name, b.state, b.prefer, b.keyed, b.behind, b.estimate, b.rows,
    b.differing, b.chunk_rows, b.rate,
    (extract(epoch from b.requested_at) * 1000000)::bigint,
    coalesce((extract(epoch from b.started_at) * 1000000)::bigint, 0),
    coalesce((extract(epoch from b.finished_at) * 1000000)::bigint, 0),
    b.reason
from replicator.backfill b
join replicator.link l on l.id = b.link
where l.topology = $1 and (b.state in ('waiting', 'running', 'paused') or not $2)
order by b.id;
