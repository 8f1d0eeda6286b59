-- The centre's own changes go to sites, and a site's file knows what its rows were when the centre last wrote them.

-- At a centre: who wrote (NULL: an application here), and whom it concerns: '' every site, '=…' the sites with this value of
-- the table's routing columns, '@topology/site' one site alone. Op ``m`` (relation 0) is a marker: k0 is the position up to
-- which that site's changes have been processed. Rows a site captures have no route.
alter table replicator_outbox add column origin;
alter table replicator_outbox add column route;
create index replicator_outbox_route on replicator_outbox (route, seq) where route is not null;

-- Rows of link 0 are the centre's own: the version of every row that more than one side writes, by the target's whole key.
-- A captured table of the centre whose ledger keeps who wrote each row last (rows of link 0).
alter table replicator_relation add column versioned integer;
alter table replicator_ledger add column origin text;
alter table replicator_ledger add column image text;
-- Up to which outbox row the centre's own writes are in the ledger.
alter table replicator_control add column versioned_upto integer default 0;

-- At a site: a row as the centre last wrote it, written when outbox row ``seq`` was the newest. Good for the first change
-- behind ``seq`` only; then the centre knows better. ``checksum`` and ``image`` are the centre's, to be handed back as they are.
create table replicator_base (
    relation text not null,
    "key" text not null,
    seq integer not null,
    deleted integer not null,
    checksum text,
    image text,
    primary key (relation, "key")
) without rowid;

alter table replicator_conflict add column based integer not null default 1;
alter table replicator_conflict add column result text;
alter table replicator_conflict add column current_origin text not null default '';
alter table replicator_conflict add column current_at integer not null default 0;
alter table replicator_conflict add column clock_error_us integer not null default 0;
alter table replicator_conflict add column unsure integer not null default 0;
alter table replicator_conflict add column state text not null default 'decided';
alter table replicator_conflict add column resolution text not null default '';
alter table replicator_conflict add column resolved_at integer;
alter table replicator_conflict add column parked integer not null default 0;

-- A link that stayed away longer than the retention: pruning no longer waits for it, it must resync.
alter table replicator_acknowledged add column expired_at text;
-- At a centre: which routes the link's site reads (a JSON list).
alter table replicator_acknowledged add column routes text;

-- At a site: the base that came with a row the site has refused so far.
alter table replicator_parked add column base text;

-- At a centre: every site's tables as they were when it answered last (JSON), so that work at the centre does not need it.
create table replicator_known_site (topology text, site text, tables text, read_at text, primary key (topology, site));
-- At a centre: what the link's site gets of which table (JSON: table → a mark that changes with it).
alter table replicator_acknowledged add column shares text;
