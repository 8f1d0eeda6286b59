-- Rows that were there before: orders to bring them, kept at the link's target.

-- `behind`: the key of the last row brought, as the source spells it. `keyed`: only the rows of `backfill_key`. A state
-- is waiting, running, paused, done or cancelled; `behind` moves in the transaction that applies a chunk.
create table replicator.backfill (
    id bigint generated always as identity primary key,
    link integer not null,
    table_schema text not null,
    table_name text not null,
    state text not null default 'waiting' check (state in ('waiting', 'running', 'paused', 'done', 'cancelled')),
    prefer text not null default 'policy' check (prefer in ('policy', 'own', 'source', 'target')),
    keyed boolean not null default false,
    behind text,
    estimate bigint not null default 0,
    rows bigint not null default 0,
    differing bigint not null default 0,
    chunk_rows integer not null default 10000,
    rate integer not null default 0,
    reason text not null default '',
    requested_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz
);
create index backfill_unfinished on replicator.backfill (link, id) where state in ('waiting', 'running', 'paused');
-- One order for a whole table of a link at a time.
create unique index backfill_whole on replicator.backfill (link, table_schema, table_name)
    where state in ('waiting', 'running', 'paused') and not keyed;

-- The rows a keyed backfill brings, in the order of `place` (what `behind` is then). `key`: its values in the source's
-- spelling, as a JSON array.
create table replicator.backfill_key (
    backfill bigint not null,
    place bigint not null,
    key text not null,
    primary key (backfill, place)
);
