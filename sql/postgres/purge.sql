-- Giving an outbox's space back. Called by: engines/postgres/purge.py. Reads: relation, acknowledged, outbox. Writes: outbox.
--
-- Rows that every link has passed are deleted (source.sql, routed.sql: prune), and autovacuum makes their space usable again:
-- measured at 5,000 changes a second that keeps the outbox at 10 to 50 megabytes. While a transaction somewhere holds an old
-- snapshot nothing can be vacuumed and the outbox grows; what it grew to is given back here, in a moment in which every row
-- has been passed, by TRUNCATE, which does not mind old snapshots.

-- name: size
-- Bytes of the outbox with its indexes.
select pg_total_relation_size('replicator.outbox');

-- name: all_passed
-- Whether every row in the outbox, of whatever topology, has been passed by every link that is waited for; false while a
-- topology has not acknowledged at all. A transaction below the bound is one that all of them have seen end.
select exists (select from replicator.acknowledged)
    and not exists (
        select from replicator.relation r
        where r.retired_at is null and not exists (select from replicator.acknowledged a where a.topology = r.topology)
    )
    and not exists (
        select from replicator.outbox o
        where o.xid >= (
            select min(pg_snapshot_xmin(a.position::pg_snapshot)::text::bigint) from replicator.acknowledged a
            where a.expired_at is null
        )::text::xid8
        and exists (
            select from replicator.acknowledged a
            where a.expired_at is null and not pg_visible_in_snapshot(o.xid, a.position::pg_snapshot)
        )
    );

-- name: hurry
-- For the transaction: an application may be waiting for what it does.
select set_config('statement_timeout', '100ms', true);

-- name: lock_outbox
-- Never waits: when a writer, a reader or pg_dump has it, it is not the moment.
lock table replicator.outbox in access exclusive mode nowait;

-- name: truncate_passed
-- Under that lock nobody is inside the outbox. The condition stands in the emptying statement itself.
do $purge$
begin
    if (/*: all_passed */select true/*:*/) then
        truncate replicator.outbox;
    end if;
end
$purge$;

-- name: measure
-- $1: topology. Bytes of the outbox, its newest number, the clock; a time and number of a day ago (else the oldest known, else
-- nothing); and when capture was stopped and resumed, and why. Times in microseconds.
select pg_total_relation_size('replicator.outbox'), (select last_value from replicator.outbox_seq_seq),
    (extract(epoch from clock_timestamp()) * 1000000)::bigint,
    (extract(epoch from s.at) * 1000000)::bigint, s.seq,
    (extract(epoch from p.stopped_at) * 1000000)::bigint, (extract(epoch from p.resumed_at) * 1000000)::bigint, p.reason
from (select) as one
left join (
    select at, seq from replicator.outbox_sample order by at < now() - interval '1 day' desc,
        case when at < now() - interval '1 day' then at end desc, at limit 1
) as s on true
left join replicator.capture_stop as p on p.topology = $1;

-- name: count_changes
-- $1: bytes beyond which the rows are not counted but taken from the table's statistics. And the time of the oldest.
select case when pg_relation_size('replicator.outbox') <= $1::bigint then (select count(*) from replicator.outbox)
        else (select greatest(reltuples, 0)::bigint from pg_class where oid = 'replicator.outbox'::regclass) end,
    coalesce((select changed_at from replicator.outbox order by xid limit 1), 0);

-- name: read_waiting
-- $1: topology, $2: changes at most that are counted. Changes that are not delivered yet: behind the slowest link that reads the
-- outbox; about how many bytes the newest take each (with their place on the page and in the indexes); and when the link that has
-- been silent longest was heard of. A site's marker, which says that the centre has answered, delivers nothing.
with reading as (
    select a.topology, a.position, a.acknowledged_at from replicator.acknowledged a
    where a.expired_at is null and not exists (
        select from replicator.acknowledged b
        where b.link <> a.link and b.link = replace(a.link, '/from_centre', '/to_centre')
    )
)
select (
        select count(*) from (
            select from replicator.outbox o
            where o.xid >= coalesce((select min(pg_snapshot_xmin(position::pg_snapshot)::text::bigint) from reading), 0)::text::xid8
                and (not exists (select from reading)
                    or exists (select from reading where not pg_visible_in_snapshot(o.xid, position::pg_snapshot)))
            limit $2
        ) as behind
    ),
    (select coalesce(avg(pg_column_size(newest.*)) + 40, 0)::bigint
     from (select * from replicator.outbox order by xid desc limit 200) as newest),
    (select (extract(epoch from min(acknowledged_at)) * 1000000)::bigint from reading where topology = $1);

-- name: data_directory
-- Where the server keeps its files; nothing for a role that may not know.
select setting from pg_settings where name = 'data_directory';

-- name: take_sample
insert into replicator.outbox_sample (seq)
select last_value from replicator.outbox_seq_seq
where not exists (select from replicator.outbox_sample where at > now() - interval '1 hour')
on conflict do nothing;

-- name: forget_samples
delete from replicator.outbox_sample where at < now() - interval '8 days';

-- name: capture_functions
-- $1: topology. The functions behind the triggers of its captured tables.
select distinct p.proname from pg_trigger t
join pg_proc p on p.oid = t.tgfoid
join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace
join replicator.relation r on r.table_schema = n.nspname and r.table_name = c.relname
where p.pronamespace = 'replicator'::regnamespace and r.topology = $1 and p.proname = any($2::text[]);

-- name: silence
-- Capture that does nothing: takes no lock on the table, open sessions take it up at their next statement. Install puts the
-- capturing function back.
create or replace function replicator."__function__"() returns trigger
language plpgsql security definer set search_path = pg_catalog
as $stopped$
begin
    return null;
end
$stopped$;

-- name: mark_silent
comment on function replicator."__function__"() is 'replicator stopped';

-- name: reads_the_log
-- $1: topology. Whether its changes come from the log: then there is no trigger to be silenced.
select exists (select from replicator.slot where topology = $1);

-- name: record_stop
-- $1: topology, $2: why.
insert into replicator.capture_stop (topology, reason) values ($1, $2)
on conflict (topology) do update set reason = excluded.reason, stopped_at = now(), resumed_at = null;

-- name: record_gap
-- $1: topology, $2: why. Changes were missed, and capture goes on: all rows are to be looked at.
insert into replicator.capture_stop (topology, reason, resumed_at) values ($1, $2, now())
on conflict (topology) do update set reason = excluded.reason, resumed_at = excluded.resumed_at;

-- name: has_stops
-- Not before the migration that makes the table.
select to_regclass('replicator.capture_stop') is not null;

-- name: read_stop
-- $1: topology.
select (extract(epoch from stopped_at) * 1000000)::bigint, resumed_at is not null, reason
from replicator.capture_stop where topology = $1;

-- name: resume
update replicator.capture_stop set resumed_at = pg_catalog.now() where topology = /*: topology */'x'/*:*/ and resumed_at is null;

-- name: forget_stop
-- $1: topology, $2: when it was resumed, as it was read before the tables were compared. One that was stopped again stays.
delete from replicator.capture_stop where topology = $1 and (extract(epoch from resumed_at) * 1000000)::bigint = $2::bigint;

-- name: expire_slowest
-- $1: topology, $2: seconds a link has to have been silent for. At a centre: the link that holds the outbox back furthest is
-- waited for no more; it has to be read anew.
update replicator.acknowledged set expired_at = now()
where link = (
    select link from replicator.acknowledged
    where topology = $1 and expired_at is null and acknowledged_at < now() - make_interval(secs => $2)
    order by pg_snapshot_xmin(position::pg_snapshot) limit 1
)
returning link;
