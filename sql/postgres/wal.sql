-- Filling the outbox from a replication slot, and what install makes for it. Called by: engines/postgres/wal/*.py.

-- name: slot
-- $1: topology. The slot on record, how far the outbox is filled, and the slot as the server shows it.
select s.name, s.publication, s.lsn::text, s.seen, r.slot_name is not null, coalesce(r.active_pid, 0),
    coalesce(r.confirmed_flush_lsn::text, ''), coalesce(to_jsonb(r) ->> 'wal_status', ''),
    coalesce(r.database = current_database() and r.plugin = 'pgoutput', false),
    -- An installation from before has no such column.
    coalesce((to_jsonb(s) ->> 'gap')::boolean, false)
from replicator.slot s left join pg_replication_slots r on r.slot_name = s.name
where s.topology = $1;

-- name: captured
-- $1: topology. Relations that are captured from the log or will be, with what stopped left out.
select w.relation, w.table_oid::bigint, r.table_schema, r.table_name, r.columns, r.key, w.types, w.filter, w.filter_columns,
    w.filter_types, w.truncates, w.state, coalesce(r.attnums, '{}')
from replicator.wal_relation w join replicator.relation r on r.id = w.relation
where w.topology = $1 and w.state <> 'stopped'
order by 1;

-- name: unpublished
-- $1: topology, $2: publication. Tables that are captured from the log and of which it does not publish all changes of all rows.
select n.nspname || '.' || c.relname
from replicator.wal_relation w join pg_class c on c.oid = w.table_oid join pg_namespace n on n.oid = c.relnamespace
where w.topology = $1 and w.state <> 'stopped' and not exists (
    select from pg_publication p join pg_publication_rel m on m.prpubid = p.oid
    where p.pubname = $2 and m.prrelid = w.table_oid and p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate and p.pubviaroot
        and to_jsonb(m) ->> 'prqual' is null and to_jsonb(m) ->> 'prattrs' is null
)
order by 1;

-- name: type_names
-- $1: types. As the catalogue spells them, without modifiers.
select format_type(t.oid, null) from unnest($1::bigint[]) with ordinality as t (oid, place) order by t.place;

-- name: column_numbers
-- $1: table. The log has no numbers of columns: those they have by now.
select attname, attnum from pg_attribute where attrelid = $1::bigint::oid and attnum > 0 and not attisdropped;

-- name: flushed
select pg_current_wal_flush_lsn()::text;

-- name: begin_filling
begin isolation level read committed;

-- name: end_filling
commit;

-- name: fill
copy replicator.outbox (relation, op, changed_at, origin, lsn, before, after) from stdin (format binary);

-- name: create_stage
create temp table if not exists replicator_stage (
    place bigint generated always as identity, relation integer, op "char", changed_at bigint, origin text, lsn pg_lsn,
    before text, after text, old_values text[], new_values text[]
) on commit delete rows;

-- name: fill_stage
copy pg_temp.replicator_stage (relation, op, changed_at, origin, lsn, before, after, old_values, new_values) from stdin (format binary);

-- name: fill_filtered
-- Row filters, as capture by triggers has them: a row that comes into the filter is an insert, one that leaves it a delete.
insert into replicator.outbox (relation, op, changed_at, origin, lsn, before, after)
select s.relation, case when s.op in ('u', 'k') and not s.old_inside then 'i' when s.op in ('u', 'k') and not s.new_inside then 'd' when s.op = 'e' then 'i' else s.op end,
    s.changed_at, s.origin, s.lsn, case when s.old_inside then s.before end, case when s.new_inside then s.after end
from (
    -- Op e: an insert that install has read from the table, where it asked the filter.
    select s.*, /*: old_inside */true/*:*/ as old_inside, s.op = 'e' or /*: new_inside */true/*:*/ as new_inside
    from pg_temp.replicator_stage as s
) as s
where case s.op
    when 'i' then s.new_inside when 'd' then s.old_inside when 't' then true when 'e' then true
    else s.old_inside <> s.new_inside or s.new_inside and s.before <> s.after
end
order by s.place;

-- name: advance
-- $1: topology, $2: the place on record until now, $3: the new one, $4: the highest time seen. No row: somebody else fills.
update replicator.slot set lsn = $3::text::pg_lsn, seen = $4, filled_at = now() where topology = $1 and lsn = $2::text::pg_lsn;

-- name: testify
-- $1: link, $2: stamp. The batch from the log that the target had last when the place on record moved.
with old as (delete from replicator.history where link = $1 and nonce like 'log/%' and nonce <> $2)
insert into replicator.history (nonce, link, position) values ($2, $1, pg_current_snapshot()::text) on conflict do nothing;

-- name: has_delivered
-- $1: link, $2: stamp, $3: where that batch's last transaction was committed, $4: when, $5: where it ended, $6: topology.
-- Whether the batch may yet be found in the log, or is known here, or came into the outbox.
select exists (
        select from replicator.slot s join pg_replication_slots r on r.slot_name = s.name and r.database = current_database()
        where s.topology = $6 and s.lsn < $5::text::pg_lsn and coalesce(r.wal_status, '') <> 'lost'
    )
    or exists (select from replicator.history where link = $1 and nonce = $2)
    or exists (select from replicator.outbox where lsn = $3::text::pg_lsn and changed_at >= $4::bigint);

-- name: tick
insert into replicator.tick (seq, snapshot) values (currval('replicator.outbox_seq_seq'::regclass), pg_current_snapshot());

-- name: forget_notes
-- $1: numbers of notes that were read.
delete from replicator.note where id = any($1::bigint[]);

-- name: set_state
-- $1: relation, $2: state.
update replicator.wal_relation set state = $2 where relation = $1;

-- name: commit_safely
-- The slot forgets what the outbox has: the outbox must not lose it in a crash, whatever the role's defaults are. For the session.
select set_config('synchronous_commit', 'on', false);

-- name: call
-- A message nobody takes: the transaction alone wakes who waits for the log.
select replicator.tell('replicator.call', '')::text;

-- name: mark
-- A place in the log; the outbox has everything committed before it when the slot's place on record lies behind it.
select replicator.tell('replicator.mark', '')::text;

-- name: has_reached
-- $1: topology, $2: a place in the log.
select exists (select from replicator.slot where topology = $1 and lsn >= $2::text::pg_lsn);

-- name: has_slot
-- $1: topology.
select exists (select from replicator.slot where topology = $1);

-- name: outside_log
-- $1: topology. Whether a table is captured by triggers.
select exists (
    select from replicator.relation r left join replicator.wal_relation w on w.relation = r.id
    where r.topology = $1 and r.retired_at is null and coalesce(w.state, 'stopped') = 'stopped'
);

-- name: backlog
-- $1: topology, $2: what was committed before this place is at the target. Bytes of log that are not yet in the outbox, and the
-- slot's name.
select pg_wal_lsn_diff(pg_current_wal_lsn(), greatest(s.lsn, $2::text::pg_lsn))::bigint, s.name from replicator.slot s where s.topology = $1;

-- name: filter_test
select case when s.relation = /*: number */1/*:*/ then (select (/*: filter */r."a"/*:*/) is true from (select /*: fields */true as "a"/*:*/) as r) else /*: otherwise */true/*:*/ end

-- name: filter_field
select (/*: values */array['a']/*:*/)[/*: place */1/*:*/]::/*: type */text/*:*/ as "__column__"

-- name: others
-- $1: topology. Whether another one captures from the log here.
select exists (select from replicator.slot where topology <> $1);

-- name: topologies
select topology from replicator.slot

-- name: oids
-- $1: schemas, $2: tables.
select c.oid::bigint from unnest($1::text[], $2::text[]) as w (schema, name)
join pg_namespace n on n.nspname = w.schema join pg_class c on c.relnamespace = n.oid and c.relname = w.name;

-- name: slots
-- The slots on record: whether they are still there and whole, their state, the bytes of log they keep, how many more may be
-- written before the slot is lost (NULL: no limit), and the limit.
select s.topology, s.name, r.slot_name is not null and coalesce(r.wal_status, '') <> 'lost', coalesce(r.wal_status, ''),
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), r.restart_lsn), 0)::bigint, r.safe_wal_size, (
        select setting::bigint << 20 from pg_settings where name = 'max_slot_wal_keep_size'
    ),
    -- Seconds for which the place on record has not moved, and the log written since.
    extract(epoch from clock_timestamp() - coalesce(s.filled_at, s.created_at))::float8, pg_wal_lsn_diff(pg_current_wal_lsn(), s.lsn)::bigint
from replicator.slot s left join pg_replication_slots r on r.slot_name = s.name;

-- name: fix_wal_level
alter system set wal_level = 'logical';

-- name: fix_keep_size
alter system set max_slot_wal_keep_size = '10GB';

-- name: fix_replication
alter role "__role__" replication;

-- name: fix_full
alter table "__schema__"."__table__" replica identity full;

-- name: facts
-- $1: name of slot and publication. The database, whether our tables for it exist, whether a publication or a slot of that
-- name exists; wal_level, whether the role may replicate, slots and senders in use and allowed, the log kept for slots (MB).
select current_database()::text, to_regclass('replicator.slot') is not null,
    exists (select from pg_publication where pubname = $1), exists (select from pg_replication_slots where slot_name = $1),
    current_setting('wal_level'), (select rolreplication or rolsuper from pg_roles where rolname = current_user),
    (select count(*) from pg_replication_slots), current_setting('max_replication_slots')::integer,
    (select count(*) from pg_stat_get_wal_senders()), current_setting('max_wal_senders')::integer,
    (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size'),
    current_setting('server_version_num')::integer, has_database_privilege(current_database(), 'create'), current_user::text;

-- name: current_database
select current_database()::text;

-- name: has_tables
select to_regclass('replicator.slot') is not null;

-- name: published
-- $1: publication.
select schemaname, tablename from pg_publication_tables where pubname = $1;

-- name: identities
-- $1: table oids. Those tables and their partitions whose old rows the log does not have in full.
select distinct c.oid::bigint, n.nspname, c.relname, c.relreplident::text,
    coalesce((select x.relname from pg_index i join pg_class x on x.oid = i.indexrelid where i.indrelid = c.oid and i.indisreplident), ''),
    pg_has_role(c.relowner, 'usage')
from unnest($1::bigint[]) as w (oid)
cross join lateral (select w.oid::oid as oid union select p.relid::oid from pg_partition_tree(w.oid::oid::regclass) as p) as t
join pg_class c on c.oid = t.oid
join pg_namespace n on n.oid = c.relnamespace
where c.relreplident <> 'f' and c.relkind in ('r', 'p')
order by 2, 3;

-- name: changed_identities
-- Tables that install gave the full identity, with what they had before.
select c.oid::bigint, n.nspname, c.relname, i.identity::text, i.index_name
from replicator.replica_identity i join pg_class c on c.oid = i.table_oid join pg_namespace n on n.oid = c.relnamespace
order by 2, 3;

-- name: wal_relations
-- $1: topology.
select relation, table_oid::bigint, types, filter, filter_columns, filter_types, truncates, state
from replicator.wal_relation where topology = $1;

-- name: set_full
-- The log then has old rows in full: conflicts are found by them. It costs log (the old row with every update and delete).
begin;
set local lock_timeout = '2s';
insert into replicator.replica_identity (table_oid, identity, index_name)
values (/*: oid */1/*:*/, /*: identity */'d'/*:*/, /*: index */''/*:*/) on conflict (table_oid) do nothing;
alter table "__schema__"."__table__" replica identity full;
commit;

-- name: restore_identity
begin;
set local lock_timeout = '2s';
alter table "__schema__"."__table__" replica identity /*: identity */default/*:*/;
delete from replicator.replica_identity where table_oid = /*: oid */1/*:*/;
commit;

-- name: publish
create publication "__publication__" for table replicator.clock, replicator.note/*: tables *//*:*/
    with (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);

-- name: publish_more
alter publication "__publication__" add table /*: tables */replicator.clock/*:*/;

-- name: drop_publication
drop publication if exists "__publication__";

-- name: create_slot
-- It waits for the transactions that are open now, and holds nobody up. Everything committed later will be in the outbox.
-- A statement of its own: one that has a table open while the slot is made may fail (PostgreSQL loses track of the table).
begin;
set local lock_timeout = '60s';
select slot_name from pg_catalog.pg_create_logical_replication_slot(/*: slot */'x'/*:*/, 'pgoutput');
delete from replicator.wal_relation where topology = /*: topology */'x'/*:*/;
insert into replicator.slot (topology, name, publication, lsn, gap)
select /*: topology */'x'/*:*/, s.slot_name, /*: publication */'x'/*:*/, s.confirmed_flush_lsn, /*: gap */false/*:*/
from pg_catalog.pg_replication_slots as s where s.slot_name = /*: slot */'x'/*:*/;
update replicator.slot set seen = (select c.seen from replicator.clock as c) where topology = /*: topology */'x'/*:*/;
commit;

-- name: close_gap
-- $1: topology.
update replicator.slot set gap = false where topology = $1;

-- name: has_gap
-- $1: topology.
select exists (select from replicator.slot where topology = $1 and gap);

-- name: drop_slot
-- A reader that has just been stopped may hold the slot for a moment.
do $drop$
begin
    for moment in 1..100 loop
        exit when not exists (select from pg_catalog.pg_replication_slots where slot_name = /*: slot */'x'/*:*/ and active
            and database = current_database());
        perform pg_catalog.pg_sleep(0.1);
    end loop;
    -- A copy of a database has its original's slot on record.
    perform pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots
    where slot_name = /*: slot */'x'/*:*/ and database = current_database();
end
$drop$;

-- name: forget_slot
begin;
delete from replicator.wal_relation where topology = /*: topology */'x'/*:*/;
delete from replicator.slot where topology = /*: topology */'x'/*:*/;
commit;

-- name: start
-- From the place in the log where this commits, changes of the table are captured from there.
begin;
set local lock_timeout = '2s';
/*: drops *//*:*/
insert into replicator.wal_relation (relation, topology, table_oid, types, filter, filter_columns, filter_types, truncates)
values (/*: relation */1/*:*/, /*: topology */'x'/*:*/, /*: oid */1/*:*/, array[/*: types */'x'/*:*/]::text[], /*: filter */''/*:*/,
    array[/*: filter_columns */'x'/*:*/]::text[], array[/*: filter_types */'x'/*:*/]::text[], /*: truncates */true/*:*/)
on conflict (relation) do update set table_oid = excluded.table_oid, types = excluded.types, filter = excluded.filter,
    filter_columns = excluded.filter_columns, filter_types = excluded.filter_types, truncates = excluded.truncates, state = 'waiting';
select replicator.tell('replicator.start', /*: number */'1'/*:*/);
commit;

-- name: read_existing
-- Writes the rows a table has already into the log, 5,000 to a transaction, from where they go into the outbox as inserts.
-- FOR SHARE makes each row's place right against changes made meanwhile; a writer waits at most for one such transaction.
do $existing$
declare
    last record;
begin
    perform pg_catalog.set_config(name, value, false)
    from (values /*: settings */('timezone', 'UTC')/*:*/) as setting (name, value);
    with chunk as materialized (
        select row(/*: columns */t."a"/*:*/)::text as image, row_number() over (order by /*: key */t."a"/*:*/) as place,
            (/*: filter */true/*:*/) is true as inside, /*: key_fields */t."a" as k0/*:*/
        from (
            select * from /*: only *//*:*/ "__schema__"."__table__" t
            order by /*: key */t."a"/*:*/ limit 5000 for share
        ) t
    ),
    written as materialized (
        select count(replicator.tell('replicator.row', /*: relation */1/*:*/ || ' ' || image)) as n
        from (select image from chunk where inside order by place) as c
    )
    select chunk.*, written.n into last from chunk, written order by place desc limit 1;
    while last.place is not null loop
        commit;
        with chunk as materialized (
            select row(/*: columns */t."a"/*:*/)::text as image, row_number() over (order by /*: key */t."a"/*:*/) as place,
                (/*: filter */true/*:*/) is true as inside, /*: key_fields */t."a" as k0/*:*/
            from (
                select * from /*: only *//*:*/ "__schema__"."__table__" t where /*: behind */t."a" > last.k0/*:*/
                order by /*: key */t."a"/*:*/ limit 5000 for share
            ) t
        ),
        written as materialized (
            select count(replicator.tell('replicator.row', /*: relation */1/*:*/ || ' ' || image)) as n
            from (select image from chunk where inside order by place) as c
        )
        select chunk.*, written.n into last from chunk, written order by place desc limit 1;
    end loop;
    update replicator.relation set loaded_at = pg_catalog.now() where id = /*: relation */1/*:*/;
end
$existing$;

-- name: stop
-- The beginning of the transaction that makes a table's triggers: no one writes the table meanwhile, and everything written
-- before has come from the log into the outbox, so triggers' rows stand behind it there.
begin;
set local lock_timeout = '2s';
lock table "__schema__"."__table__" in share row exclusive mode;
do $wait$
declare
    -- So long that it is worth a move of the place on record also where messages are not told.
    mark pg_lsn := pg_catalog.pg_logical_emit_message(false, 'replicator.mark', repeat('x', 8192));
begin
    for moment in 1..100 loop
        if exists (select from replicator.slot where topology = /*: topology */'x'/*:*/ and lsn >= mark) then
            return;
        end if;
        perform pg_catalog.pg_sleep(0.02);
    end loop;
    raise lock_not_available using message = 'the log is not being read quickly enough for triggers to take over';
end
$wait$;
update replicator.wal_relation set state = 'stopped' where relation = /*: relation */1/*:*/;
select replicator.tell('replicator.stop', /*: number */'1'/*:*/);

-- name: is_over
-- $1: topology. Whether every table has gone over to triggers.
select count(*) > 0 and bool_and(state = 'stopped') from replicator.wal_relation where topology = $1;

-- name: end_slot
-- $1: topology.
select pg_drop_replication_slot(r.slot_name)
from replicator.slot s join pg_replication_slots r on r.slot_name = s.name and r.database = current_database()
where s.topology = $1;

-- name: end_record
-- $1: topology.
delete from replicator.slot where topology = $1;
