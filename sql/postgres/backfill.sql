-- Backfills at a PostgreSQL target: orders, and how far each has got. Everybody's look at them is in orders.sql. Called by:
-- engines/postgres/backfills.py.

-- name: has_backfills
select to_regclass('replicator.backfill') is not null;

-- name: read_position
-- $1: topology, $2: site, $3: direction. The link's position and the backfill whose turn it is, in one look for every batch.
select l.position, b.id, b.table_schema, b.table_name, b.prefer, b.keyed, b.behind, b.chunk_rows
from replicator.link l
left join lateral (
    select * from replicator.backfill w where w.link = l.id and w.state in ('waiting', 'running') order by w.id limit 1
) b on true
where l.topology = $1 and l.site = $2 and l.direction = $3;

-- name: list_due
-- $1: link. All whose turn it might be: the oldest may be of a table that cannot be loaded now.
select id, table_schema, table_name, prefer, keyed, behind, chunk_rows
from replicator.backfill where link = $1 and state in ('waiting', 'running') order by id;

-- name: read_seen
-- $1: the link to the site. How far the site is known to have applied what it gets from here.
select position from replicator.acknowledged where link = $1;

-- name: read_keys
-- $1: backfill, $2: behind this place, $3: rows at most.
select place, key from replicator.backfill_key where backfill = $1 and place > $2 order by place limit $3;

-- name: order_backfill
-- $1: link, $2, $3: table, $4: prefer, $5: keyed, $6: rows of a chunk, $7: rate, $8: estimate, $9: reason, $10: state.
-- Nothing when the whole table is ordered already.
insert into replicator.backfill (link, table_schema, table_name, prefer, keyed, chunk_rows, rate, estimate, reason, state)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict (link, table_schema, table_name) where state in ('waiting', 'running', 'paused') and not keyed do nothing
returning id;

-- name: find_ordered
-- $1: link, $2, $3: table.
select id from replicator.backfill
where link = $1 and table_schema = $2 and table_name = $3 and state in ('waiting', 'running', 'paused') and not keyed;

-- name: copy_keys
copy replicator.backfill_key (backfill, place, key) from stdin;

-- name: count_keys
-- $1: backfill, $2: keys.
update replicator.backfill set estimate = $2 where id = $1;

-- name: steer_backfill
-- $1: backfill, $2: link, $3: state.
update replicator.backfill
set state = $3, finished_at = case when $3 = 'cancelled' then clock_timestamp() end
where id = $1 and link = $2 and state in ('waiting', 'running', 'paused');

-- name: forget_keys
-- $1: backfill.
delete from replicator.backfill_key where backfill = $1;

-- name: hold
-- $1: backfill, $2: link, $3: behind. Till the end of the transaction nobody pauses, cancels or moves it.
select state from replicator.backfill
where id = $1 and link = $2 and behind is not distinct from $3 and state in ('waiting', 'running')
for update;

-- name: record_chunk
-- $1: backfill, $2: link, $3: behind, $4: upto, $5: rows, $6: differing, $7: whether the source has none behind it. Of a keyed
-- one the keys say that. Whether it is done.
update replicator.backfill b
set behind = coalesce($4, b.behind), rows = b.rows + $5, differing = b.differing + $6,
    state = case when over then 'done' else 'running' end, started_at = coalesce(b.started_at, now()),
    finished_at = case when over then clock_timestamp() end
from (
    select case when keyed then not exists (
        select from replicator.backfill_key k where k.backfill = o.id and k.place > (case when o.keyed then coalesce($4::text, '0') else '0' end)::bigint
    ) else $7::boolean end
    from replicator.backfill o where o.id = $1
) as e (over)
where b.id = $1 and b.link = $2 and b.behind is not distinct from $3 and b.state in ('waiting', 'running')
returning over;

-- name: loading_tables
-- $1: link. Tables of which a row that is missing may not have been brought yet.
select distinct table_schema, table_name from replicator.backfill
where link = $1 and state in ('waiting', 'running', 'paused');
