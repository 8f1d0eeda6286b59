-- Pieces the capture triggers are put together from.

-- name: hybrid_time
-- Microseconds since 1970 (SQLite's clock has milliseconds), above all that was stamped or seen before.
-- One row of the outbox is always there; were it gone, the change would still be captured, without a time.
select max(
    cast((julianday('now') - 2440587.5) * 86400000000.0 as integer),
    (select changed_at + 1 from replicator_outbox order by seq desc limit 1),
    (select seen + 1 from replicator_control where only_row = 1)
)

-- name: note_victims
-- Inside a BEFORE trigger: the keys of the rows that share a unique value with the new row.
insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/)
select /*: relation */ 0 /*:*/, 'd', /*: hybrid_time */ 0 /*:*/, /*: victim_key */ x."__key__" /*:*/
from "__table__" as x where /*: victim */ x."__column__" = new."__column__" /*:*/

-- name: any_victim
exists (select 1 from "__table__" as x where /*: victim */ x."__column__" = new."__column__" /*:*/)
