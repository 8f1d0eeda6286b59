-- What is known of single rows and conflicts, and a person's word on them. t = the target table.
-- Called by: engines/postgres/settle.py.

-- name: list_conflicts
-- The newest decisions of a link, oldest of them first.
select * from (
    select f.id, f.relation, f.key, f.kind, f.before, f.after, f.current, f.changed_at, f.policy, f.verdict, f.reason,
           (extract(epoch from f.decided_at) * 1000000)::bigint, l.site, f.based, f.result, f.current_origin, f.current_at,
           f.clock_error_us, f.unsure, f.state, f.resolution, f.parked
      from replicator.conflict as f join replicator.link as l on l.id = f.link
     where f.link = $1 and ($2::bigint[] = '{}' or f.id = any ($2)) and ($3 = '' or f.relation = $3)
     order by f.id desc limit $4) as newest
 order by id;

-- name: take_conflict
select relation, key, after, result, parked from replicator.conflict where id = $1 and link = $2 for update;

-- name: settle_conflict
update replicator.conflict set state = 'resolved', resolution = $2, result = $3::json, resolved_at = clock_timestamp() where id = $1;

-- name: read_queue
-- The parked changes of the row that one of them belongs to.
select q.id
  from replicator.parked as p
  join replicator.parked as q on q.link = p.link and q.relation = p.relation and q.key = p.key
   and hashtextextended(q.key, 0) = hashtextextended(p.key, 0)
 where p.id = $1 and p.link = $2
 order by q.id;

-- name: impose_one
-- A change that is to be applied whatever stands there. $1: relation; $2: ordinal.
insert into pg_temp.replicator_decision (relation, ord, verdict) values ($1, $2, 'apply');

-- name: read_stamp
-- Hybrid time, as capture stamps.
select greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, seen + 1) from replicator.clock;

-- name: spell_key
-- A key as the table spells it, from texts.
select /*: key */ row($1::text)::text /*:*/;

-- name: read_row
select json_object(/*: names */ '{v0}'::text[] /*:*/, array[/*: values */ t.v0::text /*:*/]::text[])
  from "__schema__"."__table__" as t where /*: same_row */ true /*:*/;

-- name: parked_change
select relation, columns, after, sqlstate from replicator.parked where id = $1 and link = $2;

-- name: read_history
-- $1: link; $2: table; $3: the row's whole key; $4: the same as the site's feed and parked changes spell it.
select 'ledger', v.changed_at, coalesce(v.origin, ''), case when v.deleted then 'deleted' else 'written' end,
       null::text[], null::text, null::json, 'version ' || v.version
  from replicator.ledger as v join replicator.feed as f on f.id = v.feed
 where f.link = 0 and f.relation = $2 and v.key = $3
 union all
select 'ledger', v.changed_at, o.name, case when v.deleted then 'the site has no such row' else 'the site has the row' end,
       null, null, null, 'version ' || v.version || ' of what the site believes'
  from replicator.ledger as v join replicator.feed as f on f.id = v.feed join replicator.link as l on l.id = f.link,
       lateral (select l.topology || '/' || l.site as name) as o
 where f.link = $1 and f.relation = $2 and v.key = $4
 union all
select 'conflict', (extract(epoch from c.decided_at) * 1000000)::bigint, l.topology || '/' || l.site,
       c.kind || ': ' || c.verdict || case when c.state = 'decided' then '' else ', ' || c.state end,
       null, null, c.result, concat_ws('; ', c.policy || ': ' || c.reason, nullif(c.resolution, ''))
  from replicator.conflict as c join replicator.link as l on l.id = c.link
 where c.link = $1 and c.relation = $2 and hashtextextended(c.key, 0) in (hashtextextended($3, 0), hashtextextended($4, 0))
   and c.key in ($3, $4)
 union all
select 'parked', (extract(epoch from p.parked_at) * 1000000)::bigint, l.topology || '/' || l.site,
       p.state, p.columns, p.after, null, p.cause
  from replicator.parked as p join replicator.link as l on l.id = p.link
 where p.link = $1 and p.relation = $2 and hashtextextended(p.key, 0) = hashtextextended($4, 0) and p.key = $4
 order by 2;
