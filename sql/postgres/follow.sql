-- A PostgreSQL site that takes the centre's rows (DESIGN.md §6, the marker rule): first the rows are locked, then, in new
-- statements, rows with a change of the site's own beyond the marker are passed over, then all others become what the centre
-- has. c = change, t = the target table. "Own" are outbox rows beyond the marker ($: a pg_snapshot) that our own apply did
-- not write. Called by: engines/postgres/follow.py, own.py.

-- name: read_marker
-- The newer of the marker on record and the batch's. $1: link; $2: the batch's, or NULL.
select m.position
  from (select position from replicator.acknowledged where link = $1
         union all
        select $2::text where $2::text is not null) as m (position)
 order by pg_snapshot_xmax(m.position::pg_snapshot) desc, pg_snapshot_xmin(m.position::pg_snapshot) desc,
       (select count(*) from pg_snapshot_xip(m.position::pg_snapshot))
 limit 1;

-- name: read_stored
select position from replicator.acknowledged where link = $1;

-- name: record_marker
-- As an acknowledgement of the link from the centre: this site's outbox keeps everything beyond it.
insert into replicator.acknowledged (link, topology, position) values ($1, $2, $3)
    on conflict (link) do update set position = excluded.position, acknowledged_at = now(), expired_at = null;

-- name: lock_rows
-- Rows that are there, in the order of their keys; whoever has changed one is waited for.
with locked as materialized (
    select c.ord from "__schema__"."__table__" as t join pg_temp."__change__" as c on /*: same_row */ true /*:*/
     order by /*: key */ t.v0 /*:*/ for update of t
)
update pg_temp."__change__" as c set existed = true from locked where c.ord = locked.ord;

-- name: own_changes
-- Which of our relations have changes beyond the marker, and whether a TRUNCATE is among them.
select o.relation, bool_or(o.op = 't')
  from replicator.outbox as o
 where o.xid >= pg_snapshot_xmin($1::pg_snapshot) and not pg_visible_in_snapshot(o.xid, $1::pg_snapshot)
   and o.origin is distinct from $2
 group by o.relation;

-- name: own_versions
-- The versions of a table that this site captures.
select id, columns from replicator.relation where topology = $1 and table_schema = $2 and table_name = $3;

-- name: create_own
create temp table if not exists "__own__" (/*: columns */ v0 text /*:*/);

-- name: own_keys
-- $1: the marker; $2: our own apply's name; $3: relation.
select k.*
  from (select o.before::pg_temp."__own__" as b, o.after::pg_temp."__own__" as a
          from replicator.outbox as o
         where o.xid >= pg_snapshot_xmin($1::pg_snapshot) and not pg_visible_in_snapshot(o.xid, $1::pg_snapshot)
           and o.origin is distinct from $2 and o.relation = $3 and o.op <> 't' and /*: until */ true /*:*/
        offset 0) as s,
       lateral (values (/*: before */ (s.b).v0 /*:*/), (/*: after */ (s.a).v0 /*:*/)) as k (/*: keys */ k0 /*:*/)

-- name: own_named_keys
-- The same for changes captured by name.
select k.*
  from (select o.before::json as b, o.after::json as a
          from replicator.outbox as o
         where o.xid >= pg_snapshot_xmin($1::pg_snapshot) and not pg_visible_in_snapshot(o.xid, $1::pg_snapshot)
           and o.origin is distinct from $2 and o.relation = $3 and o.op <> 't' and /*: until */ true /*:*/
        offset 0) as s,
       lateral (values (/*: before */ s.b ->> 'v0' /*:*/), (/*: after */ s.a ->> 'v0' /*:*/)) as k (/*: keys */ k0 /*:*/)

-- name: drop_pending
-- Rows the centre has yet to hear about: it will answer.
delete from pg_temp."__change__" as c
 using (/*: own */ select '' as k0 where $1 <> $2 and $3 > 0 /*:*/) as p
 where /*: same_key */ c.k0 = p.k0::text /*:*/;

-- name: drop_superseded
-- Parked rows from before a change of the site's own that the centre has processed by now: what the row became stands here,
-- or comes in this batch. $1: the marker before; $2, $3: as above; $4: the marker now; $5: link; $6: table.
delete from replicator.parked as q
 using (/*: own */ select '' as k0 where $1 <> $2 and $3 > 0 and $4 <> '' /*:*/) as p
 where q.link = $5 and q.relation = $6 and q.key = row(/*: typed */ p.k0::text /*:*/)::text;

-- name: until_now
pg_visible_in_snapshot(o.xid, $4::pg_snapshot)

-- name: drop_superseded_all
delete from replicator.parked where link = $1 and relation = $2;

-- name: own_truncates
-- Whether a table was emptied between two markers. $1, $2: marker before, our own name; $3: relation; $4: the marker now.
select exists (
    select from replicator.outbox as o
     where o.xid >= pg_snapshot_xmin($1::pg_snapshot) and not pg_visible_in_snapshot(o.xid, $1::pg_snapshot)
       and o.origin is distinct from $2 and abs(o.relation) = $3 and o.op = 't' and pg_visible_in_snapshot(o.xid, $4::pg_snapshot));

-- name: count_new
select count(*) from pg_temp."__change__" as c where c.present and not c.existed;

-- name: find_left_out
-- Rows that are neither inserted nor in anybody's way.
select count(*)
  from pg_temp."__change__" as c
 where c.present and not c.existed and not exists (select from "__schema__"."__table__" as t where /*: same_row */ true /*:*/);
