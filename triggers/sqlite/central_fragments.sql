-- Pieces of the capture triggers of a centre's table. Origin '' says that nobody wrote this row: it is noted for what became
-- of another, or for where it was before, and every site it concerns is to look at it.

-- name: note
-- One touched row: its key and whom it concerns.
insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/, origin, route)
values (/*: relation */ 0 /*:*/, /*: op */ 'u' /*:*/, /*: hybrid_time */ 0 /*:*/, /*: key */ new."__key__" /*:*/,
        /*: origin */ null /*:*/, /*: route */ '' /*:*/)

-- name: note_victims
-- Inside a BEFORE trigger: the rows that share a unique value with the new row.
insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/, origin, route)
select /*: relation */ 0 /*:*/, 'd', /*: hybrid_time */ 0 /*:*/, /*: key */ x."__key__" /*:*/, '', /*: route */ '' /*:*/
from "__table__" as x where /*: victim */ x."__column__" = new."__column__" /*:*/

-- name: any_victim
exists (select 1 from "__table__" as x where /*: victim */ x."__column__" = new."__column__" /*:*/)

-- name: note_followers
-- Rows of another table that take their route from this one, at any depth: f0 follows f1, and so on up to this row.
insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/, origin, route)
select /*: relation */ 0 /*:*/, 'u', /*: hybrid_time */ 0 /*:*/, /*: key */ f0."__key__" /*:*/, '', /*: route */ '' /*:*/
from "__table__" as f0 /*: joins */, "__table__" as f1 /*:*/
where /*: follows */ f0."__column__" = old."__column__" /*:*/

-- name: route_value
-- NULL, or no parent: the row concerns every site.
coalesce('=' || /*: values */ cast(new."__column__" as text) /*:*/, '')

-- name: route_by_path
coalesce((select '=' || /*: values */ cast(p0."__column__" as text) /*:*/ from "__table__" as p0 /*: joins */ /*:*/
    where /*: follows */ p0."__column__" = new."__column__" /*:*/ limit 1), '')
