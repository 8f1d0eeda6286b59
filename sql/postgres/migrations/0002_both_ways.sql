-- The centre's own changes go to sites: key mode in the outbox, row versions in the ledger, conflicts that wait.

-- At a centre an outbox row names a row by its key (a record literal) and is written once per ``route``: '' concerns every
-- site, '=(…)' the sites with these values of the table's routing columns (a record literal of their texts),
-- '@topology/site' one site alone. Op ``m`` (relation 0) is a marker: ``key`` is the position up to which that site's changes
-- have been processed. Rows a site captures have no route.
alter table replicator.outbox add column key text, add column route text;
create index outbox_route on replicator.outbox (route, xid) where route is not null;

-- A feed of link 0 is the centre's own: its ledger has the version of every row that more than one side writes, by the
-- target's whole key. ``origin``: '<topology>/<site>', NULL for writes at the centre. ``image``: the row as a record literal,
-- where columns are merged.
alter table replicator.ledger add column origin text, add column image text;

alter table replicator.conflict
    add column based boolean not null default true,
    add column result json,
    add column current_origin text not null default '',
    add column current_at bigint not null default 0,
    add column clock_error_us bigint not null default 0,
    add column unsure boolean not null default false,
    add column state text not null default 'decided' check (state in ('decided', 'waiting', 'resolved')),
    add column resolution text not null default '',
    add column resolved_at timestamptz,
    add column parked bigint not null default 0;
create index conflict_waiting on replicator.conflict (parked) where state = 'waiting';

-- A link that stayed away longer than the retention: pruning no longer waits for it, it must resync.
alter table replicator.acknowledged add column expired_at timestamptz;

-- A record literal of a key, whatever its columns: shorter keys are filled up with commas before they are cast to it.
create type replicator.key_fields as (
    k0 text, k1 text, k2 text, k3 text, k4 text, k5 text, k6 text, k7 text, k8 text, k9 text, k10 text, k11 text,
    k12 text, k13 text, k14 text, k15 text, k16 text, k17 text, k18 text, k19 text, k20 text, k21 text, k22 text, k23 text,
    k24 text, k25 text, k26 text, k27 text, k28 text, k29 text, k30 text, k31 text
);

-- Rows that other tables' rows follow and that came to concern other sites: followers written by transactions that were
-- open meanwhile may have the old route. `statement` announces them again (parameters: `key`, the time), once all those
-- transactions have ended; `horizon` is the first snapshot in which the move was seen.
create table replicator.moved (
    id bigint generated always as identity primary key,
    topology text not null,
    statement text not null,
    key text not null,
    horizon pg_snapshot
);

-- At a centre: every site's tables as they were when it answered last (JSON), so that work at the centre does not need it.
create table replicator.known_site (
    topology text not null,
    site text not null,
    tables text not null,
    read_at timestamptz not null default now(),
    primary key (topology, site)
);

-- At a centre: what the link's site gets of which table (JSON: table → a mark that changes with it).
alter table replicator.acknowledged add column shares text;

-- At a centre: the position the link's site has on record itself (``position`` may be ahead, where there was nothing for it). A
-- site that asks for what lies before it was put back from a copy.
alter table replicator.acknowledged add column delivered text;
