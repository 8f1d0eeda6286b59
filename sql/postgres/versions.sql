-- Row versions: who wrote each row of the target last, and when. They stand in the ledger under the table's own feed (link 0),
-- by the target's whole key. c = change, t = the target table. Written in the statement that writes the rows, so that what
-- was not written gets no version. Called by: engines/postgres/versions.py.

-- name: ensure_feed
insert into replicator.feed (link, relation) values (0, $1) on conflict (link, relation) do nothing;

-- name: read_feed
select id from replicator.feed where link = 0 and relation = $1;

-- name: done_to_row
/*: key */ row(t.v0)::text /*:*/ as key, /*: old_key */ row(c.k0)::text /*:*/ as old_key, c.changed_at, not c.present as deleted

-- name: done_to_new_row
/*: key */ row(v0)::text /*:*/ as key

-- name: done_to_old_row
-- $1: when the source's table was truncated.
/*: key */ row(t.v0)::text /*:*/ as key, '' as old_key, $1::bigint as changed_at, true as deleted

-- name: write_rows
with done as (
    /*: step */ update pg_temp."__change__" as c set ord = ord returning '' as key, '' as old_key, changed_at, true as deleted /*:*/
), written as (
    insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted, origin)
    select /*: feed */ 0 /*:*/, d.key, d.changed_at, 0, d.deleted, /*: origin */ null /*:*/ from done as d
        on conflict (feed, key) do update
       set version = l.version + 1, changed_at = excluded.changed_at, deleted = excluded.deleted, origin = excluded.origin
)
select count(*) from done;

-- name: move_rows
-- The same where rows change their keys: what was left behind under the old one is a deleted row, unless another came there.
with done as (
    /*: step */ update pg_temp."__change__" as c set ord = ord returning '' as key, '' as old_key, changed_at, true as deleted /*:*/
), places as (
    select key, changed_at, deleted from done
     union all
    select old_key, changed_at, true from done where old_key is distinct from key
), written as (
    insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted, origin)
    select distinct on (p.key) /*: feed */ 0 /*:*/, p.key, p.changed_at, 0, p.deleted, /*: origin */ null /*:*/
      from places as p order by p.key, p.deleted
        on conflict (feed, key) do update
       set version = l.version + 1, changed_at = excluded.changed_at, deleted = excluded.deleted, origin = excluded.origin
)
select count(*) from done;

-- name: add_rows
-- The same for inserts, which give back the row only: the change it came from is found by the key.
with done as (
    /*: step */ update pg_temp."__change__" as c set ord = ord returning '' as key /*:*/
), written as (
    insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted, origin)
    select /*: feed */ 0 /*:*/, d.key, c.changed_at, 0, false, /*: origin */ null /*:*/
      from done as d
      join pg_temp."__change__" as c on c.present and (/*: new_key */ row(c.a0)::text /*:*/) = d.key
        on conflict (feed, key) do update
       set version = l.version + 1, changed_at = excluded.changed_at, deleted = false, origin = excluded.origin
)
select count(*) from done;

-- name: add_loaded
-- The same for rows of a backfill, whose time nobody knows.
with done as (
    /*: step */ update pg_temp."__change__" as c set ord = ord returning '' as key /*:*/
), written as (
    insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted, origin)
    select /*: feed */ 0 /*:*/, d.key, 0, 0, false, /*: origin */ null /*:*/ from done as d
        on conflict (feed, key) do update
       set version = l.version + 1, changed_at = excluded.changed_at, deleted = false, origin = excluded.origin
)
select count(*) from done;

-- name: note_fresh
-- Behind insert_fresh, which inserts all or nothing.
insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted, origin)
select /*: feed */ 0 /*:*/, /*: new_key */ row(c.a0)::text /*:*/, c.changed_at, 0, false, /*: origin */ null /*:*/
  from pg_temp."__change__" as c
 where c.present and not c.existed
    on conflict (feed, key) do update
   set version = l.version + 1, changed_at = excluded.changed_at, deleted = false, origin = excluded.origin;

-- name: note_staged
-- Behind insert_staged. $1: relation.
insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted, origin)
select /*: feed */ 0 /*:*/, /*: staged_key */ row((s.a).v0)::text /*:*/, s.changed_at, 0, false, /*: origin */ null /*:*/
  from (select changed_at, after::pg_temp."__image__" as a from pg_temp.replicator_stage where relation = $1 offset 0) as s
    on conflict (feed, key) do update
   set version = l.version + 1, changed_at = excluded.changed_at, deleted = false, origin = excluded.origin;

-- name: note_retried
-- Behind a parked change that was tried again: capture, which takes it for one of this database's own, has stamped it anew.
insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted, origin)
select /*: feed */ 0 /*:*/, case when c.present then /*: new_key */ row(c.a0)::text /*:*/ else /*: old_key */ row(c.k0)::text /*:*/ end,
       c.changed_at, 0, not c.present, /*: origin */ null /*:*/
  from pg_temp."__change__" as c
    on conflict (feed, key) do update
   set changed_at = excluded.changed_at, deleted = excluded.deleted, origin = excluded.origin;
