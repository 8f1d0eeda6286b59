-- Apply on a PostgreSQL target. One batch = one transaction:
--   stage (the batch's raw material) → change (net per row, typed) → the user's table.
-- Templates are rendered once per relation: c = change, t = the target table, v* / b* / a* = staged, before and after
-- values by place. The comparison with the base stands inside each applying statement, so that a row that moves
-- meanwhile is re-checked by the database (EvalPlanQual) and not overwritten.

-- name: create_stage
-- The batch as it came, images still as record literals. Kept per session, emptied at commit.
create temp table if not exists replicator_stage (
    ord bigint, relation integer, op "char", changed_at bigint, before text, after text, base text
) on commit delete rows;

-- name: create_decision
-- What is decided about a change of the span; conflict = its number on record, where it goes on record. ``before``: what the
-- ledger knew of the base.
create temp table if not exists replicator_decision (
    relation integer, ord bigint, verdict text, conflict bigint, kind text, policy text, reason text, before json, result json,
    based boolean, current_origin text, current_at bigint, clock_error_us bigint, unsure boolean
) on commit delete rows;

-- name: create_found
-- The conflicts of the span as they were found: images as texts, so that they are not sent back to be put on record.
create temp table if not exists replicator_found (
    relation integer, ord bigint, existed boolean, present boolean, changed_at bigint, key text, found boolean, before text[],
    stored text, after text[], current text[], current_at bigint, current_origin text, gone boolean, answer text,
    untouched boolean
) on commit delete rows;

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
-- Net change per row of the span: existed = the source had the row before, present = it has it after. Without before
-- images: base = checksum of what it had, image = the row itself where that is known.
create temp table "__change__" (
    ord bigint, existed boolean, present boolean, changed_at bigint, base bigint, image text,
    /*: columns */ k0 text, b0 text, a0 text /*:*/
);

-- name: create_base
-- Row type of the images on record in the ledger: the columns that are replicated, in staging types.
create temp table "__base__" (/*: columns */ v0 text /*:*/);

-- name: copy_stage
copy pg_temp.replicator_stage (ord, relation, op, changed_at, before, after) from stdin;

-- name: copy_states
-- From a centre the fifth column is a checksum for sites that keep no images; it is not needed here.
copy pg_temp.replicator_stage (ord, relation, op, changed_at, base, after) from stdin;

-- name: copy_rows
copy pg_temp."__rows__" (ord, op, changed_at, /*: columns */ v0 /*:*/) from stdin;

-- name: copy_change
copy pg_temp."__change__" (ord, existed, present, changed_at, /*: columns */ k0, b0, a0 /*:*/) from stdin;

-- name: copy_straight
-- Into the target itself, for a relation the batch only inserts into; refused as a whole when a row is there.
copy "__schema__"."__table__" (/*: columns */ v0 /*:*/) from stdin;

-- name: takes_copy
-- $1: schema, $2: table. Whether COPY does what INSERT does: no view, no rule, no row security.
select c.relkind in ('r', 'p') and not row_security_active(c.oid) and not exists (select from pg_rewrite w where w.ev_class = c.oid)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = $1 and c.relname = $2;

-- name: stage_extent
-- One pass over the text lane, per relation: first and last ordinal, count, newest change, and whether it holds nothing
-- but inserts, nothing but deletes, a barrier. Rows of a backfill (from $1 on) by themselves.
select ord >= $1, relation, min(ord), max(ord), count(*), max(changed_at), bool_and(op = 'i'), bool_and(op = 'd'),
       bool_or(op in ('k', 't'))
  from pg_temp.replicator_stage
 group by 1, 2;

-- name: rows_extent
select ord >= $1, min(ord), max(ord), count(*), max(changed_at) from pg_temp."__rows__" group by 1;

-- name: barrier_spans
-- Cuts the text lane where a barrier starts or ends: neighbouring TRUNCATEs stand together (a cascade truncates parent and
-- children), and so do neighbouring key updates of one relation.
-- $1, $2: relations that are versions of one table, and a number for that table: a span holds one version of each. Only
-- ordinals below $3.
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
                 where ord < $3
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
insert into pg_temp."__change__" (ord, existed, present, changed_at, base, image, /*: columns */ k0, b0, a0 /*:*/)
select s.ord, coalesce(not l.deleted, false), s.op = 's', s.changed_at, l.checksum, l.image, /*: values */ (s.a).v0, (s.a).v0, (s.a).v0 /*:*/
  from (select ord, op, changed_at, after::pg_temp."__image__" as a
          from pg_temp.replicator_stage
         where relation = $1 and ord between $2 and $3
        offset 0) as s
  left join lateral (
      select deleted, checksum, image from replicator.ledger
       where feed = $4 and key = (row(/*: key */ (s.a).v0 /*:*/)::text) limit 1
  ) as l on true;

-- name: load_new_states
-- Text lane of a link from the centre → change: what the rows are; what they were does not matter.
insert into pg_temp."__change__" (ord, existed, present, changed_at, /*: columns */ k0, b0, a0 /*:*/)
select s.ord, false, s.op = 's', s.changed_at, /*: values */ (s.a).v0, (s.a).v0, (s.a).v0 /*:*/
  from (select ord, op, changed_at, after::pg_temp."__image__" as a
          from pg_temp.replicator_stage
         where relation = $1 and ord between $2 and $3
        offset 0) as s;

-- name: load_rows
-- Typed lane → change; the base comes from the ledger. The lateral limit probes the ledger's index row by row: a join is
-- quadratic (every staged row against all of the link's) until the ledger has been analysed.
insert into pg_temp."__change__" (ord, existed, present, changed_at, base, image, /*: columns */ k0, b0, a0 /*:*/)
select s.ord, coalesce(not l.deleted, false), s.op = 's', s.changed_at, l.checksum, l.image, /*: values */ s.v0, s.v0, s.v0 /*:*/
  from pg_temp."__rows__" as s
  left join lateral (
      select deleted, checksum, image from replicator.ledger
       where feed = $3 and key = (row(/*: key */ s.v0 /*:*/)::text) limit 1
  ) as l on true
 where s.ord between $1 and $2;

-- name: load_new_rows
-- Typed lane → change while the ledger has nothing of this table yet: the site is new, no row was there before.
insert into pg_temp."__change__" (ord, existed, present, changed_at, /*: columns */ k0, b0, a0 /*:*/)
select s.ord, false, s.op in ('i', 's'), s.changed_at, /*: values */ s.v0, s.v0, s.v0 /*:*/
  from pg_temp."__rows__" as s
 where s.ord between $1 and $2;

-- name: load_loaded
-- Text lane, rows of a backfill → change: what the source has now, whatever it had before. $1: relation, $2, $3: low, high.
insert into pg_temp."__change__" (ord, existed, present, changed_at, /*: columns */ k0, b0, a0 /*:*/)
select s.ord, false, s.op in ('i', 's'), s.changed_at, /*: values */ (s.a).v0, (s.a).v0, (s.a).v0 /*:*/
  from (select ord, op, changed_at, coalesce(after, before)::pg_temp."__image__" as a
          from pg_temp.replicator_stage
         where relation = $1 and ord between $2 and $3
        offset 0) as s;

-- name: touched_text
-- Keys that the changes of a text lane touch. $1: where the rows of a backfill begin.
select row(/*: keys */ (k.v).v0 /*:*/)::text
  from (select i.image::pg_temp."__text__" as v
          from pg_temp.replicator_stage, lateral (values (before), (after)) as i (image)
         where relation = /*: relation */ 1 /*:*/ and ord < $1 and op <> 't' and i.image is not null offset 0) as k

-- name: touched_rows
-- The same of a typed lane.
select row(/*: keys */ v0::text /*:*/)::text from pg_temp."__rows__" where ord < $1

-- name: pass_over_text
-- Rows of a backfill whose keys the batch's changes touch: the changes know better. $1: where they begin.
delete from pg_temp.replicator_stage as s
 using (select ord, row(/*: keys */ (k.v).v0 /*:*/)::text as key
          from (select ord, coalesce(after, before)::pg_temp."__text__" as v
                  from pg_temp.replicator_stage where relation = /*: relation */ 1 /*:*/ and ord >= $1 offset 0) as k) as l
 where s.ord = l.ord and s.relation = /*: relation */ 1 /*:*/ and l.key in (/*: touched */ select '' where $1 > 0 /*:*/);

-- name: pass_over_rows
-- The same of a typed lane.
delete from pg_temp."__rows__" as s
 where s.ord >= $1 and row(/*: keys */ s.v0::text /*:*/)::text in (/*: touched */ select '' where $1 > 0 /*:*/);

-- name: has_repeats
select exists (select from pg_temp."__change__" group by /*: key */ k0 /*:*/ having count(*) > 1);

-- name: net_first
-- A row changed more than once: its last change takes over what the first one found.
update pg_temp."__change__" as c
   set existed = f.existed, base = f.base, image = f.image, /*: set_before */ b0 = f.b0 /*:*/
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
-- A row that came and went is kept with what it came as: the target may have had it all along.
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
       set existed = f.existed, /*: set_before_or_came */ b0 = case when f.existed or c.present then f.b0 else f.a0 end /*:*/
      from chains as h join pg_temp."__change__" as f on f.ord = h.first
     where c.ord = h.last)
delete from pg_temp."__change__" as c
 using (select distinct s.ord from states as s
         where not exists (select from chains as h where h.last = s.ord)) as passed
 where c.ord = passed.ord;

-- name: net_nothing
-- Came and went inside the batch.
delete from pg_temp."__change__" where not existed and not present;

-- name: net_gone
-- The same with before images. Where the target has the row, it came to both before (install records rows that are there as
-- new ones), so it goes from what it came as.
with gone as (
    update pg_temp."__change__" as c set existed = true
      from "__schema__"."__table__" as t
     where not c.existed and not c.present and /*: same_row */ true /*:*/
 returning c.ord
)
delete from pg_temp."__change__" as c
 where not c.existed and not c.present and not exists (select from gone where gone.ord = c.ord);

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
 where c.existed and not c.present and /*: same_row */ true /*:*/ and /*: unchanged */ true /*:*/ /*: returning *//*:*/;

-- name: update_clean
update "__schema__"."__table__" as t
   set /*: set */ v0 = c.a0 /*:*/
  from pg_temp."__change__" as c
 where c.existed and c.present and /*: same_row */ true /*:*/ and /*: unchanged */ true /*:*/ /*: returning *//*:*/;

-- name: insert_clean
-- ON CONFLICT probes the key's index row by row: a plan with NOT EXISTS turns quadratic on a table that grows from empty.
insert into "__schema__"."__table__" (/*: columns */ v0 /*:*/) overriding system value
select /*: values */ c.a0 /*:*/
  from pg_temp."__change__" as c
 where c.present and not c.existed
    on conflict (/*: arbiter */ v0 /*:*/) do nothing /*: returning *//*:*/;

-- name: insert_loaded
-- As insert_clean, for rows of a backfill: one that is known to have been deleted here does not come back by itself.
insert into "__schema__"."__table__" (/*: columns */ v0 /*:*/) overriding system value
select /*: values */ c.a0 /*:*/
  from pg_temp."__change__" as c
 where c.present
   and not exists (select from replicator.ledger as l
                    where l.feed = /*: feed */ 0 /*:*/ and l.key = (/*: new_key */ row(c.a0)::text /*:*/) and l.deleted)
    on conflict (/*: arbiter */ v0 /*:*/) do nothing /*: returning *//*:*/;

-- name: insert_rows
-- The same straight from a typed lane, of every column or none. Parameters: low, high.
insert into "__schema__"."__table__" (/*: columns */ v0 /*:*/) overriding system value
select /*: typed */ s.v0 /*:*/
  from pg_temp."__rows__" as s
 where s.ord between $1 and $2 and /*: alive */ true /*:*/
    on conflict (/*: arbiter */ v0 /*:*/) do nothing /*: returning *//*:*/;

-- name: alive
not exists (select from replicator.ledger as l
             where l.feed = /*: feed */ 0 /*:*/ and l.key = (/*: new_key */ row(s.v0)::text /*:*/) and l.deleted)

-- name: count_same
-- Rows of a backfill in a typed lane that stand here as the source has them. Parameters: low, high.
select count(*)
  from pg_temp."__rows__" as s
  join "__schema__"."__table__" as t on /*: same_row */ true /*:*/
 where s.ord between $1 and $2 and record_image_eq(row(/*: current */ t.v0 /*:*/), row(/*: fitted */ s.v0 /*:*/));

-- name: copy_target
-- Rows of a backfill that are hoped to be new, straight into the table; refused as a whole when one is not.
copy "__schema__"."__table__" (/*: columns */ v0 /*:*/) from stdin;

-- name: drop_same
-- Rows of a backfill that stand here as the source has them, or are gone as there: nothing is to be done about them.
with same as (
    select c.ord from pg_temp."__change__" as c
      left join "__schema__"."__table__" as t on /*: same_row */ true /*:*/
     where case when c.present then record_image_eq(row(/*: current */ t.v0 /*:*/), row(/*: fitted */ c.a0 /*:*/))
                else not (/*: there */ t.v0 is not null /*:*/) end
)
delete from pg_temp."__change__" as c using same where c.ord = same.ord;

-- name: drop_same_believed
-- The same where the ledger keeps what the site believes. $1: feed.
with same as (
    select c.ord from pg_temp."__change__" as c
      left join "__schema__"."__table__" as t on /*: same_row */ true /*:*/
     where case when c.present then record_image_eq(row(/*: current */ t.v0 /*:*/), row(/*: fitted */ c.a0 /*:*/))
                else not (/*: there */ t.v0 is not null /*:*/) end
), dropped as (
    delete from pg_temp."__change__" as c using same where c.ord = same.ord returning c.*
)
insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted, image)
select $1, row(/*: key */ c.k0 /*:*/)::text, c.changed_at, hashtextextended(row(/*: after */ c.a0 /*:*/)::text, 0), not c.present,
       /*: image */ null /*:*/
  from dropped as c
    on conflict (feed, key) do update
   set version = l.version + 1, changed_at = excluded.changed_at, checksum = excluded.checksum, deleted = excluded.deleted,
       image = excluded.image;

-- name: insert_fresh
-- As insert_clean, for the hope that no row is there yet: quicker, and refused as a whole when one is.
insert into "__schema__"."__table__" (/*: columns */ v0 /*:*/) overriding system value
select /*: values */ c.a0 /*:*/ from pg_temp."__change__" as c where c.present and not c.existed;

-- name: insert_staged
-- The same straight from the stage, for a relation the batch only inserts into. Parameter: relation.
insert into "__schema__"."__table__" (/*: columns */ v0 /*:*/) overriding system value
select /*: staged */ (s.a).v0 /*:*/
  from (select after::pg_temp."__image__" as a from pg_temp.replicator_stage where relation = $1 offset 0) as s;

-- name: delete_decided
delete from "__schema__"."__table__" as t
 using pg_temp."__change__" as c
  join pg_temp.replicator_decision as d on d.relation = $1 and d.ord = c.ord and d.verdict in ('apply', 'merge')
 where not c.present and /*: same_row */ true /*:*/ /*: returning *//*:*/;

-- name: update_decided
update "__schema__"."__table__" as t
   set /*: set */ v0 = c.a0 /*:*/
  from pg_temp."__change__" as c
  join pg_temp.replicator_decision as d on d.relation = $1 and d.ord = c.ord and d.verdict in ('apply', 'merge')
 where c.present and /*: same_row */ true /*:*/ /*: returning *//*:*/;

-- name: insert_decided
insert into "__schema__"."__table__" (/*: columns */ v0 /*:*/) overriding system value
select /*: values */ c.a0 /*:*/
  from pg_temp."__change__" as c
  join pg_temp.replicator_decision as d on d.relation = $1 and d.ord = c.ord and d.verdict in ('apply', 'merge')
 where c.present
   and not exists (select from "__schema__"."__table__" as t where /*: same_row */ true /*:*/)
    on conflict (/*: arbiter */ v0 /*:*/) do nothing /*: returning *//*:*/;

-- name: delete_followed
delete from "__schema__"."__table__" as t
 using pg_temp."__change__" as c
 where c.existed and not c.present and /*: same_row */ true /*:*/ /*: returning *//*:*/;

-- name: update_followed
update "__schema__"."__table__" as t
   set /*: set */ v0 = c.a0 /*:*/
  from pg_temp."__change__" as c
 where c.existed and c.present and /*: same_row */ true /*:*/
   and not record_image_eq(row(/*: current */ t.v0 /*:*/), row(/*: fitted */ c.a0 /*:*/)) /*: returning *//*:*/;

-- name: insert_followed
-- Rows that somebody inserted since the look at the site's own changes are left alone: they are the site's own, and pending.
insert into "__schema__"."__table__" (/*: columns */ v0 /*:*/) overriding system value
select /*: values */ c.a0 /*:*/
  from pg_temp."__change__" as c
 where c.present and not c.existed
    on conflict (/*: arbiter */ v0 /*:*/) do nothing /*: returning *//*:*/;

-- name: truncate_site
-- A TRUNCATE at the source removes this site's rows, no others.
delete from "__schema__"."__table__" as t where /*: own_rows */ true /*:*/ /*: returning *//*:*/;

-- name: truncate_ledger
delete from replicator.ledger where feed = $1;

-- name: plan_anew
-- Trigger functions keep the plans of their first call in a session, made for as few rows as it had.
discard plans;

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
-- Where changes are captured from the log, the log has to say it.
select set_config('replicator.origin', $1, true), set_config('lock_timeout', '5s', true),
    case when exists (select from replicator.slot)
        then replicator.tell('replicator.origin', $1) end;
