-- Our tables in a SQLite file, the same on a site and on a centre. Same names and columns as on PostgreSQL where the
-- idea is the same. Plain SQL that SQLite 3.8 can parse: the application's own engine opens this file too.

create table replicator_identity (only_row integer primary key, database_id text, epoch text);

-- ``seen``: highest hybrid time seen from elsewhere; capture never stamps below it.
create table replicator_control (only_row integer primary key, seen integer);
insert into replicator_control (only_row, seen) values (1, 0);

create table replicator_relation (
    id integer primary key,
    topology text,
    table_name text,
    columns text,
    "key" text,
    fingerprint text,
    created_at text,
    retired_at text
);

-- Captured changes, key mode: which row was touched (op i, u, d), or op ``a``: read all rows of the table. No constraint besides the rowid: an application's OR IGNORE or
-- OR REPLACE reaches into trigger bodies. The sentinel: the highest row never leaves, so ``seq`` never goes back.
-- Key values sit in undeclared columns k0, k1 … (added by install as wide as the widest key): no affinity, bit-exact.
create table replicator_outbox (seq integer primary key, relation, op, changed_at, k0, k1, k2, k3);
insert into replicator_outbox (seq, relation, op, changed_at) values (1, 0, '', 0);

-- Source side: how far each link has got. ``nonce`` changes at every acknowledgement and is part of the next positions:
-- a file restored from a copy shows, because the target knows a nonce the copy does not.
create table replicator_acknowledged (
    link text primary key,
    topology text,
    position text,
    nonce text,
    acknowledged_at text
);

create table replicator_link (
    id integer primary key,
    topology text not null,
    site text not null,
    direction text not null,
    position text,
    source_identity text not null default '',
    recorded_at integer,
    contact_at integer,
    changes integer not null default 0,
    conflicts integer not null default 0,
    parked integer not null default 0,
    skew_us integer not null default 0,
    newest_changed_at integer not null default 0,
    lease_holder text,
    lease_until integer,
    unique (topology, site, direction)
);

create table replicator_ledger (
    link integer not null,
    relation text not null,
    "key" text not null,
    version integer not null default 1,
    changed_at integer not null,
    checksum blob not null,
    deleted integer not null default 0,
    primary key (link, relation, "key")
) without rowid;

create table replicator_conflict (
    id integer primary key,
    link integer not null,
    relation text not null,
    "key" text not null,
    kind text not null,
    before text,
    after text,
    current text,
    changed_at integer not null,
    policy text not null,
    verdict text not null,
    reason text not null,
    position text,
    decided_at integer not null
);
create index replicator_conflict_row on replicator_conflict (relation, "key");

create table replicator_parked (
    id integer primary key,
    link integer not null,
    relation text not null,
    "key" text not null,
    op text not null,
    state text not null check (state in ('parked', 'waiting')),
    changed_at integer not null,
    columns text not null,
    before text,
    after text,
    sqlstate text not null default '',
    cause text not null default '',
    position text,
    parked_at integer not null,
    attempts integer not null default 1
);
create index replicator_parked_row on replicator_parked (link, relation, "key");

create table replicator_migration (number integer primary key, name text not null, checksum text not null, applied_at text);
