-- What `replicator simulate` does as the application of a throw-away PostgreSQL database. Reads, writes: users' tables, and
-- our own clock's row. Used by: replicator/simulate/places.py.

-- name: settle
set timezone = 'UTC';

-- name: open_transaction
begin;

-- name: keep_place
savepoint action;

-- name: back_to_place
rollback to savepoint action;

-- name: leave_place
release savepoint action;

-- name: read_seen
select seen from replicator.clock;

-- name: write_seen
update replicator.clock set seen = $1;

-- name: insert
insert into "__schema__"."__table__" (/*: columns */ "__column__" /*:*/) overriding system value values (/*: values */ $1 /*:*/);

-- name: update
update "__schema__"."__table__" set /*: changes */ "__column__" = $1 /*:*/ where /*: row */ "__key__" = $2 /*:*/;

-- name: delete
delete from "__schema__"."__table__" where /*: row */ "__key__" = $1 /*:*/;

-- name: read_all
select /*: columns */ "__column__" /*:*/ from "__schema__"."__table__";

-- name: create_database
create database "__database__" template "__template__";

-- name: drop_database
drop database if exists "__database__" with (force);

-- name: read_slots
select name from replicator.slot;

-- name: make_slot
-- A copy of a database has no slot. A statement of its own: see create_slot in wal.sql.
select pg_create_logical_replication_slot($1::text, 'pgoutput');

-- name: start_slot
-- What its original's slot had to tell is over; the tables are captured from here on.
with started as (
    update replicator.wal_relation set state = 'active' where state = 'waiting'
)
update replicator.slot as s set lsn = r.confirmed_flush_lsn from pg_replication_slots as r where r.slot_name = s.name;

-- name: create_centre_tables
create table rule (
    id bigint primary key,
    after_rule bigint references rule (id) deferrable initially deferred,
    note text
);

-- name: create_site_tables
create table patient (
    id bigint primary key,
    clinic text not null,
    email text unique deferrable initially deferred,
    name text,
    born date,
    weight double precision,
    visits bigint not null default 0,
    note text
);
create table visit (
    patient_id bigint not null references patient (id) deferrable initially deferred,
    number bigint not null,
    seen_at timestamp(6),
    fee numeric,
    paid boolean,
    note text,
    primary key (patient_id, number)
);
create table price (
    code text primary key,
    label text unique deferrable initially deferred,
    amount numeric,
    picture bytea,
    note text
);
create table reading (
    id bigint primary key,
    patient_id bigint,
    value double precision,
    note text
);
