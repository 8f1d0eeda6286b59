-- Apply on a PostgreSQL target. One batch = one transaction:
--   stage (the batch's raw material) → change (net per row, typed) → the user's table.
-- Templates are rendered once per relation: c = change, t = the target table, v* / b* / a* = staged, before and after
-- values by place. The comparison with the base stands inside each applying statement, so that a row that moves
-- meanwhile is re-checked by the database (EvalPlanQual) and not overwritten.

-- name: create_stage
-- The batch as it came, images still as record literals. Kept per session, emptied at commit.
create temp table if not exists replicator_stage (
    ord bigint, relation integer, op "char", changed_at bigint, before text, after text
) on commit delete rows;

-- name: create_decision
create temp table if not exists replicator_decision (relation integer, ord bigint, verdict text) on commit delete rows;

-- name: create_image
-- Row type of the relation's images in staging types: record literals are parsed by casting to it.
create temp table "__image__" (/*: columns */ v0 text /*:*/);

-- name: create_text
-- The same with every column as text: parsing never fails, whatever the values are.
create temp table "__text__" (/*: columns */ v0 text /*:*/);

-- name: create_rows
-- Rows of a source without record literals, copied in typed.
create temp table "__rows__" (ord bigint, op "char", changed_at bigint, /*: columns */ v0 text /*:*/);

-- name: create_change
-- Net change per row of the span: existed = the source had the row before, present = it has it after.
create temp table "__change__" (
    ord bigint, existed boolean, present boolean, changed_at bigint, base bigint, /*: columns */ k0 text, b0 text, a0 text /*:*/
);

-- name: copy_stage
copy pg_temp.replicator_stage (ord, relation, op, changed_at, before, after) from stdin;

-- name: copy_rows
copy pg_temp."__rows__" (ord, op, changed_at, /*: columns */ v0 /*:*/) from stdin;

-- name: stage_extent
-- One pass over the text lane, per relation: first and last ordinal, count, newest change, and whether it holds nothing
-- but inserts, nothing but deletes, a barrier.
select relation, min(ord), max(ord), count(*), max(changed_at), bool_and(op = 'i'), bool_and(op = 'd'), bool_or(op in ('k', 't'))
  from pg_temp.replicator_stage
 group by relation;

-- name: rows_extent
select min(ord), max(ord), count(*), coalesce(max(changed_at), 0) from pg_temp."__rows__";

-- name: barrier_spans
-- Cuts the text lane where a barrier starts or ends: neighbouring TRUNCATEs stand together (a cascade truncates parent and
-- children), and so do neighbouring key updates of one relation.
-- $1, $2: relations that are versions of one table, and a number for that table: a span holds one version of each.
select min(ord), max(ord), count(*)
  from (select ord, sum(cut) over (order by ord) as island
          from (select ord,
                       case when (op = 't') is distinct from (lag(op) over w = 't')
                              or (op = 'k') is distinct from (lag(op) over w = 'k')
                              or (op = 'k' and relation <> lag(relation) over w)
                              or (v.place is not null and relation <> lag(relation) over of_table)
                            then 1 else 0 end as cut
                  from pg_temp.replicator_stage
                  left join unnest($1::integer[], $2::integer[]) as v (number, place) on v.number = relation
                window w as (order by ord), of_table as (partition by v.place order by ord)) as marked) as islands
 group by island
 order by 1;

-- name: stage_ords
select ord from pg_temp.replicator_stage

-- name: rows_ords
select ord from pg_temp."__rows__"

-- name: halve
-- The last ordinal of the first half of a span, and that half's size; lanes: all ordinals of the batch.
select max(ord), count(*)
  from (select ord from (/*: lanes */ select ord from pg_temp.replicator_stage /*:*/) as lanes
         where ord between $1 and $2 order by ord limit $3) as half;

-- name: span_moves
-- Whether the span holds key updates (then it holds nothing else).
select exists (select from pg_temp.replicator_stage where op = 'k' and ord between $1 and $2);

-- name: span_relations
select distinct relation from pg_temp.replicator_stage where ord between $1 and $2 and op <> 't';

-- name: span_truncates
select relation, changed_at from pg_temp.replicator_stage where ord between $1 and $2 and op = 't' order by ord;

-- name: empty_change
truncate pg_temp."__change__";

-- name: empty_rows
truncate pg_temp."__rows__";

-- name: forget_rows
delete from pg_temp."__rows__";

-- name: forget_change
delete from pg_temp."__change__";

-- name: load_images
-- Text lane with before images → change.
insert into pg_temp."__change__" (ord, existed, present, changed_at, /*: columns */ k0, b0, a0 /*:*/)
select s.ord, s.op <> 'i', s.op <> 'd', s.changed_at, /*: values */ (s.b).v0, (s.b).v0, (s.a).v0 /*:*/
  from (select ord, op, changed_at, before::pg_temp."__image__" as b, after::pg_temp."__image__" as a
          from pg_temp.replicator_stage
         where relation = $1 and ord between $2 and $3 and op <> 't'
        offset 0) as s;

-- name: load_states
-- Text lane without before images (careful values of a key-mode source) → change; the base comes from the ledger.
insert into pg_temp."__change__" (ord, existed, present, changed_at, base, /*: columns */ k0, b0, a0 /*:*/)
select s.ord, coalesce(not l.deleted, false), s.op = 's', s.changed_at, l.checksum, /*: values */ (s.a).v0, (s.a).v0, (s.a).v0 /*:*/
  from (select ord, op, changed_at, after::pg_temp."__image__" as a
          from pg_temp.replicator_stage
         where relation = $1 and ord between $2 and $3
        offset 0) as s
  left join lateral (
      select deleted, checksum from replicator.ledger
       where feed = $4 and key = (row(/*: key */ (s.a).v0 /*:*/)::text) limit 1
  ) as l on true;

-- name: load_rows
-- Typed lane → change; the base comes from the ledger. The lateral limit probes the ledger's index row by row: a join is
-- quadratic (every staged row against all of the link's) until the ledger has been analysed.
insert into pg_temp."__change__" (ord, existed, present, changed_at, base, /*: columns */ k0, b0, a0 /*:*/)
select s.ord, coalesce(not l.deleted, false), s.op = 's', s.changed_at, l.checksum, /*: values */ s.v0, s.v0, s.v0 /*:*/
  from pg_temp."__rows__" as s
  left join lateral (
      select deleted, checksum from replicator.ledger
       where feed = $3 and key = (row(/*: key */ s.v0 /*:*/)::text) limit 1
  ) as l on true
 where s.ord between $1 and $2;

-- name: load_new_rows
-- Typed lane → change while the ledger has nothing of this table yet: the site is new, no row was there before.
insert into pg_temp."__change__" (ord, existed, present, changed_at, /*: columns */ k0, b0, a0 /*:*/)
select s.ord, false, s.op = 's', s.changed_at, /*: values */ s.v0, s.v0, s.v0 /*:*/
  from pg_temp."__rows__" as s
 where s.ord between $1 and $2;

-- name: has_repeats
select exists (select from pg_temp."__change__" group by /*: key */ k0 /*:*/ having count(*) > 1);

-- name: net_first
-- A row changed more than once: its last change takes over what the first one found.
update pg_temp."__change__" as c
   set existed = f.existed, base = f.base, /*: set_before */ b0 = f.b0 /*:*/
  from (select /*: key */ k0 /*:*/, min(ord) as first, max(ord) as last
          from pg_temp."__change__" group by /*: key_again */ k0 /*:*/ having count(*) > 1) as d
  join pg_temp."__change__" as f on f.ord = d.first
 where c.ord = d.last;

-- name: net_last
delete from pg_temp."__change__" as c
 using (select /*: key */ k0 /*:*/, max(ord) as last from pg_temp."__change__" group by /*: key_again */ k0 /*:*/) as d
 where /*: same_key */ c.k0 = d.k0 /*:*/ and c.ord < d.last;

-- name: net_images
-- The same where every change has both images: they form a chain from state to state, and its ends do not depend on the
-- order the changes were captured in. The state that is left once more than it is reached is what the first change found;
-- the one reached once more than it is left is what the last made of it. A chain that is closed ends where it began.
with states as (
    select c.ord, c.first, c.last, e.side, e.state
      from (select *, count(*) over same_key as times, min(ord) over same_key as first, max(ord) over same_key as last
              from pg_temp."__change__" window same_key as (partition by /*: key */ k0 /*:*/)) as c,
           lateral (values (1, case when c.existed then row(/*: before */ c.b0 /*:*/)::text end),
                           (-1, case when c.present then row(/*: after */ c.a0 /*:*/)::text end)) as e (side, state)
     where c.times > 1
), ends as (
    select first, last, sum(side) as balance,
           min(ord) filter (where side = 1) as leaves, max(ord) filter (where side = -1) as reaches
      from states group by first, last, state
), chains as materialized (
    select coalesce(min(leaves) filter (where balance > 0), first) as first,
           coalesce(max(reaches) filter (where balance < 0), last) as last
      from ends group by first, last
), kept as (
    update pg_temp."__change__" as c
       set existed = f.existed, /*: set_before */ b0 = f.b0 /*:*/
      from chains as h join pg_temp."__change__" as f on f.ord = h.first
     where c.ord = h.last)
delete from pg_temp."__change__" as c
 using (select distinct s.ord from states as s
         where not exists (select from chains as h where h.last = s.ord)) as passed
 where c.ord = passed.ord;

-- name: net_nothing
-- Came and went inside the batch.
delete from pg_temp."__change__" where not existed and not present;

-- name: count_change
select count(*) from pg_temp."__change__";

-- name: find_unfit
-- Values the target column would round or cut in silence.
select c.ord, /*: which */ '' /*:*/ from pg_temp."__change__" as c where c.present and (/*: unfit */ false /*:*/) limit 1;

-- name: read_cascades
-- Foreign keys by which a delete in the target table would remove or change rows that refer to it.
select cn.nspname, c.relname,
       array(select a.attname from unnest(k.conkey) with ordinality as u (number, place)
               join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.number order by u.place)::text[],
       array(select a.attname from unnest(k.confkey) with ordinality as u (number, place)
               join pg_attribute as a on a.attrelid = k.confrelid and a.attnum = u.number order by u.place)::text[]
  from pg_constraint as k
  join pg_class as c on c.oid = k.conrelid join pg_namespace as cn on cn.oid = c.relnamespace
  join pg_class as t on t.oid = k.confrelid join pg_namespace as n on n.oid = t.relnamespace
 where k.contype = 'f' and k.confdeltype in ('c', 'n', 'd') and k.conparentid = 0 and n.nspname = $1 and t.relname = $2
 order by 1, 2;

-- name: find_bereaved
-- A row that a cascade would take along, unless the span itself deletes it. Asked when the span's deletes of children are
-- through, so what is left was written by somebody else, or comes later in the batch.
select /*: child_name */ '' /*:*/
  from "__child_schema__"."__child__" as r
  join "__schema__"."__table__" as t on /*: refers */ true /*:*/
  join pg_temp."__change__" as c on /*: same_row */ true /*:*/
 where not c.present
   and not exists (select from pg_temp."__change__" as c where not c.present and (/*: goes_too */ false /*:*/))
 limit 1;

-- name: find_bereaved_by_truncate
select /*: child_name */ '' /*:*/
  from "__child_schema__"."__child__" as r
  join "__schema__"."__table__" as t on /*: refers */ true /*:*/
 where (/*: own_rows */ true /*:*/) and not (/*: own_child */ false /*:*/)
 limit 1;

-- name: delete_clean
delete from "__schema__"."__table__" as t
 using pg_temp."__change__" as c
 where c.existed and not c.present and /*: same_row */ true /*:*/ and /*: unchanged */ true /*:*/;

-- name: update_clean
update "__schema__"."__table__" as t
   set /*: set */ v0 = c.a0 /*:*/
  from pg_temp."__change__" as c
 where c.existed and c.present and /*: same_row */ true /*:*/ and /*: unchanged */ true /*:*/;

-- name: insert_clean
-- ON CONFLICT probes the key's index row by row: a plan with NOT EXISTS turns quadratic on a table that grows from empty.
insert into "__schema__"."__table__" (/*: columns */ v0 /*:*/) overriding system value
select /*: values */ c.a0 /*:*/
  from pg_temp."__change__" as c
 where c.present and not c.existed
    on conflict (/*: arbiter */ v0 /*:*/) do nothing;

-- name: insert_fresh
-- As insert_clean, for the hope that no row is there yet: quicker, and refused as a whole when one is.
insert into "__schema__"."__table__" (/*: columns */ v0 /*:*/) overriding system value
select /*: values */ c.a0 /*:*/ from pg_temp."__change__" as c where c.present and not c.existed;

-- name: insert_staged
-- The same straight from the stage, for a relation the batch only inserts into. Parameter: relation.
insert into "__schema__"."__table__" (/*: columns */ v0 /*:*/) overriding system value
select /*: staged */ (s.a).v0 /*:*/
  from (select after::pg_temp."__image__" as a from pg_temp.replicator_stage where relation = $1 offset 0) as s;

-- name: find_conflicts
-- What is neither applied nor already there. (A key update is also there when the row stands under its new key alone.)
select c.ord, c.existed, c.present, c.changed_at, row(/*: key */ c.k0 /*:*/)::text,
       /*: t_present */ t.v0 is not null /*:*/,
       case when /*: has_before */ c.existed /*:*/ then json_object(/*: names */ '{v0}'::text[] /*:*/, array[/*: before */ c.b0::text /*:*/]::text[]) end,
       case when c.present then json_object(/*: names */ '{v0}'::text[] /*:*/, array[/*: after */ c.a0::text /*:*/]::text[]) end,
       case when /*: t_present */ t.v0 is not null /*:*/ then json_object(/*: names */ '{v0}'::text[] /*:*/, array[/*: current */ t.v0::text /*:*/]::text[]) end
  from pg_temp."__change__" as c
  left join "__schema__"."__table__" as t on /*: same_row */ true /*:*/
 where case when c.present
            then not (/*: t_present */ t.v0 is not null /*:*/)
                 and not (/*: arrived */ false /*:*/)
                 or /*: t_present */ t.v0 is not null /*:*/ and not record_image_eq(row(/*: t_values */ t.v0 /*:*/), row(/*: c_after */ c.a0 /*:*/))
            else /*: t_present */ t.v0 is not null /*:*/ end;

-- name: add_conflicts
-- Records decided conflicts; arrays of one chunk.
insert into replicator.conflict (link, relation, key, kind, before, after, current, changed_at, policy, verdict, reason, position)
select $1, u.* , $2
  from unnest($3::text[], $4::text[], $5::text[], $6::json[], $7::json[], $8::json[], $9::bigint[], $10::text[], $11::text[], $12::text[]) as u;

-- name: add_decisions
insert into pg_temp.replicator_decision (relation, ord, verdict)
select * from unnest($1::integer[], $2::bigint[], $3::text[]);

-- name: delete_decided
delete from "__schema__"."__table__" as t
 using pg_temp."__change__" as c
  join pg_temp.replicator_decision as d on d.relation = $1 and d.ord = c.ord and d.verdict = 'apply'
 where not c.present and /*: same_row */ true /*:*/;

-- name: update_decided
update "__schema__"."__table__" as t
   set /*: set */ v0 = c.a0 /*:*/
  from pg_temp."__change__" as c
  join pg_temp.replicator_decision as d on d.relation = $1 and d.ord = c.ord and d.verdict = 'apply'
 where c.present and /*: same_row */ true /*:*/;

-- name: insert_decided
insert into "__schema__"."__table__" (/*: columns */ v0 /*:*/) overriding system value
select /*: values */ c.a0 /*:*/
  from pg_temp."__change__" as c
  join pg_temp.replicator_decision as d on d.relation = $1 and d.ord = c.ord and d.verdict = 'apply'
 where c.present
   and not exists (select from "__schema__"."__table__" as t where /*: same_row */ true /*:*/)
    on conflict (/*: arbiter */ v0 /*:*/) do nothing;

-- name: park_decided
insert into replicator.parked (link, relation, key, op, state, changed_at, columns, before, after, cause, position)
select $1, $2, row(/*: key */ c.k0 /*:*/)::text, case when c.present then case when c.existed then 'u'::"char" else 'i' end else 'd' end,
       'parked', c.changed_at, $3,
       case when c.existed then row(/*: before */ c.b0 /*:*/)::text end,
       case when c.present then row(/*: after */ c.a0 /*:*/)::text end, $4, $5
  from pg_temp."__change__" as c
  join pg_temp.replicator_decision as d on d.relation = $6 and d.ord = c.ord and d.verdict = 'park';

-- name: record_ledger_new
-- What the site now believes these rows to be; rows the ledger does not know yet.
insert into replicator.ledger (feed, key, changed_at, checksum, deleted)
select $1, row(/*: key */ c.k0 /*:*/)::text, c.changed_at, hashtextextended(row(/*: after */ c.a0 /*:*/)::text, 0), not c.present
  from pg_temp."__change__" as c
 where c.base is null
   and not exists (select from pg_temp.replicator_decision as d
                    where d.relation = $2 and d.ord = c.ord and d.verdict <> 'apply');

-- name: record_ledger_known
-- The same for rows it knows; ON CONFLICT probes the key's index, whatever the statistics say.
insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted)
select $1, row(/*: key */ c.k0 /*:*/)::text, c.changed_at, hashtextextended(row(/*: after */ c.a0 /*:*/)::text, 0), not c.present
  from pg_temp."__change__" as c
 where c.base is not null
   and not exists (select from pg_temp.replicator_decision as d
                    where d.relation = $2 and d.ord = c.ord and d.verdict <> 'apply')
    on conflict (feed, key) do update
   set version = l.version + 1, changed_at = excluded.changed_at, checksum = excluded.checksum, deleted = excluded.deleted;

-- name: truncate_site
-- A TRUNCATE at the source removes this site's rows, no others.
delete from "__schema__"."__table__" as t where /*: own_rows */ true /*:*/;

-- name: truncate_ledger
delete from replicator.ledger where feed = $1;

-- name: defer_constraints
set constraints all deferred;

-- name: check_constraints
set constraints all immediate;

-- name: analyze_target
-- After many rows: without statistics the next batch may be joined row by row against row. Needs ownership; without it
-- PostgreSQL warns, skips, and leaves it to autovacuum. Somebody's VACUUM is not waited for.
analyze (skip_locked) "__schema__"."__table__";

-- name: announce_origin
-- Capture on this database knows our apply by it; gone with the transaction, as is the time we wait for a lock: what we
-- hold meanwhile stands in the way of others, so the batch is rather rolled back and tried again.
select set_config('replicator.origin', $1, true), set_config('lock_timeout', '5s', true);
