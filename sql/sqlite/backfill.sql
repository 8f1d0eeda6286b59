-- Backfills at a SQLite target: orders, and how far each has got. Everybody's look at them is in orders.sql. Run by
-- replicator/engines/sqlite/backfills.py. Times are microseconds since 1970.

-- name: list_due
-- The link's backfills whose turn it might be, oldest first: the oldest may be of a table that cannot be loaded now.
select id, table_schema, table_name, prefer, keyed, behind, chunk_rows
from replicator_backfill where link = ? and state in ('waiting', 'running') order by id

-- name: read_seen
-- How far the site is known to have applied what it gets from here, by the link to it.
select cast(substr(position, instr(position, ':') + 1) as integer) from replicator_acknowledged where link = ?

-- name: read_keys
-- Keys behind a place, in order.
select place, "key" from replicator_backfill_key where backfill = ? and place > ? order by place limit ?

-- name: find_ordered
select id from replicator_backfill
where link = ? and table_schema = ? and table_name = ? and state in ('waiting', 'running', 'paused') and not keyed

-- name: order_backfill
insert into replicator_backfill
    (link, table_schema, table_name, prefer, keyed, chunk_rows, rate, estimate, reason, state, requested_at)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: create_ordered_keys
-- Keys are gathered here, so that the file is not locked while whoever orders is still finding them.
create temp table if not exists replicator_ordered_key (place integer primary key, "key" text)

-- name: empty_ordered_keys
delete from replicator_ordered_key

-- name: gather_key
insert into replicator_ordered_key ("key") values (?)

-- name: copy_keys
insert into replicator_backfill_key (backfill, place, "key") select ?, place, "key" from replicator_ordered_key

-- name: count_keys
update replicator_backfill set estimate = (select count(*) from replicator_ordered_key) where id = ?

-- name: steer_backfill
-- ?1: backfill, ?2: link, ?3: state, ?4: now.
update replicator_backfill set state = ?3, finished_at = case when ?3 = 'cancelled' then ?4 end
where id = ?1 and link = ?2 and state in ('waiting', 'running', 'paused')

-- name: forget_keys
delete from replicator_backfill_key where backfill = ?

-- name: hold
-- Whether a backfill is still to be moved from where its chunk begins. Under the write lock nobody changes that any more.
select state from replicator_backfill where id = ? and link = ? and behind is ? and state in ('waiting', 'running')

-- name: record_chunk
-- ?1: backfill, ?2: link, ?3: behind, ?4: upto, ?5: rows, ?6: differing, ?7: whether the source has none behind it (of a keyed
-- one the keys say that), ?8: now. Whether it is done.
update replicator_backfill as b set behind = coalesce(?4, behind), rows = rows + ?5, differing = differing + ?6,
    state = case when e.is_over then 'done' else 'running' end, started_at = coalesce(started_at, ?8),
    finished_at = case when e.is_over then ?8 end
from (
    select case when o.keyed then not exists (
        select 1 from replicator_backfill_key as k where k.backfill = o.id and k.place > cast(coalesce(?4, '0') as integer)
    ) else ?7 end as is_over from replicator_backfill as o where o.id = ?1
) as e
where b.id = ?1 and b.link = ?2 and b.behind is ?3 and b.state in ('waiting', 'running')
returning state = 'done'

-- name: loading_tables
-- Tables of which a row that is missing may not have been brought yet.
select distinct table_schema, table_name from replicator_backfill where link = ? and state in ('waiting', 'running', 'paused')
