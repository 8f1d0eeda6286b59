-- Statements that `install` plans for a SQLite file. Every one can be run by hand in the sqlite3 shell; what belongs
-- together stands between BEGIN and COMMIT. Run by replicator/engines/sqlite/installer.py.

-- name: migrate
begin immediate;
/*: body */ select 1 /*:*/;
insert into replicator_migration (number, name, checksum, applied_at)
values (/*: number */ 0 /*:*/, /*: name */ '' /*:*/, /*: checksum */ '' /*:*/, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
commit

-- name: create_identity
insert into replicator_identity (only_row, database_id, epoch)
select 1, lower(hex(randomblob(16))), lower(hex(randomblob(6)))
where not exists (select 1 from replicator_identity)

-- name: first_marker
-- The link from the centre holds pruning back from the start: nothing that the centre has not processed may go. The
-- link puts its own row in this one's place.
insert into replicator_acknowledged (link, topology, position, acknowledged_at)
select /*: topology */ '' /*:*/ || '//from_centre', /*: topology */ '' /*:*/, epoch || ':0:0',
    strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
from replicator_identity

-- name: has_marker
select 1 from replicator_acknowledged where topology = ? and nonce is null

-- name: widen_outbox
alter table replicator_outbox add column "__place__"

-- name: capture_table
-- One transaction per table: no write of the application falls between two triggers, and the order to read all rows
-- is given exactly when capture begins.
begin immediate;
/*: statements */ select 1 /*:*/;
commit

-- name: drop_trigger
drop trigger if exists "__trigger__"

-- name: add_relation
insert into replicator_relation (id, topology, table_name, columns, "key", fingerprint, created_at, versioned)
values (/*: id */ 1 /*:*/, /*: topology */ '' /*:*/, /*: table */ '' /*:*/, /*: columns */ '' /*:*/, /*: key */ '' /*:*/,
    /*: fingerprint */ '' /*:*/, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), /*: versioned */ 0 /*:*/)

-- name: retire_relation
update replicator_relation set retired_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
where id = /*: id */ 0 /*:*/

-- name: record_columns
update replicator_relation set columns = /*: columns */ '' /*:*/, versioned = /*: versioned */ 0 /*:*/
where id = /*: id */ 0 /*:*/

-- name: order_read_all
-- Op a: the reader is to read every row of the table, in small steps, behind all that was captured before.
insert into replicator_outbox (relation, op, changed_at, route)
select /*: relation */ 0 /*:*/, 'a', /*: hybrid_time */ 0 /*:*/, /*: route */ null /*:*/
where exists (select 1 from "__table__")

-- name: note_columns
-- The rows that hold something in columns which are captured from now on: they come with all else that was captured before.
insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/)
select /*: relation */ 0 /*:*/, 'u', /*: hybrid_time */ 0 /*:*/, /*: key */ "__key__" /*:*/
from "__table__" as t where /*: filled */ "__key__" is not null /*:*/

-- name: create_table
create table "__table__" (
    /*: lines */ "__column__" text /*:*/
)

-- name: drop_table
drop table if exists "__table__"

-- name: retire_topology
update replicator_relation set retired_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
where topology = /*: topology */ '' /*:*/ and retired_at is null

-- name: forget_bases
delete from replicator_base where substr(relation, 1, length(/*: topology */ '' /*:*/) + 1) = /*: topology */ '' /*:*/ || '/'

-- name: forget_stops
delete from replicator_capture_stop where topology = /*: topology */ '' /*:*/

-- name: forget_acknowledged
delete from replicator_acknowledged where topology = /*: topology */ '' /*:*/

-- name: forget_sites
delete from replicator_known_site where topology = /*: topology */ '' /*:*/

-- name: read_seen
-- The highest hybrid time seen from elsewhere.
select seen from replicator_control where only_row = 1

-- name: remember_site
insert or replace into replicator_known_site (topology, site, tables, read_at)
values (?, ?, ?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))

-- name: recall_sites
select site, tables from replicator_known_site where topology = ?

-- name: forget_link_rows
delete from "__table__" where link in (select id from replicator_link where topology = /*: topology */ '' /*:*/)

-- name: forget_links
delete from replicator_link where topology = /*: topology */ '' /*:*/

-- name: list_migrations
select number, checksum from replicator_migration order by number

-- name: rename_key
update replicator_relation set "key" = /*: key */'["id"]'/*:*/, fingerprint = /*: fingerprint */'x'/*:*/ where id = /*: id */1/*:*/;

-- name: rename_relation
update replicator_relation set table_name = /*: table */'x'/*:*/, fingerprint = /*: fingerprint */'x'/*:*/, columns = '[]'
where id = /*: id */1/*:*/

-- name: set_aside
-- The table is gone: what waits of it can be read only once it is back. Rows of negative relations are not pruned.
begin immediate;
update replicator_outbox set relation = -relation where relation = /*: id */1/*:*/;
update replicator_relation set columns = '[]' where id = /*: id */1/*:*/;
commit

-- name: bring_back
begin immediate;
insert into replicator_outbox (relation, op, changed_at, route, /*: places */ k0 /*:*/)
select -relation, op, changed_at, route, /*: places */ k0 /*:*/ from replicator_outbox
where relation = -/*: id */1/*:*/ order by seq;
delete from replicator_outbox where relation = -/*: id */1/*:*/;
commit

-- name: forget_aside
delete from replicator_outbox where relation = -/*: id */1/*:*/

-- name: list_relations
select id, table_name, fingerprint, columns from replicator_relation where topology = ? and retired_at is null order by id

-- name: list_versioned
select id from replicator_relation where versioned

-- name: next_relation
select coalesce(max(id), 0) + 1 from replicator_relation

-- name: list_topologies
-- Everyone who still needs our tables here.
select topology from replicator_relation where retired_at is null
union select topology from replicator_acknowledged
union select topology from replicator_link

-- name: identity
select database_id || ':' || epoch from replicator_identity where only_row = 1

-- name: list_links
select site, direction, position, source_identity, max(coalesce(recorded_at, 0), coalesce(contact_at, 0)), changes, conflicts,
    (select count(*) from replicator_parked as p where p.link = l.id), skew_us, newest_changed_at,
    (select count(*) from replicator_conflict as c where c.link = l.id and c.state = 'waiting'), stamp
from replicator_link as l where topology = ? order by site, direction
