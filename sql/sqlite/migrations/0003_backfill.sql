-- Rows that were there before: orders to bring them, kept at the link's target. Columns as on PostgreSQL.

create table replicator_backfill (
    id integer primary key,
    link integer not null,
    table_schema text not null,
    table_name text not null,
    state text not null default 'waiting' check (state in ('waiting', 'running', 'paused', 'done', 'cancelled')),
    prefer text not null default 'policy' check (prefer in ('policy', 'own', 'source', 'target')),
    keyed integer not null default 0,
    behind text,
    estimate integer not null default 0,
    rows integer not null default 0,
    differing integer not null default 0,
    chunk_rows integer not null default 10000,
    rate integer not null default 0,
    reason text not null default '',
    requested_at integer not null,
    started_at integer,
    finished_at integer
);

create table replicator_backfill_key (
    backfill integer not null,
    place integer not null,
    "key" text not null,
    primary key (backfill, place)
) without rowid;
