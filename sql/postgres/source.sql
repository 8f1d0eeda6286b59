-- Reading the outbox by windows between two snapshots. Called by:
-- engines/postgres/{reading,source,routed,windows,waiting,dispatch}.py.
--
-- A window holds the rows of every transaction visible in the snapshot `upto` and not in the snapshot `after`. Sequence
-- order is not commit order, so "all rows above the last number" would miss transactions that commit late. What became
-- visible is, in transaction ids: everything from after's xmax to upto's xmax except what was in progress then, plus what
-- was in progress at `after` and no longer at `upto`. As ranges that lie between ids in progress this is a handful of
-- index probes, and rows of a transaction that is still open are never looked at, however many there are.

-- name: window_ranges
-- $1: after, $2: upto, as pg_snapshot text. Open ranges (low, high) of transaction ids.
with edge (id) as (
    select pg_snapshot_xmax($1::text::pg_snapshot)::text::bigint - 1
    union
    select x::text::bigint from pg_snapshot_xip($2::text::pg_snapshot) x where x >= pg_snapshot_xmax($1::text::pg_snapshot)
    union
    select pg_snapshot_xmax($2::text::pg_snapshot)::text::bigint
),
gap (low, high) as (
    select id, lead(id) over (order by id) from edge
)
select low, high from gap where high - low > 1
union all
select x::text::bigint - 1, x::text::bigint + 1
from pg_snapshot_xip($1::text::pg_snapshot) x
where pg_visible_in_snapshot(x, $2::text::pg_snapshot)
order by 1;

-- name: horizon
-- $1: after. The present snapshot, whether `after` is of this server's past, and the newest relation number.
select pg_current_snapshot()::text,
    pg_snapshot_xmax($1::text::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()),
    (select coalesce(max(id), 0) from replicator.relation);

-- name: relations
-- $1: topology. Columns under the names they have now, where their table is still the one they were recorded of: one that was
-- renamed is the same column, and one that was dropped has a name (PostgreSQL's own for it) that no other has.
select r.id, r.table_schema, r.table_name, coalesce(present.columns, r.columns),
    array(
        select coalesce(present.columns[array_position(r.columns, k.name)], k.name)
        from unnest(r.key) with ordinality as k (name, place) order by k.place
    ),
    r.fingerprint, r.retired_at is not null,
    -- The names on record as a row captured by name has them, which is in the order of the columns' numbers.
    array(select n.name from unnest(r.columns, r.attnums) with ordinality as n (name, attnum, place) order by n.attnum, n.place)
from replicator.relation as r
left join lateral (
    select array_agg(a.attname::text order by n.place) as columns
    from unnest(r.attnums) with ordinality as n (attnum, place)
    join pg_attribute as a on a.attrelid = r.table_oid and a.attnum = n.attnum
) as present on cardinality(present.columns) = cardinality(r.columns)
where r.topology = $1;

-- name: open_window
-- $1: after, $2: limit, $3: relations. As `horizon`, and the window to read: its upper snapshot, its ranges, whether a row
-- of ours stands in it, and whether one was captured by name because its table had changed. A large backlog is cut at the
-- last recorded snapshot (tick) behind `after` within the limit. Every snapshot is a whole state of the database, so no
-- transaction straddles the cut. Several are looked at because a long transaction may record an old one.
with tick as (
    select seq, snapshot, min(seq) over () as first_seq
    from (
        select seq, snapshot from replicator.tick
        where pg_snapshot_xmax(snapshot) > pg_snapshot_xmax($1::text::pg_snapshot)
        order by seq limit 512
    ) as found
),
cut as (
    select coalesce((
        select snapshot from tick
        where (seq - first_seq <= $2::bigint - 8192 or seq = first_seq)
            and (select last_value from replicator.outbox_seq_seq) - first_seq > $2::bigint - 8192
        order by pg_snapshot_xmax(snapshot) desc, seq desc limit 1
    ), pg_current_snapshot()) as upto
),
edge (id) as (
    select pg_snapshot_xmax($1::text::pg_snapshot)::text::bigint - 1
    union
    select x::text::bigint from cut, pg_snapshot_xip(upto) x where x >= pg_snapshot_xmax($1::text::pg_snapshot)
    union
    select pg_snapshot_xmax(upto)::text::bigint from cut
),
gap (low, high) as materialized (
    select low, high from (select id, lead(id) over (order by id) from edge) as pair (low, high) where high - low > 1
    union all
    select x::text::bigint - 1, x::text::bigint + 1
    from cut, pg_snapshot_xip($1::text::pg_snapshot) x where pg_visible_in_snapshot(x, upto)
)
select pg_current_snapshot()::text, pg_snapshot_xmax($1::text::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()),
    (select coalesce(max(id), 0) from replicator.relation), upto::text,
    array(select low from gap order by low), array(select high from gap order by low),
    exists (
        select from gap cross join lateral (
            select from replicator.outbox o
            where o.xid > gap.low::text::xid8 and o.xid < gap.high::text::xid8 and o.relation = any($3::integer[]) limit 1
        ) one
    ),
    exists (
        select from gap cross join lateral (
            select from replicator.outbox o
            where o.xid > gap.low::text::xid8 and o.xid < gap.high::text::xid8 and -o.relation = any($3::integer[]) limit 1
        ) one
    )
from cut;

-- name: poll
-- $1: after, $2: relations. Whether a row of ours became visible since. The cheapest question there is: an idle source
-- answers it from shared memory, because no transaction id was given out.
with edge (id) as (
    select pg_snapshot_xmax($1::text::pg_snapshot)::text::bigint - 1
    union
    select x::text::bigint from pg_snapshot_xip(pg_current_snapshot()) x where x >= pg_snapshot_xmax($1::text::pg_snapshot)
    union
    select pg_snapshot_xmax(pg_current_snapshot())::text::bigint
),
gap (low, high) as (
    select low, high from (select id, lead(id) over (order by id) from edge) as pair (low, high) where high - low > 1
    union all
    select x::text::bigint - 1, x::text::bigint + 1
    from pg_snapshot_xip($1::text::pg_snapshot) x where pg_visible_in_snapshot(x, pg_current_snapshot())
)
select exists (
    select from gap cross join lateral (
        select from replicator.outbox o
        where o.xid > gap.low::text::xid8 and o.xid < gap.high::text::xid8 and abs(o.relation) = any($2::integer[]) limit 1
    ) one
);

-- name: changed_tables
-- $1, $2: ranges, $3: relations. Relations captured by name in the window, and the column names their images have, in order.
select distinct -o.relation, array(select json_object_keys(coalesce(o.after, o.before)::json))
from unnest($1::bigint[], $2::bigint[]) g (low, high)
join replicator.outbox o on o.xid > g.low::text::xid8 and o.xid < g.high::text::xid8
where -o.relation = any($3::integer[]) and o.op <> 't';

-- name: read_batch
-- The rows of a window as COPY text, in sequence order: per row that is commit order, because the row's lock is held to
-- the commit. beyond: what was committed in the log before this place came straight from there already.
copy (
    select o.seq, o.relation, o.op, o.changed_at, o.before, o.after
    from (values /*: ranges */(1, 2)/*:*/) g (low, high)
    join replicator.outbox o on o.xid > g.low::text::xid8 and o.xid < g.high::text::xid8
    where o.relation in (/*: relations */1/*:*/) and (o.lsn is null or o.lsn >= /*: beyond */'0/0'/*:*/)
    order by o.seq
) to stdout;

-- name: read_changed
-- As read_batch, for windows with rows captured by name: their images are brought into the form of the relation that
-- the table has now. Every value is quoted, which record_in reads as well.
copy (
    with target (old_relation, relation, columns, key) as (
        values /*: targets */(1, 1, array['a'], array['a'])/*:*/
    ),
    found as (
        select o.seq, o.relation, o.op, o.changed_at, o.before, o.after
        from (values /*: ranges */(1, 2)/*:*/) g (low, high)
        join replicator.outbox o on o.xid > g.low::text::xid8 and o.xid < g.high::text::xid8
        where abs(o.relation) in (/*: relations */1/*:*/) and (o.lsn is null or o.lsn >= /*: beyond */'0/0'/*:*/)
    )
    select f.seq, coalesce(t.relation, f.relation),
        case
            when f.op = 'u' and exists (
                select from unnest(t.key) k (name) where f.before::json ->> k.name is distinct from f.after::json ->> k.name
            ) then 'k' else f.op::text
        end,
        f.changed_at, case when t.relation is null then f.before else b.image end,
        case when t.relation is null then f.after else a.image end
    from found f
    left join target t on t.old_relation = -f.relation
    left join lateral (
        select '(' || string_agg(coalesce(
            '"' || replace(replace(f.before::json ->> c.name, '\', '\\'), '"', '""') || '"', ''), ',' order by c.place) || ')'
        from unnest(t.columns) with ordinality c (name, place)
        where f.before is not null
    ) b (image) on true
    left join lateral (
        select '(' || string_agg(coalesce(
            '"' || replace(replace(f.after::json ->> c.name, '\', '\\'), '"', '""') || '"', ''), ',' order by c.place) || ')'
        from unnest(t.columns) with ordinality c (name, place)
        where f.after is not null
    ) a (image) on true
    order by f.seq
) to stdout;

-- name: read_images
-- $1, $2: ranges, $3: relations, $4: as `beyond` in read_batch. Images of a window, with their relation (negative: captured by
-- name) and kind.
select o.relation, o.op, o.before, o.after
from unnest($1::bigint[], $2::bigint[]) g (low, high)
join replicator.outbox o on o.xid > g.low::text::xid8 and o.xid < g.high::text::xid8
where abs(o.relation) = any($3::integer[]) and (o.lsn is null or o.lsn >= $4::text::pg_lsn);

-- name: read_lag
-- $1, $2: ranges, $3: relations, $4: as `beyond` in read_batch. Changes in a window and the time of the oldest.
select count(*), coalesce(min(o.changed_at), 0)
from unnest($1::bigint[], $2::bigint[]) g (low, high)
join replicator.outbox o on o.xid > g.low::text::xid8 and o.xid < g.high::text::xid8
where abs(o.relation) = any($3::integer[]) and (o.lsn is null or o.lsn >= $4::text::pg_lsn);

-- name: horizon_holder
-- The oldest transaction that has written: what it captured is not readable yet, and no outbox row that became visible
-- after it began can be vacuumed.
select holder, who, seconds from (
    select 'pid ' || pid as holder, coalesce(usename, '?') as who,
        extract(epoch from clock_timestamp() - xact_start)::bigint as seconds
    from pg_stat_activity
    where datname = current_database() and backend_xid is not null and pid <> pg_backend_pid()
        and application_name not like 'replicator %'
    union all
    select 'prepared transaction ' || gid, owner, extract(epoch from clock_timestamp() - prepared)::bigint
    from pg_prepared_xacts where database = current_database()
) as open_transactions
where seconds >= 5
order by seconds desc limit 1;

-- name: newest_schema_change
-- The number of the newest change of a captured table that was noted; 0 where none ever was, or nothing notes them.
select coalesce(max(last_value), 0) from pg_sequences where schemaname = 'replicator' and sequencename = 'schema_change_id_seq';

-- name: read_clock
select (extract(epoch from clock_timestamp()) * 1000000)::bigint;

-- name: read_identity
-- The cluster, the database in it, and what install wrote into it: another database, a dump restored elsewhere and a
-- database made anew all differ. A backup of the same cluster is told by its transaction ids (see `horizon`).
select concat_ws('/', (select system_identifier from pg_control_system()),
    (select oid from pg_database where datname = current_database()), database_id, epoch)
from replicator.identity;

-- name: acknowledge
-- $1: link, $2: topology, $3: position. Never goes back.
insert into replicator.acknowledged (link, topology, position) values ($1, $2, $3)
on conflict (link) do update set position = excluded.position, acknowledged_at = now()
where pg_snapshot_xmax(excluded.position::pg_snapshot) >= pg_snapshot_xmax(acknowledged.position::pg_snapshot);

-- name: read_standing
-- $1: link. What was acknowledged last, when, and whether pruning no longer waits for the link. Nothing of a link from the
-- centre that has read nothing yet (it has no shares), though rows wait for it.
select position, (extract(epoch from acknowledged_at) * 1000000)::bigint, expired_at is not null
from replicator.acknowledged where link = $1 and (shares is not null or right(link, 12) <> '/from_centre');

-- name: expect_marker
-- $1: link from the centre, $2: topology, $3: the snapshot nothing is visible in. The link takes over from there.
insert into replicator.acknowledged (link, topology, position) values ($1, $2, $3) on conflict (link) do nothing;

-- name: forget_marker
-- $1: link from the centre, which has no table any more.
delete from replicator.acknowledged where link = $1;

-- name: slowest
-- $1: topology. How far the slowest link has got that is still waited for.
select position from replicator.acknowledged
where topology = $1 and expired_at is null
order by pg_snapshot_xmax(position::pg_snapshot) limit 1;

-- name: prune
-- $1, $2: ranges behind the acknowledged position, $3: topology, $4: rows at most. The condition on `acknowledged` stands
-- in the deleting statement itself: whatever the ranges say, no row goes that a link of the topology has not passed.
delete from replicator.outbox o
where o.ctid = any(array(
    select p.ctid
    from unnest($1::bigint[], $2::bigint[]) g (low, high)
    join replicator.outbox p on p.xid > g.low::text::xid8 and p.xid < g.high::text::xid8
    where abs(p.relation) in (select id from replicator.relation where topology = $3)
    limit $4
))
and exists (select from replicator.acknowledged a where a.topology = $3)
and not exists (
    select from replicator.acknowledged a
    where a.topology = $3 and a.expired_at is null and not pg_visible_in_snapshot(o.xid, a.position::pg_snapshot)
);

-- name: prune_ticks
-- Ticks every link of every topology has passed.
delete from replicator.tick t
where pg_snapshot_xmax(t.snapshot) <= all(
    select pg_snapshot_xmax(a.position::pg_snapshot) from replicator.acknowledged a where a.expired_at is null
) and exists (select from replicator.acknowledged);

-- name: begin_reading
begin isolation level repeatable read read only;

-- name: plan_by_index
-- The outbox grows and shrinks faster than its statistics: its index is always the way. For the session.
select set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false);

-- name: fall_asleep
-- $1: lock number. Fails while a transaction that has captured is open: such a one would not notify.
select pg_try_advisory_lock($1);

-- name: wake_up
select pg_advisory_unlock($1);

-- name: listen
listen "__channel__";

-- name: call
-- $1: channel, $2: whom it concerns. Heard when this transaction commits.
select pg_notify($1, $2);

-- name: may_notify
-- Whether writers notify: the same condition as in the capture functions.
select current_setting('max_prepared_transactions') = '0' or coalesce(current_setting('replicator.notify', true), '') = 'on';

-- name: commit_lazily
-- What this session writes (acknowledgements, pruning) may be lost in a crash without harm. For the session.
select set_config('synchronous_commit', 'off', false);
