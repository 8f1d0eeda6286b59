-- Our tables on PostgreSQL, the same on a site and on the centre. Row states and owners: sql/README.md.

create schema if not exists replicator;
comment on schema replicator is 'change data capture by replicator; remove with: replicator uninstall';

-- One row: who this database is. ``epoch`` changes when history is known to have been cut (restore, re-creation).
create table replicator.identity (
    only_row boolean primary key default true check (only_row),
    database_id text not null,
    epoch text not null
);

-- One row: the highest hybrid time seen from elsewhere (microseconds since 1970); capture never stamps below it.
create table replicator.clock (
    only_row boolean primary key default true check (only_row),
    seen bigint not null default 0
);
insert into replicator.clock default values;

-- A captured table version: what the places of an outbox row's images mean. Never updated except ``retired_at``
-- (a newer version took its place) and ``loaded_at`` (the rows that were there before the triggers are in the outbox).
create table replicator.relation (
    id integer generated always as identity primary key,
    topology text not null,
    table_schema text not null,
    table_name text not null,
    columns text[] not null,
    key text[] not null,
    fingerprint text not null,
    created_at timestamptz not null default now(),
    retired_at timestamptz,
    loaded_at timestamptz,
    unique (topology, table_schema, table_name, fingerprint)
);

-- Captured changes. No constraint, no foreign key: capture must never fail the application's statement.
-- ``before`` and ``after`` are record literals over the relation's columns; after a shape change that was not yet
-- installed, ``relation`` is negative and the images are JSON objects.
create table replicator.outbox (
    seq bigint generated always as identity (cache 1),
    xid xid8 not null default pg_current_xact_id(),
    relation integer not null,
    op "char" not null,
    changed_at bigint not null,
    origin text,
    before text,
    after text
);
-- The reader asks for transactions that became visible between two snapshots.
create index outbox_xid on replicator.outbox (xid);

-- Horizons on record, written by capture every few thousand changes: where a large window may be cut.
create table replicator.tick (
    seq bigint not null,
    snapshot pg_snapshot not null
);
create index tick_seq on replicator.tick (seq);

-- Source side: how far each link has got (a pg_snapshot), so that pruning never passes the slowest.
create table replicator.acknowledged (
    link text primary key,
    topology text not null,
    position text not null,
    acknowledged_at timestamptz not null default now()
);

-- Target side: one row per link. ``position`` moves by compare-and-set in the apply transaction.
create table replicator.link (
    id integer generated always as identity primary key,
    topology text not null,
    site text not null,
    direction text not null,
    position text,
    source_identity text not null default '',
    recorded_at timestamptz,
    contact_at timestamptz,
    changes bigint not null default 0,
    conflicts bigint not null default 0,
    parked bigint not null default 0,
    skew_us bigint not null default 0,
    newest_changed_at bigint not null default 0,
    unique (topology, site, direction)
);

-- Target side: one table of one link, numbered to keep the ledger narrow. ``relation`` is the target table.
create table replicator.feed (
    id integer generated always as identity primary key,
    link integer not null,
    relation text not null,
    unique (link, relation)
);

-- Target side: what the feed's site believes each row to be, for sources without before images, and (with two-way
-- tables) the row's version. ``key`` is the source's key as a record literal; ``checksum`` is hashtextextended of the
-- row's record literal: 64 bits suffice to tell one row from its own later state. Collation "C": keys are compared as bytes, which is exact and quick.
create table replicator.ledger (
    feed integer not null,
    key text collate "C" not null,
    version bigint not null default 1,
    changed_at bigint not null,
    checksum bigint not null,
    deleted boolean not null default false,
    primary key (feed, key)
) with (fillfactor = 90);

-- Target side: every decided conflict, with all it was decided on. Images are JSON objects: target column → text.
create table replicator.conflict (
    id bigint generated always as identity primary key,
    link integer not null,
    relation text not null,
    key text not null,
    kind text not null,
    before json,
    after json,
    current json,
    changed_at bigint not null,
    policy text not null,
    verdict text not null,
    reason text not null,
    position text,
    decided_at timestamptz not null default now()
);
create index conflict_row on replicator.conflict (relation, hashtextextended(key, 0));

-- Target side: changes set aside. The oldest of a row is ``parked``, later ones of the same row are ``waiting``.
-- Images are record literals over ``columns`` (source column names), NULL when there is none.
create table replicator.parked (
    id bigint generated always as identity primary key,
    link integer not null,
    relation text not null,
    key text not null,
    op "char" not null,
    state text not null check (state in ('parked', 'waiting')),
    changed_at bigint not null,
    columns text[] not null,
    before text,
    after text,
    sqlstate text not null default '',
    cause text not null default '',
    position text,
    parked_at timestamptz not null default now(),
    attempts integer not null default 1
);
-- By hash: a key may be longer than an index takes, which is one of the reasons why a change is parked.
create index parked_row on replicator.parked (link, relation, hashtextextended(key, 0));

-- Forward-only migrations that ran here, with the checksum of the file as it ran.
create table replicator.migration (
    number integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now()
);
