-- What a plan reads, and the statements it is made of. Called by: engines/postgres/{installer,planned,inspect}.py.
-- Planned statements hold no placeholders: they run by hand in psql as they are shown.

-- name: our_schema
select to_regclass('replicator.migration') is not null, to_regnamespace('replicator') is not null;

-- name: migrations
select number, checksum from replicator.migration order by number;

-- name: has_identity
select exists (select from replicator.identity);

-- name: relations
-- Every version of every table of a topology. Last the table's number and the columns', unless our tables are of an older schema.
select id, table_schema, table_name, columns, key, fingerprint, retired_at is not null, loaded_at is not null,
    coalesce((to_jsonb(r) ->> 'table_oid')::bigint, 0),
    case when jsonb_typeof(to_jsonb(r) -> 'attnums') = 'array' then to_jsonb(r) -> 'attnums' else '[]' end
from replicator.relation as r where topology = $1 order by id;

-- name: torn
-- $1: topology. Versions with rows captured by name beside them in which a column of theirs was not there, or called otherwise:
-- the names such an image has stand in the order of the columns' numbers.
with known (id, columns, ordered) as materialized (
    select r.id, r.columns, array(
            select n.name
            from unnest(r.columns) with ordinality as n (name, place)
            left join jsonb_array_elements_text(
                case when jsonb_typeof(to_jsonb(r) -> 'attnums') = 'array' then to_jsonb(r) -> 'attnums' else '[]' end
            ) with ordinality as a (attnum, place) on a.place = n.place
            order by a.attnum::integer, n.place
        )
    from replicator.relation as r where r.topology = $1
)
select distinct k.id
from replicator.outbox as o join known as k on k.id = -o.relation
where o.relation < 0 and o.op <> 't' and coalesce(o.after, o.before) is not null and k.ordered <> array(
    select n.name from json_object_keys(coalesce(o.after, o.before)::json) with ordinality as n (name, place)
    where n.name = any(k.columns) order by n.place
);

-- name: renamed
-- $1: topology. Captured tables that are called otherwise now: name on record and present name.
select distinct r.table_schema, r.table_name, n.nspname, c.relname
from replicator.relation as r
join pg_class as c on c.oid = (to_jsonb(r) ->> 'table_oid')::oid
join pg_namespace as n on n.oid = c.relnamespace
where r.topology = $1 and r.retired_at is null and (n.nspname, c.relname) <> (r.table_schema, r.table_name)
    and to_regclass(format('%I.%I', r.table_schema, r.table_name)) is null;

-- name: rename_relation
-- All versions of a table under the name that it has now; its rows are to be read again, in case they go elsewhere now.
update replicator.relation set table_schema = /*: new_schema */'x'/*:*/, table_name = /*: new_table */'x'/*:*/,
    loaded_at = case when retired_at is not null then loaded_at end
where topology = /*: topology */'x'/*:*/ and table_schema = /*: schema */'x'/*:*/ and table_name = /*: table */'x'/*:*/;

-- name: retire_table
update replicator.relation set retired_at = pg_catalog.now()
where topology = /*: topology */'x'/*:*/ and table_schema = /*: schema */'x'/*:*/ and table_name = /*: table */'x'/*:*/
    and retired_at is null;

-- name: captured
-- $1: topology. Tables captured now, with their columns; without one whose name another column has now.
select r.table_schema, r.table_name, array(
        select n.name
        from unnest(r.columns) with ordinality as n (name, place)
        left join jsonb_array_elements_text(
            case when jsonb_typeof(to_jsonb(r) -> 'attnums') = 'array' then to_jsonb(r) -> 'attnums' else '[]' end
        ) with ordinality as a (attnum, place) on a.place = n.place
        where not exists (
            select from pg_attribute as p
            where p.attrelid = (to_jsonb(r) ->> 'table_oid')::oid and p.attname = n.name and p.attnum <> a.attnum::integer
        )
        order by n.place
    )
from replicator.relation as r where r.topology = $1 and r.retired_at is null;

-- name: next_relation
select coalesce(max(id), 0) + 1 from replicator.relation;

-- name: topologies
select topology from replicator.relation union select topology from replicator.link
union select topology from replicator.acknowledged order by 1;

-- name: functions
-- Our functions with the fingerprint their comment carries.
select p.proname, coalesce(substring(obj_description(p.oid, 'pg_proc') from '^replicator ([0-9a-f]+|stopped)$'), '')
from pg_proc p where p.pronamespace = to_regnamespace('replicator') order by 1;

-- name: triggers
-- Our triggers, except those partitions got from their root.
select n.nspname, c.relname, t.tgname, t.tgtype::integer, t.tgenabled::text, p.proname, coalesce(t.tgoldtable, ''),
    coalesce(t.tgnewtable, '')
from pg_trigger t
join pg_proc p on p.oid = t.tgfoid
join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace
where p.pronamespace = to_regnamespace('replicator') and not t.tgisinternal
    and not exists (select from pg_inherits i join pg_trigger r on r.tgrelid = i.inhparent and r.tgname = t.tgname
        where i.inhrelid = t.tgrelid)
order by 1, 2, 3;

-- name: rowwise
-- Tables a statement trigger would capture in the wrong order, because triggers that fire between the rows' changes and
-- the end of the statement may change the same rows again: AFTER ROW triggers of the user's, and foreign-key actions
-- that come back to the table, or reach a table with triggers.
with recursive own (tgrelid, row_after) as (
    select t.tgrelid, (t.tgtype & 1) = 1 and (t.tgtype & 66) = 0
    from pg_trigger t join pg_proc p on p.oid = t.tgfoid
    where not t.tgisinternal and p.pronamespace is distinct from to_regnamespace('replicator') and t.tgenabled <> 'D'
),
action (parent, child) as (
    select distinct confrelid, conrelid from pg_constraint
    where contype = 'f' and (confdeltype in ('c', 'n', 'd') or confupdtype in ('c', 'n', 'd'))
),
reach (origin, reached) as (
    select parent, child from action
    union
    select r.origin, a.child from reach r join action a on a.parent = r.reached
)
select tgrelid::bigint from own where row_after
union
select r.origin::bigint from reach r
where r.reached = r.origin or exists (select from own where own.tgrelid = r.reached);

-- name: owned
-- $1: table oids. Those the present role owns, itself or through a role it is a member of.
select oid::bigint from pg_class where oid = any($1::bigint[]::oid[]) and pg_has_role(relowner, 'usage');

-- name: equalities
-- Types whose own "=" is not in pg_catalog (citext), and domains over them, with its schema.
with odd (type, place) as (
    select c.opcintype, n.nspname
    from pg_opclass c
    join pg_am a on a.oid = c.opcmethod and a.amname = 'btree'
    join pg_amop m on m.amopfamily = c.opcfamily and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype
        and m.amopstrategy = 3
    join pg_operator o on o.oid = m.amopopr and o.oprname = '='
    join pg_namespace n on n.oid = o.oprnamespace
    where c.opcdefault and n.nspname <> 'pg_catalog'
)
select format_type(type, null), place from odd
union
select format_type(t.oid, null), odd.place from odd join pg_type t on t.typbasetype = odd.type and t.typtype = 'd';

-- name: feeds
-- Tables whose row versions are kept.
select relation from replicator.feed where link = 0;

-- name: list_objects
select pg_describe_object('pg_namespace'::regclass, oid, 0) from pg_namespace where nspname = 'replicator'
union all
select pg_describe_object('pg_class'::regclass, oid, 0) from pg_class
where relnamespace = to_regnamespace('replicator') and relkind in ('r', 'v', 'm', 'S', 'p')
union all
select pg_describe_object('pg_proc'::regclass, oid, 0) from pg_proc where pronamespace = to_regnamespace('replicator')
union all
select pg_describe_object('pg_trigger'::regclass, t.oid, 0) from pg_trigger t
where t.tgfoid in (select oid from pg_proc where pronamespace = to_regnamespace('replicator'))
    or t.tgname like '!replicator\_%'
union all
select pg_describe_object('pg_publication'::regclass, oid, 0) from pg_publication where pubname like 'replicator\_%'
union all
select pg_describe_object('pg_event_trigger'::regclass, oid, 0) from pg_event_trigger where evtname like 'replicator\_%'
union all
select 'replication slot ' || slot_name from pg_replication_slots
where database = current_database() and slot_name like 'replicator\_%'
order by 1;

-- name: list_links
select topology, site, direction, position, source_identity,
    coalesce((extract(epoch from greatest(recorded_at, contact_at)) * 1000000)::bigint, 0), changes, conflicts,
    (select count(*) from replicator.parked p where p.link = l.id), skew_us, newest_changed_at,
    (select count(*) from replicator.conflict c where c.link = l.id and c.state = 'waiting'), stamp
from replicator.link l where topology = $1 order by site, direction;

-- name: read_seen
-- The highest hybrid time seen from elsewhere.
select seen from replicator.clock;

-- name: remember_site
-- $1: topology, $2: site, $3: its tables, as JSON.
insert into replicator.known_site (topology, site, tables) values ($1, $2, $3)
on conflict (topology, site) do update set tables = excluded.tables, read_at = now();

-- name: has_known_sites
-- Not before the migration that makes the table.
select to_regclass('replicator.known_site') is not null;

-- name: recall_sites
-- $1: topology.
select site, tables from replicator.known_site where topology = $1;

-- name: install_lock
-- One install at a time; the session's end frees it.
select pg_try_advisory_lock(1919250540, 0);

-- name: install_unlock
select pg_advisory_unlock(1919250540, 0);

-- name: migrate
begin;
/*: body *//*:*/
insert into replicator.migration (number, name, checksum) values (/*: number */1/*:*/, /*: name */'x'/*:*/, /*: checksum */'x'/*:*/);
commit;

-- name: create_identity
insert into replicator.identity (database_id, epoch)
select pg_catalog.gen_random_uuid()::text, pg_catalog.gen_random_uuid()::text on conflict do nothing;

-- name: wait_for_writers
-- Of a table whose capture was stopped: when its function is back, who wrote while it was away has ended, and who comes is
-- captured. Replacing a function waits for nobody.
set local lock_timeout = '2s';
lock table "__schema__"."__table__" in share row exclusive mode;

-- name: create_function
begin;
/*: first *//*:*/
/*: body *//*:*/
comment on function replicator."__function__"(/*: arguments *//*:*/) is /*: comment */'replicator x'/*:*/;
commit;

-- name: add_feed
insert into replicator.feed (link, relation) values (0, /*: table */'x'/*:*/) on conflict (link, relation) do nothing;

-- name: look_again
-- At a centre, for a table that was not captured for a while: every site looks at every row of it.
insert into replicator.outbox (relation, op, changed_at, route)
select /*: relation */1/*:*/, 'a', greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, (select seen + 1 from replicator.clock)), '';

-- name: add_relation
begin;
update replicator.relation set retired_at = pg_catalog.now()
where topology = /*: topology */'x'/*:*/ and table_schema = /*: schema */'x'/*:*/ and table_name = /*: table */'x'/*:*/
    and fingerprint <> /*: fingerprint */'x'/*:*/ and retired_at is null;
insert into replicator.relation (id, topology, table_schema, table_name, columns, key, fingerprint, table_oid, attnums)
overriding system value
select /*: id */1/*:*/, /*: topology */'x'/*:*/, /*: schema */'x'/*:*/, /*: table */'x'/*:*/,
    found.columns, array[/*: key */'a'/*:*/]::text[], /*: fingerprint */'x'/*:*/, found.oid,
    array(
        select a.attnum from unnest(found.columns) with ordinality as n (name, place)
        join pg_attribute as a on a.attrelid = found.oid and a.attname = n.name and not a.attisdropped
        order by n.place
    )
from (
    select array[/*: columns */'a'/*:*/]::text[] as columns,
        to_regclass(format('%I.%I', /*: schema */'x'/*:*/, /*: table */'x'/*:*/))::oid as oid
) as found
on conflict (topology, table_schema, table_name, fingerprint) do update
set retired_at = null, table_oid = excluded.table_oid, attnums = excluded.attnums;
commit;

-- name: mark_loaded
-- All rows of the table have come under the version before, and this one has no column that one had not; or they come otherwise.
update replicator.relation set loaded_at = pg_catalog.now() where id = /*: relation */1/*:*/;

-- name: capture_existing
-- Captures the rows the table had before its triggers, as inserts (or, where only columns are new, as updates of these from
-- NULL), 5,000 to a transaction. FOR SHARE makes each row's
-- place in the outbox right against changes made meanwhile; a writer waits at most for one such transaction.
do $existing$
declare
    last record;
    stamp bigint;
begin
    perform pg_catalog.set_config(name, value, false)
    from (values /*: settings */('timezone', 'UTC')/*:*/) as setting (name, value);
    stamp := greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, (select seen + 1 from replicator.clock));
    with chunk as materialized (
        select row(/*: columns */t."a"/*:*/)::text as image, row_number() over (order by /*: key */t."a"/*:*/) as place,
            case when /*: only_new */false/*:*/ then row(/*: before */null/*:*/)::text end as before, (/*: filter */true/*:*/) is true as inside, /*: key_fields */t."a" as k0/*:*/
        from (
            select * from /*: only *//*:*/ "__schema__"."__table__" t
            order by /*: key */t."a"/*:*/ limit 5000 for share
        ) t
    ),
    written as (
        insert into replicator.outbox (relation, op, changed_at, before, after)
        select /*: relation */1/*:*/, /*: op */'i'/*:*/, stamp, before, image from chunk where inside order by place
    )
    select chunk.* into last from chunk order by place desc limit 1;
    while last.place is not null loop
        commit;
        with chunk as materialized (
            select row(/*: columns */t."a"/*:*/)::text as image, row_number() over (order by /*: key */t."a"/*:*/) as place,
                case when /*: only_new */false/*:*/ then row(/*: before */null/*:*/)::text end as before, (/*: filter */true/*:*/) is true as inside, /*: key_fields */t."a" as k0/*:*/
            from (
                select * from /*: only *//*:*/ "__schema__"."__table__" t where /*: behind */t."a" > last.k0/*:*/
                order by /*: key */t."a"/*:*/ limit 5000 for share
            ) t
        ),
        written as (
            insert into replicator.outbox (relation, op, changed_at, before, after)
            select /*: relation */1/*:*/, /*: op */'i'/*:*/, stamp, before, image from chunk where inside order by place
        )
        select chunk.* into last from chunk order by place desc limit 1;
    end loop;
    update replicator.relation set loaded_at = pg_catalog.now() where id = /*: relation */1/*:*/;
end
$existing$;

-- name: event_triggers
-- Whether they may be made here, and those of ours that there are.
select coalesce((select rolsuper from pg_roles where rolname = current_user), false),
    array(select evtname::text from pg_event_trigger where evtname like 'replicator!_%' escape '!' and evtenabled <> 'D');

-- name: create_event_triggers
begin;
drop event trigger if exists replicator_schema_change;
create event trigger replicator_schema_change on ddl_command_end
    when tag in ('ALTER TABLE', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
    execute function replicator.note_schema_change();
drop event trigger if exists replicator_schema_drop;
create event trigger replicator_schema_drop on sql_drop
    when tag in ('DROP TABLE', 'ALTER TABLE')
    execute function replicator.note_schema_change();
commit;

-- name: drop_function
begin;
set local lock_timeout = '2s';
drop function if exists replicator."__function__"() cascade;
commit;

-- name: forget_topology
begin;
delete from replicator.outbox where pg_catalog.abs(relation) in (select id from replicator.relation where topology = /*: topology */'x'/*:*/)
    or relation = 0 and pg_catalog.starts_with(route, '@' || /*: topology */'x'/*:*/ || '/');
delete from replicator.moved where topology = /*: topology */'x'/*:*/;
delete from replicator.ledger where feed in (
    select f.id from replicator.feed as f
    where f.link = 0 and exists (select from replicator.relation as r where r.topology = /*: topology */'x'/*:*/
            and f.relation = case when r.table_schema = 'public' then r.table_name else r.table_schema || '.' || r.table_name end)
        and not exists (select from replicator.relation as r where r.topology <> /*: topology */'x'/*:*/
            and f.relation = case when r.table_schema = 'public' then r.table_name else r.table_schema || '.' || r.table_name end));
delete from replicator.relation where topology = /*: topology */'x'/*:*/;
delete from replicator.acknowledged where topology = /*: topology */'x'/*:*/;
delete from replicator.known_site where topology = /*: topology */'x'/*:*/;
delete from replicator.capture_stop where topology = /*: topology */'x'/*:*/;
delete from replicator.ledger where feed in (
    select f.id from replicator.feed as f join replicator.link as l on l.id = f.link where l.topology = /*: topology */'x'/*:*/);
delete from replicator.feed where link in (select id from replicator.link where topology = /*: topology */'x'/*:*/);
delete from replicator.conflict where link in (select id from replicator.link where topology = /*: topology */'x'/*:*/);
delete from replicator.parked where link in (select id from replicator.link where topology = /*: topology */'x'/*:*/);
delete from replicator.link where topology = /*: topology */'x'/*:*/;
commit;

-- name: drop_schema
begin;
set local lock_timeout = '2s';
drop schema if exists replicator cascade;
commit;

-- name: create_schema
create schema if not exists "__schema__";

-- name: create_table
create table if not exists "__schema__"."__table__" (/*: parts */"a" integer/*:*/);

-- name: column
alter table x add column "__column__" /*: type */text/*:*/ /*: collation *//*:*/ /*: not_null */not null/*:*/;

-- name: primary_key
alter table x add primary key (/*: columns */"a"/*:*/);

-- name: unique
alter table x add constraint "__name__" unique (/*: columns */"a"/*:*/) deferrable initially immediate;

-- name: foreign_key
alter table "__schema__"."__table__" add constraint "__name__" foreign key (/*: columns */"a"/*:*/)
    references "__parent_schema__"."__parent__" (/*: parent_columns */"a"/*:*/)
    on delete /*: on_delete */no action/*:*/ on update /*: on_update */no action/*:*/ deferrable initially immediate;
