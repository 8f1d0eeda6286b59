-- Reading a site's outbox and tables. Run by replicator/engines/sqlite/source.py and reading.py, always in short
-- transactions that end before anything is sent.

-- name: read_place
-- Where the link stands (its acknowledged position and nonce, if any), and where the outbox ends.
select a.position, a.nonce, (select epoch from replicator_identity where only_row = 1) as epoch,
    (select max(seq) from replicator_outbox) as top
from (select 1) left join replicator_acknowledged a on a.link = ?

-- name: read_stamp
select changed_at from replicator_outbox where seq = ?

-- name: read_top
select max(seq) from replicator_outbox

-- name: list_relations
select id, table_name, "key", fingerprint, columns from replicator_relation where topology = ? and retired_at is null

-- name: first_read_all
-- The next order to read all rows of a table, if one lies in this stretch of the outbox.
select seq, relation, changed_at from replicator_outbox where seq > ? and seq <= ? and op = 'a' order by seq limit 1

-- name: relations_between
select distinct relation from replicator_outbox where seq > ? and seq <= ?

-- name: read_changed
-- The rows named in a stretch of the outbox, as they are now; op g: not there (or not wanted by the filter), s: there,
-- o: there with a value that does not fit its target column. A row that is there comes where it was touched first, one
-- that is gone where it was touched last: parents come before their children, and go after them.
-- Names of the inner query are ours, so that the table's own columns can be spelled without a prefix.
select case when /*: present */ m."__column__" is not null /*:*/ then c.replicator_first else c.replicator_last end + ?4,
    case when /*: present */ m."__column__" is not null /*:*/
        then case when /*: fits */ 1 /*:*/ then 's' else 'o' end else 'g' end,
    c.replicator_changed_at,
    /*: values */ m."__column__" /*:*/
from (
    select min(seq) as replicator_first, max(seq) as replicator_last,
        coalesce(max(changed_at), 0) as replicator_changed_at, /*: places */ k0 as replicator_k0 /*:*/
    from replicator_outbox where seq > ?1 and seq <= ?2 and relation = ?3 and op <> 'a'
    group by /*: distinct */ k0 /*:*/
) as c left join "__table__" as m on /*: same_row */ m."__column__" = c.replicator_k0 /*:*/

-- name: page_end
-- The last row of the next page when all rows of a table are read.
select /*: order */ m."__column__" /*:*/ from "__table__" as m
where /*: behind */ 1 /*:*/ order by /*: order */ m."__column__" /*:*/ limit 1 offset ?

-- name: read_page
select ?1 + row_number() over (), case when /*: fits */ 1 /*:*/ then 's' else 'o' end, ?2,
    /*: values */ m."__column__" /*:*/
from "__table__" as m where /*: between */ 1 /*:*/

-- name: acknowledge
insert into replicator_acknowledged (link, topology, position, nonce, acknowledged_at)
values (?1, ?2, ?3, lower(hex(randomblob(6))), strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
on conflict (link) do update set position = excluded.position, nonce = excluded.nonce,
    acknowledged_at = excluded.acknowledged_at

-- name: prune
-- Never the highest row, never beyond the slowest link, nothing while a topology has not acknowledged at all: all
-- asserted here. At most ?1 rows, so that the write lock is held for about a millisecond.
delete from replicator_outbox
where seq < (select min(seq) from replicator_outbox) + ?1
    and seq <= (select min(cast(substr(position, instr(position, ':') + 1) as integer)) from replicator_acknowledged)
    and seq < (select max(seq) from replicator_outbox)
    and not exists (
        select 1 from replicator_relation r where r.retired_at is null
            and r.topology not in (select a.topology from replicator_acknowledged a)
    )

-- name: read_lag
select (select max(seq) from replicator_outbox) - ?1,
    (select changed_at from replicator_outbox where seq > ?1 order by seq limit 1)

-- name: list_keys_behind
select op, /*: places */ k0 /*:*/ from replicator_outbox where seq > ? and relation = ?

-- name: read_clock
select cast((julianday('now') - 2440587.5) * 86400000000.0 as integer)
