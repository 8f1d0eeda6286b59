-- What `replicator simulate` does as the application of a throw-away SQLite file. Reads, writes: users' tables, and the clock
-- of our own control row. Used by: replicator/simulate/places.py.

-- name: settle
pragma foreign_keys = on;
pragma journal_mode = wal;
pragma synchronous = off;

-- name: open_transaction
begin immediate;

-- name: keep_place
savepoint action;

-- name: back_to_place
rollback to savepoint action;

-- name: leave_place
release savepoint action;

-- name: read_seen
select seen from replicator_control where only_row = 1;

-- name: write_seen
update replicator_control set seen = ? where only_row = 1;

-- name: end_leases
-- Whoever held them is long gone when a copy is put back.
update replicator_link set lease_until = 0 where lease_until is not null;

-- name: insert
insert into "__table__" (/*: columns */ "__column__" /*:*/) values (/*: values */ ? /*:*/);

-- name: update
update "__table__" set /*: changes */ "__column__" = ? /*:*/ where /*: row */ "__key__" = ? /*:*/;

-- name: delete
delete from "__table__" where /*: row */ "__key__" = ? /*:*/;

-- name: read_all
select /*: columns */ "__column__" /*:*/ from "__table__";

-- name: read_slice
-- Rows of a table whose row at the end of a path of parents meets a condition.
select /*: columns */ t."__column__" /*:*/ from "__table__" as t /*: path */ /*:*/ where /*: condition */ true /*:*/;

-- name: parent
-- One step of that path.
select 1 from "__table__" as t
  join "__parent__" as /*: alias */ p /*:*/ on /*: same */ true /*:*/;

-- name: read_schema
-- Statements that made a file's tables, indexes, views and triggers, ours left out, in order.
select type, name, sql from sqlite_master
 where sql is not null and name not like 'sqlite\_%' escape '\' and name not like 'replicator\_%' escape '\'
   and tbl_name not like 'replicator\_%' escape '\'
 order by case type when 'table' then 1 when 'index' then 2 when 'view' then 3 else 4 end, rowid;

-- name: create_centre_tables
create table rule (
    id integer primary key,
    after_rule integer references rule (id),
    note text
);

-- name: create_site_tables
create table patient (
    id integer primary key,
    clinic text not null,
    email text unique,
    name text,
    born date,
    weight real,
    visits integer not null default 0,
    note text
);
create table visit (
    patient_id integer not null references patient (id),
    number integer not null,
    seen_at timestamp,
    fee decimal,
    paid boolean,
    note text,
    primary key (patient_id, number)
);
create table price (
    code text primary key,
    label text unique,
    amount decimal,
    picture blob,
    note text
);
create table reading (
    id integer primary key,
    patient_id integer,
    value real,
    note text
);
