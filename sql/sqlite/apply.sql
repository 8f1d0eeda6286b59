-- Apply on a SQLite target. One batch = one transaction:
--   stage (the batch's rows, values as the target will store them) → net (one row per changed row of a span, with the
--   verdict of the comparison) → the user's table.
-- Templates are rendered once per relation: s = stage, n = net, t = the target table, g = ledger; k*, b*, a* are key,
-- before and after values by place. The write lock is held from the comparison to the commit, so nobody moves a row in
-- between. Never OR REPLACE on a user's table: OR ABORT also overrides an ON CONFLICT REPLACE of the table's own.
-- function: replicator_checksum/-1
-- function: replicator_image/-1
-- function: replicator_value/3
-- function: replicator_row_key/-1

-- name: create_stage
-- Untyped columns keep every value as it is. Even ordinals are the batch's; a key update takes two: gone, and there.
-- ``loaded``: a row of a backfill's chunk.
create temp table if not exists replicator_stage (
    ord integer primary key, relation integer, op text, changed_at integer, "key" text,
    fault text, raw_before text, raw_after text, base_existed integer, base_checksum blob, base_image text,
    loaded integer not null default 0,
    /*: places */ k0, b0, a0 /*:*/
)

-- name: create_net
create temp table if not exists replicator_net (
    ord integer primary key, relation integer, "key" text, changed_at integer, existed integer, present integer,
    verdict text, found integer, place integer, base_checksum blob, base_image text, corrected integer,
    loaded integer not null default 0, unseen integer not null default 0,
    /*: places */ k0, b0, a0 /*:*/
)

-- name: create_net_index
create index if not exists temp.replicator_net_verdict on replicator_net (relation, verdict)

-- name: drop_stage
drop table if exists temp.replicator_stage

-- name: drop_net
drop table if exists temp.replicator_net

-- name: empty_stage
delete from replicator_stage

-- name: empty_net
delete from replicator_net

-- name: stage_state
-- One row as a key-mode source sends it: ordinal, op, time, values, key text. Key places repeat values.
insert into replicator_stage (/*: columns */ ord, relation, op, changed_at, k0, a0, "key" /*:*/)
values (/*: values */ ?1 * 2, 0, ?2, ?3, ?4, ?4, ?5 /*:*/)

-- name: stage_change
insert into replicator_stage (/*: columns */ ord, relation, op, changed_at, "key", fault, raw_before, raw_after, loaded /*:*/)
values (/*: values */ ?, ?, ?, ?, ?, ?, ?, ?, ? /*:*/)

-- name: pass_over
-- Rows of a chunk that changes of the same batch touch: the changes know better. The numbers: all versions of one table. No
-- json_each here: to SQLite that reads the file, and what has read the file is not given the write lock any more when somebody
-- else has written meanwhile.
delete from replicator_stage
where loaded and relation in (/*: numbers */ 0 /*:*/) and "key" in (
    select "key" from replicator_stage where not loaded and relation in (/*: numbers */ 0 /*:*/))

-- name: stage_base
-- What the site knows better than the ledger: how the row was when the centre wrote it last.
update replicator_stage set base_existed = ?2, base_checksum = ?3, base_image = ?4 where ord = ?1

-- name: keep_first_bases
-- Of several states of one row only the first follows the base.
update replicator_stage set base_existed = null where base_existed is not null
    and ord not in (select min(ord) from replicator_stage group by relation, "key")

-- name: stage_extent
select min(ord), max(ord), count(distinct ord / 2), coalesce(max(changed_at), 0) from replicator_stage

-- name: count_changes
select count(distinct ord / 2) from replicator_stage where not loaded

-- name: has_truncates
select exists (select 1 from replicator_stage where op = 't')

-- name: list_spans
-- Runs of changes and runs of TRUNCATEs, in turn; of one table a run holds one version. ?1: [relation, number of its table]
-- of each relation that is a version among others.
select min(ord), max(ord), count(distinct ord / 2) from (
    select ord, sum(cut) over (order by ord) as run from (
        select s.ord, (s.op = 't') is not lag(s.op = 't') over (order by s.ord)
            or (v.place is not null and lag(s.relation, 1, s.relation) over (partition by v.place order by s.ord) <> s.relation) as cut
        from replicator_stage as s
        left join (select json_extract(value, '$[0]') as number, json_extract(value, '$[1]') as place from json_each(?1)) as v
            on v.number = s.relation
    )
) group by run order by 1

-- name: halve
-- The last ordinal of the first half of a span; both parts of a key update stay together.
select max(ord / 2) * 2 + 1 from (
    select distinct ord / 2 * 2 as ord from replicator_stage where ord between ?1 and ?2 order by 1 limit ?3
)

-- name: first_fault
select ord, relation, "key", fault from replicator_stage where ord between ? and ? and fault is not null order by ord limit 1

-- name: span_relations
select distinct relation from replicator_stage where ord between ? and ? and op <> 't'

-- name: span_truncates
select ord, relation, changed_at from replicator_stage where ord between ? and ? and op = 't' order by ord

-- name: load_images
-- ``counts``: two sites that raise a counter alike have both raised it: that is no change that is there already.
-- A source with before images: what the first change found, what the last one left. A row that came and went may have been
-- there before (install notes again what a table has): where it stands here, the site removed the row it began with.
insert into replicator_net (ord, relation, "key", changed_at, existed, present, verdict, found, place, /*: places */ k0 /*:*/)
select l.ord, l.relation, l."key", l.changed_at, f.op in ('u', 'd') or l.op = 'd', l.op <> 'd',
    case
        when not (/*: found */ t."__key__" is not null /*:*/)
            then case when l.op = 'd' then 'there' when f.op in ('u', 'd') then 'update_missing' else 'insert' end
        when l.op <> 'd' and /*: same_after */ t."__column__" is l.a0 /*:*/
            and not (/*: counts */ 0 /*:*/ and f.op = 'u' and not (/*: same_before */ t."__column__" is f.b0 /*:*/)) then 'there'
        when f.op in ('u', 'd') and /*: same_before */ t."__column__" is f.b0 /*:*/
            then case when l.op = 'd' then 'delete' else 'update' end
        when f.op not in ('u', 'd') and l.op = 'd'
            then case when /*: same_first */ t."__column__" is f.a0 /*:*/ then 'delete' else 'delete_differs' end
        when f.op not in ('u', 'd') then 'insert_exists'
        when l.op = 'd' then 'delete_differs'
        else 'update_differs'
    end,
    /*: found */ t."__key__" is not null /*:*/, /*: place */ t.rowid /*:*/, /*: values */ l.k0 /*:*/
from (
    select min(ord) as first, max(ord) as last from replicator_stage
    where relation = ?1 and ord between ?2 and ?3 and op <> 't' and not loaded group by "key"
) as n
cross join replicator_stage as f on f.ord = n.first
cross join replicator_stage as l on l.ord = n.last
left join "__table__" as t on /*: same_key */ t."__key__" = l.k0 /*:*/
where f.op in ('u', 'd') or l.op <> 'd' or /*: found */ t."__key__" is not null /*:*/

-- name: load_states
-- A key-mode source: the ledger says what the site believed. A row gone that was never sent is nothing.
insert into replicator_net (ord, relation, "key", changed_at, existed, present, verdict, found, place, base_checksum,
    base_image, /*: places */ k0 /*:*/)
select l.ord, l.relation, l."key", l.changed_at, coalesce(f.base_existed, g.deleted is 0), l.op = 's',
    case
        when l.op = 'g' and not coalesce(f.base_existed, g.deleted is 0) then 'nothing'
        when not (/*: found */ t."__key__" is not null /*:*/)
            then case when l.op = 'g' then 'there' when coalesce(f.base_existed, g.deleted is 0) then 'update_missing' else 'insert' end
        when l.op = 's' and /*: same_after */ t."__column__" is l.a0 /*:*/
            and not (/*: counts */ 0 /*:*/ and coalesce(f.base_existed, g.deleted is 0)
                and case when f.base_existed is null then g.checksum else f.base_checksum end
                    <> /*: current_checksum */ replicator_checksum(t."__column__") /*:*/) then 'there'
        when not coalesce(f.base_existed, g.deleted is 0) then 'insert_exists'
        when case when f.base_existed is null then g.checksum else f.base_checksum end
                = /*: current_checksum */ replicator_checksum(t."__column__") /*:*/
            then case when l.op = 'g' then 'delete' else 'update' end
        when l.op = 'g' then 'delete_differs'
        else 'update_differs'
    end,
    /*: found */ t."__key__" is not null /*:*/, /*: place */ t.rowid /*:*/,
    case when f.base_existed is null then g.checksum else f.base_checksum end,
    case when f.base_existed is null then g.image else f.base_image end, /*: values */ l.k0 /*:*/
from (
    select min(ord) as first, max(ord) as last from replicator_stage
    where relation = ?1 and ord between ?2 and ?3 and not loaded group by "key"
) as n
cross join replicator_stage as f on f.ord = n.first
cross join replicator_stage as l on l.ord = n.last
left join replicator_ledger as g on g.link = ?4 and g.relation = ?5 and g."key" = l."key"
left join "__table__" as t on /*: same_key */ t."__key__" = l.k0 /*:*/
where l.op = 's' or coalesce(f.base_existed, g.deleted is 0) or /*: found */ t."__key__" is not null /*:*/

-- name: load_loaded
-- Rows of a backfill's chunk: nobody knows what the site believed before, whatever the ledger says. One that was asked for by
-- its key and is not at the source: whoever has it here is to be asked.
insert into replicator_net (ord, relation, "key", changed_at, existed, present, verdict, found, place, loaded, /*: places */ k0 /*:*/)
select l.ord, l.relation, l."key", l.changed_at, l.op in ('g', 'd'), l.op not in ('g', 'd'),
    case
        when not (/*: found */ t."__key__" is not null /*:*/) then case when l.op in ('g', 'd') then 'there' else 'insert' end
        when l.op in ('g', 'd') then 'delete_differs'
        when /*: same_after */ t."__column__" is l.a0 /*:*/ then 'there'
        else 'insert_exists'
    end,
    /*: found */ t."__key__" is not null /*:*/, /*: place */ t.rowid /*:*/, 1, /*: values */ l.k0 /*:*/
from replicator_stage as l
left join "__table__" as t on /*: same_key */ t."__key__" = l.k0 /*:*/
where l.relation = ?1 and l.ord between ?2 and ?3 and l.loaded

-- name: hold_deleted
-- Rows of a backfill that were here and have been deleted: a conflict. ?2: the table.
update replicator_net as n set verdict = 'update_missing'
where n.relation = ?1 and n.loaded and n.verdict = 'insert' and exists (
    select 1 from replicator_ledger as v
    where v.link = 0 and v.relation = ?2 and v."key" = /*: version_key */ n."key" /*:*/ and v.deleted)

-- name: count_verdicts
select relation, verdict, count(*) from replicator_net group by relation, verdict

-- name: apply_deletes
delete from "__table__" where /*: located */ rowid in (
    select place from replicator_net where relation = ?1 and verdict = ?2) /*:*/

-- name: located_by_rowid
-- The piece that finds the rows of a verdict in the target table.
"__rowid__" in (select n.place from replicator_net as n where n.relation = ?1 and n.verdict = ?2)

-- name: located_by_key
(/*: key */ "__key__" /*:*/) in (
    select /*: values */ n.k0 /*:*/ from replicator_net as n where n.relation = ?1 and n.verdict = ?2)

-- name: apply_updates
update or abort "__table__" as t set /*: sets */ "__column__" = n.a0 /*:*/
from replicator_net as n
where n.relation = ?1 and n.verdict = ?2 and /*: same_row */ t."__key__" = n.k0 /*:*/

-- name: apply_inserts
insert or abort into "__table__" (/*: columns */ "__column__" /*:*/)
select /*: values */ n.a0 /*:*/ from replicator_net as n
where n.relation = ?1 and n.verdict = ?2 order by /*: key */ n.k0 /*:*/

-- name: mark_vacated
-- Rows that give up a unique value in this span: another row of the span may take it, so they go first and come back.
update replicator_net as n set verdict = ?3
where n.relation = ?1 and n.verdict = ?2 and exists (
    select 1 from "__table__" as t where /*: same_row */ t."__key__" = n.k0 /*:*/ and (/*: moves */ t."__column__" is not n.a0 /*:*/)
)

-- name: keep_vacated
-- Whole rows, also the columns that are not replicated.
create temp table replicator_vacated as
select n.ord as replicator_ord, t.* from replicator_net as n cross join "__table__" as t on /*: same_row */ t."__key__" = n.k0 /*:*/
where n.relation = /*: relation */ 0 /*:*/ and n.verdict in ('vacated', 'won_vacated')

-- name: return_vacated
insert or abort into "__table__" (/*: columns */ "__column__" /*:*/)
select /*: values */ v."__column__" /*:*/
from "__vacated__" as v cross join replicator_net as n on n.ord = v."__ord__"
where n.relation = ?1 and n.verdict = ?2

-- name: drop_vacated
drop table if exists temp.replicator_vacated

-- name: truncate_site
delete from "__table__" where /*: mine */ 1 /*:*/

-- name: write_ledger
insert into replicator_ledger (link, relation, "key", changed_at, checksum, deleted, image)
select ?1, ?2, n."key", n.changed_at,
    case when n.present then /*: checksum */ replicator_checksum(n.a0) /*:*/ else zeroblob(0) end, not n.present,
    case when n.present then /*: image */ replicator_image(n.a0) /*:*/ end
from replicator_net as n
where n.relation = ?3 and n.verdict in (select value from json_each(?4)) and (n.corrected is null or n.verdict = 'kept')
on conflict (link, relation, "key") do update set version = version + 1, changed_at = excluded.changed_at,
    checksum = excluded.checksum, deleted = excluded.deleted, image = excluded.image
where checksum is not excluded.checksum or deleted is not excluded.deleted or image is not excluded.image

-- name: find_conflicts
-- A page (so the way by ord, not by verdict) of what is left over, with the row that stands there now, who wrote it last, and what the table's rule says.
-- ``untouched``: the site left the row as it had found it, or had not seen yet what became of it here.
select n.ord, n."key",
    case when n.verdict = 'update_missing' and v.deleted then 'update_deleted' else n.verdict end,
    n.changed_at, n.existed, n.present, n.found, n.base_image, v.changed_at, v.origin, /*: answer */ '' /*:*/,
    n.unseen or n.existed and n.present and /*: untouched */ n.base_checksum = replicator_checksum(n.a0) /*:*/, n.loaded,
    /*: values */ n.b0, n.a0, t."__column__" /*:*/
from replicator_net as n left join "__table__" as t on n.found and /*: same_row */ t."__key__" = n.k0 /*:*/
left join replicator_ledger as v on v.link = 0 and v.relation = ?5 and v."key" = /*: version_key */ n."key" /*:*/
where +n.relation = ?1 and n.ord > ?2 and +n.verdict in (select value from json_each(?3)) order by n.ord limit ?4

-- name: rule_answer
-- A user's rule over the three rows; all columns are NULL where there is no row.
(select /*: rule */ 'source' /*:*/ from (select /*: site */ null as "__column__" /*:*/) as site,
    (select /*: centre */ null as "__column__" /*:*/) as centre, (select /*: base */ null as "__column__" /*:*/) as base)

-- name: relations_in_conflict
select distinct relation from replicator_net where verdict in (select value from json_each(?))

-- name: net_change
select n.relation, n."key", n.changed_at, n.existed, n.present, /*: values */ n.b0, n.a0 /*:*/
from replicator_net as n where n.ord = ?

-- name: current_row
-- A net row's place in the table, as the table has it now; nothing where no row is.
select /*: values */ t."__column__" /*:*/ from replicator_net as n cross join "__table__" as t on /*: same_row */ t."__key__" = n.k0 /*:*/
where n.ord = ? and n.found

-- name: merge
-- Both sides in one row: it goes to the table as if the site had sent it.
update replicator_net set verdict = case when found then 'won_update' else 'won_insert' end, present = 1, corrected = 1,
    /*: sets */ a0 = ?2 /*:*/ where ord = ?1

-- name: keep
update replicator_net set verdict = 'kept', corrected = 1 where ord = ?

-- name: wait
-- For a person: until then what stands here stands at the site, too.
update replicator_net set verdict = 'parked', corrected = 1 where ord = ?

-- name: decide
update replicator_net set verdict = ?1 where ord = ?2

-- name: win
-- The source's change is to stand, whatever stands there now.
update replicator_net set verdict = case
    when present then case when found then 'won_update' else 'won_insert' end
    else case when found then 'won_delete' else 'there' end end
where ord = ?

-- name: orphaned
-- Foreign keys by hand (enforcement by SQLite is off, so that no action of a foreign key touches a third row): a row
-- that was written and whose parent is not there. Its key, then the values it refers by.
select /*: values */ t."__column__" /*:*/
from replicator_net as n cross join "__table__" as t on /*: same_key */ t."__key__" = n.k0 /*:*/
where n.relation = ?1 and n.present and n.verdict in (select value from json_each(?2))
    and /*: refers */ t."__column__" is not null /*:*/
    and not exists (select 1 from "__parent__" as p where /*: parent */ p."__column__" = t."__column__" /*:*/)
limit 1

-- name: bereaved
-- A row that was removed while another row still refers to it: that one's key, then the values it refers by.
select /*: values */ c."__column__" /*:*/
from replicator_net as n cross join "__child__" as c on /*: refers */ c."__column__" = n.k0 /*:*/
where n.relation = ?1 and n.verdict in (select value from json_each(?2))
    and not exists (select 1 from "__table__" as p where /*: parent */ p."__column__" = c."__column__" /*:*/)
limit 1

-- name: bereaved_anyhow
-- The same where the reference is not to the key: looks at all rows that refer.
select /*: values */ c."__column__" /*:*/
from "__child__" as c where /*: refers */ c."__column__" is not null /*:*/
    and not exists (select 1 from "__table__" as p where /*: parent */ p."__column__" = c."__column__" /*:*/)
limit 1

-- name: staged_at
select relation, op, changed_at, "key", fault, raw_before, raw_after, ord, /*: values */ b0, a0 /*:*/
from replicator_stage where ord = ?

-- name: staged_ordinals
select ord, relation from replicator_stage where ord between ? and ? order by ord

-- name: create_stage_index
-- Made when the first row is parked: few batches need it.
create index if not exists temp.replicator_stage_row on replicator_stage (relation, "key")

-- name: staged_behind
-- Staged changes of a row, behind an ordinal; ?1: the versions of its table.
select ord from replicator_stage
where relation in (select value from json_each(?1)) and "key" = ?2 and ord > ?3 order by ord

-- name: staged_waiting
-- Staged changes of rows that have parked ones; ?1: the versions of their table.
select s.ord from replicator_stage as s
where s.relation in (select value from json_each(?1)) and s.op <> 't' and s.ord > ?4
    and exists (select 1 from replicator_parked as p where p.link = ?2 and p.relation = ?3 and p."key" = s."key")
order by s.ord limit 500

-- name: keep_base
-- The base that came with a staged row, into the ledger.
insert into replicator_ledger (link, relation, "key", changed_at, checksum, deleted, image)
select ?1, ?2, "key", ?3, case when base_existed then base_checksum else zeroblob(0) end, not base_existed, base_image
from replicator_stage where ord = ?4 and base_existed is not null
on conflict (link, relation, "key") do update set version = version + 1, changed_at = excluded.changed_at,
    checksum = excluded.checksum, deleted = excluded.deleted, image = excluded.image

-- name: unstage
delete from replicator_stage where ord = ?
