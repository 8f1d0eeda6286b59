-- Conflicts on a PostgreSQL target, and what becomes of them; c = change, t = the target table, d = decision. A decision is
-- recorded in replicator.conflict, carried out in the user's table, and answered where the site gets changes too: a
-- correction is an outbox row for that site alone. Called by: engines/postgres/decisions.py, verdicts.py.

-- name: lock_rows
-- Before the look at them: what is decided on must still stand when the decision is carried out. Another link or an application
-- that writes one of the rows waits, or is waited for, and the look in a statement of its own sees what it wrote.
select count(*)
  from (select from "__schema__"."__table__" as t join pg_temp."__change__" as c on /*: same_row */ true /*:*/ for update of t) as locked;

-- name: find_conflicts
-- What is neither applied nor already there. (A key update is also there when the row stands under its new key alone.)
-- $1: the feed that has the rows' versions; $2: relation.
insert into pg_temp.replicator_found (
    relation, ord, existed, present, changed_at, key, found, before, stored, after, current, current_at, current_origin, gone,
    answer, untouched)
select $2::integer, c.ord, c.existed, c.present, c.changed_at, /*: key */ row(c.k0)::text /*:*/,
       /*: t_present */ t.v0 is not null /*:*/,
       case when /*: has_before */ c.existed /*:*/ then array[/*: before */ c.b0::text /*:*/]::text[] end,
       c.image,
       case when c.present then array[/*: after */ c.a0::text /*:*/]::text[] end,
       case when /*: t_present */ t.v0 is not null /*:*/ then array[/*: current */ t.v0::text /*:*/]::text[] end,
       v.changed_at, v.origin, coalesce(v.deleted, false), /*: answer */ '' /*:*/,
       coalesce(/*: untouched */ false /*:*/, false)
  from pg_temp."__change__" as c
  left join "__schema__"."__table__" as t on /*: same_row */ true /*:*/
  left join lateral (
      select changed_at, origin, deleted from replicator.ledger where feed = $1 and key = (/*: version */ row(c.k0)::text /*:*/) limit 1
  ) as v on true
 where case when c.present
            then not (/*: t_present */ t.v0 is not null /*:*/)
                 and not (/*: arrived */ false /*:*/)
                 or /*: t_present */ t.v0 is not null /*:*/ and not record_image_eq(row(/*: t_values */ t.v0 /*:*/), row(/*: c_after */ c.a0 /*:*/))
                 or /*: counted */ false /*:*/
            else /*: t_present */ t.v0 is not null /*:*/ end;

-- name: mark_in_flight
-- Rows of a backfill that somebody else wrote here, or a correction of which was left, behind what the site is known to have
-- applied before the chunk was read: it has not seen that. $1: relation of the change; $2: relation here; $3: what the link
-- to the site had acknowledged (a pg_snapshot; NULL: nothing); $4: origin of the site's changes; $5: route to it alone.
update pg_temp.replicator_found as f set untouched = true
 where f.relation = $1
   and exists (select from replicator.outbox as o
                where abs(o.relation) = $2
                  and ($3::text is null or o.xid >= pg_snapshot_xmin($3::pg_snapshot)
                                           and not pg_visible_in_snapshot(o.xid, $3::pg_snapshot))
                  and (o.key = f.key or o.relation < 0 or o.op = 'a') and o.origin is distinct from $4
                  and (not starts_with(o.route, '@') or o.route = $5));

-- name: forget_found
delete from pg_temp.replicator_found where relation = $1;

-- name: read_found
select ord, existed, present, changed_at, key, found, before, stored, after, current, current_at, current_origin, gone, answer,
       untouched
  from pg_temp.replicator_found where relation = $1;

-- name: read_skews
-- How far each site's clock is off, by its link to the centre: microseconds.
select site, abs(skew_us) from replicator.link where topology = $1 and direction = 'to_centre';

-- name: take_numbers
-- Numbers for so many conflicts.
select array_agg(nextval('replicator.conflict_id_seq')) from generate_series(1, $1);

-- name: copy_decisions
copy pg_temp.replicator_decision (
    relation, ord, verdict, conflict, kind, policy, reason, before, result, based, current_origin, current_at, clock_error_us,
    unsure) from stdin;

-- name: record_decided
-- Puts what was decided about a relation's conflicts on record. $1: link; $2: relation; $3: table; $4: columns.
insert into replicator.conflict (
    id, link, relation, key, kind, before, after, current, result, changed_at, policy, verdict, reason, based, current_origin,
    current_at, clock_error_us, unsure)
overriding system value
select d.conflict, $1, $3, f.key, d.kind, coalesce(d.before, json_object($4::text[], f.before)), json_object($4, f.after),
       json_object($4, f.current),
       case d.verdict when 'apply' then json_object($4, f.after) when 'merge' then d.result else json_object($4, f.current) end,
       f.changed_at, d.policy, d.verdict, d.reason, d.based, d.current_origin, d.current_at, d.clock_error_us, d.unsure
  from pg_temp.replicator_decision as d
  join pg_temp.replicator_found as f on f.relation = d.relation and f.ord = d.ord
 where d.relation = $2 and d.conflict is not null;

-- name: analyze_decisions
-- Without statistics many decisions are joined row by row against the whole span.
analyze pg_temp.replicator_decision (relation, ord, verdict);

-- name: merge_decided
-- The row that a merge makes takes the place of the site's; it is as new as the newer of the two. $1: relation.
update pg_temp."__change__" as c
   set present = true, changed_at = greatest(c.changed_at, f.current_at), /*: set */ a0 = m.v0::text /*:*/
  from pg_temp.replicator_decision as d join replicator.conflict as f on f.id = d.conflict,
       json_to_record(d.result) as m (/*: columns */ v0 text /*:*/)
 where d.relation = $1 and d.verdict = 'merge' and d.ord = c.ord;

-- name: park_decided
-- Decisions for a person: the change waits, and its conflict says so. $7: the number of a parked change that is being
-- tried again: the first keeps it.
with chosen as materialized (
    select coalesce(case when row_number() over (order by c.ord) = 1 then $7::bigint end, nextval('replicator.parked_id_seq')) as id, d.conflict, row(/*: key */ c.k0 /*:*/)::text as key,
           /*: op */ 'u'::"char" /*:*/ as op, c.changed_at, /*: before */ row(c.b0)::text /*:*/ as before, /*: after */ row(c.a0)::text /*:*/ as after
      from pg_temp."__change__" as c
      join pg_temp.replicator_decision as d on d.relation = $6 and d.ord = c.ord and d.verdict = 'park'
     order by c.ord
), waiting as (
    update replicator.conflict as f set state = 'waiting', parked = chosen.id from chosen where f.id = chosen.conflict
)
insert into replicator.parked (id, link, relation, key, op, state, changed_at, columns, before, after, cause, position)
overriding system value
select id, $1, $2, key, op, 'parked', changed_at, $3, before, after, $4, $5 from chosen;

-- name: record_ledger_new
-- What the site now believes these rows to be: what it made them itself, whatever was decided; rows the ledger does not
-- know yet. A change that waits has not been processed.
insert into replicator.ledger (feed, key, changed_at, checksum, deleted, image)
select $1, row(/*: key */ c.k0 /*:*/)::text, c.changed_at, hashtextextended(row(/*: after */ c.a0 /*:*/)::text, 0), not c.present,
       /*: image */ null /*:*/
  from pg_temp."__change__" as c
 where c.base is null
   and not exists (select from pg_temp.replicator_decision as d
                    where d.relation = $2 and d.ord = c.ord and d.verdict = 'park');

-- name: record_ledger_known
-- The same for rows it knows (of a backfill, for all); ON CONFLICT probes the key's index, whatever the statistics say.
insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted, image)
select $1, row(/*: key */ c.k0 /*:*/)::text, c.changed_at, hashtextextended(row(/*: after */ c.a0 /*:*/)::text, 0), not c.present,
       /*: image */ null /*:*/
  from pg_temp."__change__" as c
 where /*: known */ c.base is not null /*:*/
   and not exists (select from pg_temp.replicator_decision as d
                    where d.relation = $2 and d.ord = c.ord and d.verdict = 'park')
    on conflict (feed, key) do update
   set version = l.version + 1, changed_at = excluded.changed_at, checksum = excluded.checksum, deleted = excluded.deleted,
       image = excluded.image;

-- name: find_captured
-- The number under which this database captures a table of its own.
select id from replicator.relation
 where topology = $1 and table_schema = $2 and table_name = $3 and retired_at is null order by id desc limit 1;

-- name: add_corrections
-- The rows of changes that did not become what the site has (or wait: till then the row here stands), to this site alone. $1: relation here; $2: route; $3: relation
-- number of the change. Of a backfill all that was decided: nothing the site wrote keeps back what is on its way there.
insert into replicator.outbox (relation, op, changed_at, key, route)
select distinct $1::integer, 'u'::"char",
       (select greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, seen + 1) from replicator.clock), k.key, $2::text
  from pg_temp."__change__" as c
  join pg_temp.replicator_decision as d on d.relation = $3 and d.ord = c.ord and /*: which */ d.verdict <> 'apply' /*:*/,
       lateral (values (/*: old_key */ row(c.k0)::text /*:*/), (case when c.present then /*: new_key */ row(c.a0)::text /*:*/ end)) as k (key)
 where k.key is not null;

-- name: correct_there
-- Rows that are what the site made of them without this transaction having written them: nothing else tells the site that they
-- are not its own, or no more. $1: relation; $2: route.
insert into replicator.outbox (relation, op, changed_at, key, route)
select $1::integer, 'u'::"char",
       (select greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, seen + 1) from replicator.clock),
       /*: new_key */ row(c.a0)::text /*:*/, $2::text
  from pg_temp."__change__" as c
  join "__schema__"."__table__" as t on /*: same_row */ true /*:*/
 where c.present and record_image_eq(row(/*: t_values */ t.v0 /*:*/), row(/*: c_after */ c.a0 /*:*/))
   and (/*: new_key */ row(c.a0)::text /*:*/) <> all (array(
       select o.key from replicator.outbox as o where o.xid = pg_current_xact_id() and o.relation = $1));

-- name: return_strays
-- Rows that this transaction wrote, and rows that follow them, that the site does not read by their route: it is to look at
-- them. $1: the route to it alone; $2: its link from the centre.
insert into replicator.outbox (relation, op, changed_at, key, route)
select distinct o.relation, 'u'::"char", o.changed_at, o.key, $1::text
  from replicator.outbox as o
 where o.xid = pg_current_xact_id() and starts_with(o.route, '=')
   and o.route <> all (array(select json_array_elements_text(a.shares::json -> 'routes') from replicator.acknowledged as a where a.link = $2));

-- name: correct_nothing
-- Rows that came and went at the site, to it alone: what came for them meanwhile it has passed over. $1: relation; $2: route.
insert into replicator.outbox (relation, op, changed_at, key, route)
select $1::integer, 'u'::"char",
       (select greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, seen + 1) from replicator.clock),
       /*: old_key */ row(c.k0)::text /*:*/, $2::text
  from pg_temp."__change__" as c
 where not c.existed and not c.present
   and exists (select from "__schema__"."__table__" as t where /*: same_row */ true /*:*/);

-- name: correct_held
-- Rows with changes that this transaction has put behind one that waits for a person: till then the row here stands.
-- $1: relation; $2: route; $3: link; $4: table; $5: columns.
insert into replicator.outbox (relation, op, changed_at, key, route)
select distinct $1::integer, 'u'::"char",
       (select greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, seen + 1) from replicator.clock),
       /*: key */ row((s.a).v0)::text /*:*/, $2::text
  from (select i.image::pg_temp."__text__" as a
          from replicator.parked as p, lateral (values (p.before), (p.after)) as i (image)
         where p.link = $3 and p.relation = $4 and p.columns = $5::text[] and p.state = 'waiting' and p.parked_at = now()
           and i.image is not null
           and exists (select from replicator.parked as q
                         join replicator.conflict as f on f.parked = q.id and f.state = 'waiting'
                        where q.link = p.link and q.relation = p.relation and q.key = p.key
                          and hashtextextended(q.key, 0) = hashtextextended(p.key, 0))
        offset 0) as s;

-- name: add_correction
-- One row, to one site alone. $1: relation; $2: key; $3: route.
insert into replicator.outbox (relation, op, changed_at, key, route)
select $1, 'u', greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, seen + 1), $2, $3 from replicator.clock;

-- name: correct_all
-- All rows of the site's, to it alone. $1: relation; $2: route.
insert into replicator.outbox (relation, op, changed_at, key, route)
select $1::integer, 'u'::"char",
       (select greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, seen + 1) from replicator.clock),
       /*: key */ row(t.v0)::text /*:*/, $2::text
  from "__schema__"."__table__" as t where /*: own_rows */ true /*:*/;

-- name: add_marker
-- How far the site's own changes have been processed, in the place where they were. $1: position; $2: route; $3: rows this
-- transaction may have written to the outbox; $4, $5: lock and channel of the reader, who is told as capture tells him; $6: the
-- link from the centre; $7: topology. From its site's first change on, what the site is to be told waits for that link: in a
-- snapshot from before this transaction, which its own snapshot may show as over.
with waiting as (
    insert into replicator.acknowledged (link, topology, position)
    select $6, $7, oldest || ':' || oldest || ':' from (select pg_snapshot_xmin(pg_current_snapshot())::text) as running (oldest)
    on conflict (link) do nothing
), marker as (
    insert into replicator.outbox (relation, op, changed_at, key, route)
    select 0, 'm', greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, seen + 1), $1, $2 from replicator.clock
    returning seq
), tick as (
    insert into replicator.tick (seq, snapshot) select seq, pg_current_snapshot() from marker where seq % 8192 < $3
)
select case when not pg_try_advisory_xact_lock_shared($4)
                 and (current_setting('max_prepared_transactions') = '0' or current_setting('replicator.notify', true) = 'on')
            then pg_notify($5, '') end;
