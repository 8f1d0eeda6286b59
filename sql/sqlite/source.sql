-- Reading a site's outbox and tables. Run by replicator/engines/sqlite/source.py and reading.py, always in short
-- transactions that end before anything is sent.
-- function: replicator_key/-1

-- name: read_place
-- Where the link stands (its acknowledged position and nonce, if any, and when it expired), and where the outbox ends.
select a.position, a.nonce, (select epoch from replicator_identity where only_row = 1) as epoch,
    (select max(seq) from replicator_outbox) as top, a.expired_at
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

-- name: column_collation
-- The collation a column was declared with, which no catalogue shows: a compound select compares by that of its first part.
-- Also run by catalogue.py.
select case when c.value = 'A' then 'NOCASE' when c.value = 'a ' then 'RTRIM' else 'BINARY' end
from (select "__column__" as value from "__table__" where 0 union all select 'a') as c

-- name: read_chunk
-- The next rows behind a place in the table's own key order. Behind a row's values: its base, and what ends its place where
-- a key may be NULL.
select 0, case when /*: fits */ 1 /*:*/ then 's' else 'o' end, 0,
    /*: values */ m."__column__" /*:*/, /*: base */ null /*:*/, /*: tie */ null /*:*/
from "__table__" as m where /*: behind */ 1 /*:*/ and /*: mine */ 1 /*:*/
order by /*: order */ m."__column__" /*:*/ limit ?

-- name: read_by_key
-- One row of a chunk, by its key.
select 0, case when /*: fits */ 1 /*:*/ then 's' else 'o' end, 0,
    /*: values */ m."__column__" /*:*/, /*: base */ null /*:*/, /*: tie */ null /*:*/
from "__table__" as m where /*: same_row */ m."__column__" = ?1 /*:*/ and /*: mine */ 1 /*:*/

-- name: count_some
-- How many rows there are, as far as ?1 goes, and how many of the first ?2 are wanted.
select (select count(*) from (select 1 from "__table__" limit ?1)),
    (select count(*) from (select /*: mine */ 1 /*:*/ as replicator_mine from "__table__" as m limit ?2)),
    (select count(*) from (select /*: mine */ 1 /*:*/ as replicator_mine from "__table__" as m limit ?2) where replicator_mine)

-- name: rowid_span
-- At most so many rows: by the rowids, and by the size of the file.
select (select max(/*: rowid */ rowid /*:*/) from "__table__") - (select min(/*: rowid */ rowid /*:*/) from "__table__") + 1,
    (select page_count from pragma_page_count) * (select page_size from pragma_page_size) / 8

-- name: acknowledge
insert into replicator_acknowledged (link, topology, position, nonce, acknowledged_at)
values (?1, ?2, ?3, lower(hex(randomblob(6))), strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
on conflict (link) do update set position = excluded.position, nonce = excluded.nonce,
    acknowledged_at = excluded.acknowledged_at

-- name: expire
-- Links that have let their changes lie for longer than ?1 days: pruning waits for them no more, nor for how far the
-- centre had processed their changes (a row without a nonce, which never expires by itself).
update replicator_acknowledged set expired_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
where expired_at is null and topology in (
    select a.topology from replicator_acknowledged as a
    where a.nonce is not null and julianday(a.acknowledged_at) < julianday('now') - ?1
        and (select o.changed_at from replicator_outbox as o
             where o.seq > cast(substr(a.position, instr(a.position, ':') + 1) as integer) order by o.seq limit 1)
            < cast((julianday('now') - ?1 - 2440587.5) * 86400000000.0 as integer)
)

-- name: unexpire
-- A link that has been read anew.
update replicator_acknowledged set expired_at = null where topology = ? and expired_at is not null

-- name: prune
-- Never the highest row, never beyond the slowest link or what the centre is known to have processed, nothing while a
-- topology has not acknowledged at all: all asserted here. At most ?1 rows, so that the write lock is held for about a
-- millisecond. What waits for a table that is gone to come back (relation < 0) stays.
delete from replicator_outbox
where relation >= 0 and seq < (select min(seq) from replicator_outbox where relation >= 0) + ?1
    and seq <= (
        select min(cast(substr(position, instr(position, ':') + 1) as integer)) from replicator_acknowledged
        where expired_at is null)
    and seq < (select max(seq) from replicator_outbox)
    and (not exists (select 1 from replicator_relation r where r.versioned and r.retired_at is null)
        or seq <= (select versioned_upto from replicator_control where only_row = 1))
    and not exists (
        select 1 from replicator_relation r where r.retired_at is null
            and r.topology not in (select a.topology from replicator_acknowledged a where a.nonce is not null)
    )

-- name: read_passed
-- What pruning goes by besides this link: where the slowest link is, and what the versions are recorded of.
select (select min(cast(substr(position, instr(position, ':') + 1) as integer)) from replicator_acknowledged where expired_at is null),
    (select versioned_upto from replicator_control where only_row = 1)

-- name: has_bases
select exists (select 1 from replicator_base where relation = ?)

-- name: read_bases
-- The bases ?1 of the keys in the list ?2 that no outbox row of ?5 in ?3 < seq <= ?4 has used up.
with touched as materialized (
    select case when op = 'a' then '' else /*: key */ replicator_key(k0) /*:*/ end as "key", max(seq) as seq
    from replicator_outbox where seq > ?3 and seq <= ?4 and relation = ?5 group by 1
)
select b."key", b.deleted, b.checksum, b.image from replicator_base as b
where b.relation = ?1 and b."key" in (select value from json_each(?2)) and (b.deleted or b.checksum is not null)
    and not exists (select 1 from touched as t where t."key" in (b."key", '') and t.seq > b.seq)

-- name: list_settled
-- Bases ?1 that outbox rows of ?4 in ?2 < seq <= ?3 have used up, and the newest of those rows.
select c."key", c.seq from (
    select /*: key */ replicator_key(k0) /*:*/ as "key", max(seq) as seq from replicator_outbox
    where seq > ?2 and seq <= ?3 and relation = ?4 and op <> 'a' group by 1
) as c cross join replicator_base as b on b.relation = ?1 and b."key" = c."key" and b.seq < c.seq
union all
select b."key", c.seq from (
    select max(seq) as seq from replicator_outbox where seq > ?2 and seq <= ?3 and relation = ?4 and op = 'a'
) as c cross join replicator_base as b on b.relation = ?1 and b.seq < c.seq

-- name: forget_base
delete from replicator_base where relation = ? and "key" = ? and seq < ?

-- name: list_bases
-- The bases ?1 of the keys in the list ?2, as they are now.
select relation, "key", seq, checksum from replicator_base where relation = ?1 and "key" in (select value from json_each(?2))

-- name: forget_known_base
-- One that is as it was when it was listed.
delete from replicator_base where relation = ? and "key" = ? and seq = ? and checksum is ?

-- name: read_lag
select (select max(seq) from replicator_outbox) - ?1,
    (select changed_at from replicator_outbox where seq > ?1 order by seq limit 1)

-- name: list_keys_behind
select op, /*: places */ k0 /*:*/ from replicator_outbox where seq > ? and relation = ?

-- name: touch
-- With untouch in one transaction: nothing is changed, but a page was written, so data_version moves for every other
-- connection (SQLite does not write a row that is set to what it is).
insert into replicator_control (only_row) values (-1)

-- name: untouch
delete from replicator_control where only_row = -1

-- name: read_clock
select cast((julianday('now') - 2440587.5) * 86400000000.0 as integer)

-- name: read_standing
-- What the link acknowledged last, when, and whether pruning no longer waits for it.
select position, cast((julianday(acknowledged_at) - 2440587.5) * 86400000000 as integer), expired_at is not null
from replicator_acknowledged where link = ?
