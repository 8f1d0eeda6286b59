-- Capture from the write-ahead log instead of triggers.

-- One row per topology: every change of a transaction whose commit ends at or before `lsn` is in the outbox, and the slot is
-- never confirmed beyond it. `seen`: the highest hybrid time from elsewhere (see replicator.clock) as of there.
create table replicator.slot (
    topology text primary key,
    name text not null,
    publication text not null,
    lsn pg_lsn not null,
    seen bigint not null default 0,
    created_at timestamptz not null default now(),
    filled_at timestamptz
);

-- A relation that is captured from the log, from the message that starts it to the one that stops it. `types`: of the
-- relation's columns; `filter`: the row filter, reading `filter_columns` behind the alias r. `retired`: another version of the table came.
create table replicator.wal_relation (
    relation integer primary key,
    topology text not null,
    table_oid oid not null,
    types text[] not null,
    filter text not null default '',
    filter_columns text[] not null default '{}',
    filter_types text[] not null default '{}',
    truncates boolean not null default true,
    state text not null default 'waiting' check (state in ('waiting', 'active', 'stopped'))
);

-- The replica identity tables had before install asked for the whole old row; uninstall gives it back.
create table replicator.replica_identity (
    table_oid oid primary key,
    identity "char" not null,
    index_name text not null default ''
);
