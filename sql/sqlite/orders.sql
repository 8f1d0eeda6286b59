-- Backfills as everybody may look at them: of all links that end here. Orders are written and moved by backfill.sql.

-- name: has_orders
select count(*) = 2 from sqlite_master where type = 'table' and name in ('replicator_backfill', 'replicator_link')

-- name: list_orders
-- First: topology, second: only the unfinished. Times in microseconds since 1970.
select b.id, l.site, l.direction, b.table_schema, b.table_name, b.state, b.prefer, b.keyed, b.behind, b.estimate, b.rows,
    b.differing, b.chunk_rows, b.rate, b.requested_at, coalesce(b.started_at, 0), coalesce(b.finished_at, 0), b.reason
from replicator_backfill as b
join replicator_link as l on l.id = b.link
where l.topology = ? and (b.state in ('waiting', 'running', 'paused') or not ?)
order by b.id
