-- Bookkeeping of a link at a PostgreSQL target: lease, position, contact, parked changes.

-- name: ensure_link
insert into replicator.link (topology, site, direction) values ($1, $2, $3)
    on conflict (topology, site, direction) do nothing;

-- name: read_link
select id, position, source_identity from replicator.link where topology = $1 and site = $2 and direction = $3;

-- name: read_stamp
select stamp from replicator.link where id = $1;

-- name: read_identity
-- As in source.sql, but for the server, which may be another one day.
select coalesce((select concat_ws('/', database_id, epoch) from replicator.identity), '');

-- name: same_source
-- $1: our number for the link, $2: a database's name. Another site's link that is fed by it or a copy.
select o.site from replicator.link as l
  join replicator.link as o on o.topology = l.topology and o.direction = l.direction and o.site <> l.site
 where l.id = $1 and l.direction = 'to_centre' and strpos(o.source_identity, $2) > 0 order by 1 limit 1;

-- name: ensure_feed
insert into replicator.feed (link, relation) values ($1, $2) on conflict (link, relation) do nothing;

-- name: read_feed
-- The feed's number, and whether its ledger has anything.
select f.id, exists (select from replicator.ledger as l where l.feed = f.id)
  from replicator.feed as f where f.link = $1 and f.relation = $2;

-- name: take_lease
-- One replicator per link: a session lock, gone when the session is. The class number is 'repl' in ASCII.
select pg_try_advisory_lock(1919250540, $1);

-- name: release_lease
select pg_advisory_unlock_all();

-- name: lease_holder
select a.pid, coalesce(a.application_name, ''), coalesce(host(a.client_addr), 'local')
  from pg_locks as l join pg_stat_activity as a on a.pid = l.pid
 where l.locktype = 'advisory' and l.classid = 1919250540 and l.objid = $1 and l.granted
   and l.database = (select oid from pg_database where datname = current_database());

-- name: record_batch
update replicator.link
   set position = $1, stamp = $8, recorded_at = clock_timestamp(), changes = changes + $2, conflicts = conflicts + $3,
       parked = parked + $4, newest_changed_at = greatest(newest_changed_at, $5)
 where id = $6 and position is not distinct from $7;

-- name: record_clock
-- Hybrid time: what this database writes from now on counts as later than what it has just seen.
update replicator.clock set seen = $1 where seen < $1;

-- name: record_contact
update replicator.link
   set source_identity = $1, contact_at = clock_timestamp(), skew_us = $2
 where id = $3 and source_identity in ('', $1, $4);

-- name: list_links
select topology, site, direction, position, source_identity,
       coalesce((extract(epoch from greatest(recorded_at, contact_at)) * 1000000)::bigint, 0),
       changes, conflicts, (select count(*) from replicator.parked as p where p.link = l.id), skew_us, newest_changed_at
  from replicator.link as l
 where topology = $1
 order by site, direction;

-- name: read_clock
select (extract(epoch from clock_timestamp()) * 1000000)::bigint;

-- name: parked_relations
select distinct relation from replicator.parked where link = $1;

-- name: hold_stage
-- Changes of rows that have parked changes wait behind them (text lane). $6: only those behind this ordinal; $7: only
-- those ahead of this one (a TRUNCATE, which ends the queues of its table); $8: only those whose image has this in it.
-- A key update that waits takes the changes under its new key into its row's queue.
with parked as materialized (
    select distinct key from replicator.parked where link = $2 and relation = $3
), moved as materialized (
    select p.key as queue, row(/*: parked_key */ (p.a).v0 /*:*/)::text as key
      from (select key, cast(case when columns = $4::text[] then after end as pg_temp."__text__") as a
              from replicator.parked where link = $2 and relation = $3 and op = 'k' offset 0) as p
), images as materialized (
    select ord, row(/*: key */ (k).v0 /*:*/)::text as old_key, row(/*: after_key */ (a).v0 /*:*/)::text as new_key
      from (select ord, coalesce(before, after)::pg_temp."__text__" as k, after::pg_temp."__text__" as a
              from pg_temp.replicator_stage
             where relation = $1 and op <> 't' and ord > $6 and ord < $7 and strpos(concat(before, after), $8) > 0
            offset 0) as staged
), found as (
    select i.ord, p.key as queue from images as i join parked as p on p.key = i.old_key
     union all
    select i.ord, p.key from images as i join parked as p on p.key = i.new_key
     union all
    select i.ord, m.queue from images as i join moved as m on m.key = i.old_key
     union all
    select i.ord, m.queue from images as i join moved as m on m.key = i.new_key
), held as (
    delete from pg_temp.replicator_stage as s
     using (select ord, min(queue) as queue from found group by ord) as q
     where s.ord = q.ord and s.relation = $1
 returning s.ord, s.op, s.changed_at, s.before, s.after, q.queue
)
insert into replicator.parked (link, relation, key, op, state, changed_at, columns, before, after, cause, position, attempts)
select $2, $3, queue, op, 'waiting', changed_at, $4, before, after, 'waits behind an earlier parked change of this row', $5, 0
  from held order by ord;

-- name: hold_rows
-- The same for the typed lane. $5: only those behind this ordinal.
with held as (
    delete from pg_temp."__rows__" as s
     where s.ord > $5
       and exists (select from replicator.parked as p where p.link = $1 and p.relation = $2
                      and hashtextextended(p.key, 0) = hashtextextended(row(/*: key */ s.v0 /*:*/)::text, 0)
                      and p.key = row(/*: key */ s.v0 /*:*/)::text)
 returning s.*)
insert into replicator.parked (link, relation, key, op, state, changed_at, columns, after, cause, position, attempts)
select $1, $2, row(/*: held_key */ v0 /*:*/)::text, op, 'waiting', changed_at, $3, row(/*: values */ v0 /*:*/)::text,
       'waits behind an earlier parked change of this row', $4, 0
  from held order by ord;

-- name: add_parked
insert into replicator.parked (link, relation, key, op, state, changed_at, columns, before, after, sqlstate, cause, position, attempts)
values ($1, $2, $3, $4, 'parked', $5, $6, $7, $8, $9, $10, $11, $12);

-- name: next_truncate
-- The first TRUNCATE of these relations behind an ordinal, if there is one.
select min(ord) from pg_temp.replicator_stage where op = 't' and relation = any ($1) and ord > $2;

-- name: staged_change
-- The one change of a single span, from the text lane. Ordinals have gaps, so a span's ends need not be changes.
select s.ord, s.relation, s.op, s.changed_at, s.before, s.after
  from pg_temp.replicator_stage as s where s.ord between $1 and $2 order by s.ord limit 1;

-- name: staged_row
-- The same from a typed lane, as a record literal.
select s.ord, s.op, s.changed_at, row(/*: values */ s.v0 /*:*/)::text
  from pg_temp."__rows__" as s where s.ord between $1 and $2 order by s.ord limit 1;

-- name: list_parked
-- The newest so many ($4, 0: all), oldest of them first.
-- What waited becomes the first of its row when the one before it is gone. The last column: the conflict that its row's queue
-- waits with for a person.
select * from (
select p.id, l.site, p.relation, p.key, p.op,
       case when p.key = '' or not exists (select from replicator.parked as q
             where q.link = p.link and q.relation = p.relation and hashtextextended(q.key, 0) = hashtextextended(p.key, 0)
               and q.key = p.key and q.id < p.id)
            then 'parked' else p.state end,
       p.columns, p.before, p.after, p.sqlstate, p.cause,
       (extract(epoch from p.parked_at) * 1000000)::bigint, p.attempts, p.changed_at,
       coalesce((select min(f.id) from replicator.conflict as f join replicator.parked as q on q.id = f.parked
                  where f.state = 'waiting' and q.link = p.link and q.relation = p.relation and q.key = p.key), 0)
  from replicator.parked as p join replicator.link as l on l.id = p.link
 where p.link = $1 and ($2::bigint[] = '{}' or p.id = any ($2)) and ($3 = '' or p.relation = $3)
 order by p.id desc limit nullif($4::bigint, 0)) as newest order by 1;

-- name: take_parked
-- The last column: the first parked change of the same row.
delete from replicator.parked as p where id = any ($1::bigint[]) and link = $2
returning id, relation, key, op, changed_at, columns, before, after, attempts, state, sqlstate, cause, parked_at,
          (select min(q.id) from replicator.parked as q
            where q.link = p.link and q.relation = p.relation and hashtextextended(q.key, 0) = hashtextextended(p.key, 0)
              and q.key = p.key and p.key <> '');

-- name: stage_parked
insert into pg_temp.replicator_stage (ord, relation, op, changed_at, before, after) values ($1, $2, $3, $4, $5, $6);

-- name: restore_parked
-- Puts a change back under its old number, so that it keeps its place in its row's queue.
insert into replicator.parked (
    id, link, relation, key, op, changed_at, columns, before, after, sqlstate, cause, position, attempts, state, parked_at)
overriding system value
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- name: wait_no_more
-- Conflicts whose parked changes ($1) are tried again, or dropped: $2.
update replicator.conflict set state = 'resolved', resolution = $2, resolved_at = clock_timestamp()
 where state = 'waiting' and parked = any ($1::bigint[]);

-- name: wait_again
-- The trial was for nothing.
update replicator.conflict set state = 'waiting', resolution = '', resolved_at = null
 where state = 'resolved' and resolution = 'tried again' and parked = any ($1::bigint[]) and resolved_at >= now();

-- name: count_held
-- Tables of a link that have more changes parked than $2 for a cause of their own, by code and cause.
select sqlstate, max(cause), count(*) from replicator.parked
 where link = $1 and sqlstate in ('held', 'unkeyed') group by relation, sqlstate having count(*) > $2;

-- name: list_queues
-- Parked changes by row, oldest row first, that may have become possible: a constraint was in the way, or later changes of
-- the row may have mended it, or its table was held and is no more ($3: those that are). What waits for a person's decision is
-- left to that person, and so is what cannot find its row.
select array_agg(p.id order by p.id)
  from replicator.parked as p
 where p.link = $1 and p.key <> '' and p.relation <> all ($3::text[])
 group by p.relation, p.key
having ((array_agg(p.sqlstate order by p.id))[1] like '23%' or (array_agg(p.sqlstate order by p.id))[1] in ('', 'held')
    or (count(*) > 1 and (array_agg(p.sqlstate order by p.id))[1] <> 'unkeyed'))
   and not exists (select from replicator.conflict as f where f.state = 'waiting' and f.parked = any (array_agg(p.id)))
 order by min(p.id)
 limit $2;

-- name: add_skipped
insert into replicator.conflict (link, relation, key, kind, before, after, changed_at, policy, verdict, reason, position)
values ($1, $2, $3, 'parked', $4, $5, $6, 'manual', 'keep', $7, $8);

-- name: truncate_parked
-- A TRUNCATE overtakes the parked changes of its table: applied later, they would bring rows back.
with overtaken as (
    delete from replicator.parked where link = $1 and relation = $2 returning *
), decided as (
    update replicator.conflict as f set state = 'resolved', resolution = 'overtaken by a TRUNCATE', resolved_at = clock_timestamp()
      from overtaken as o where f.state = 'waiting' and f.parked = o.id
)
insert into replicator.conflict (link, relation, key, kind, changed_at, policy, verdict, reason)
select link, relation, key, 'parked', changed_at, 'manual', 'keep', 'overtaken by a TRUNCATE of the table; was: ' || cause
  from overtaken;
