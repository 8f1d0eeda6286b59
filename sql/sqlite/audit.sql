-- The audit's statements on SQLite: short reads of one page each; values are spelled and hashed in Python, since no SQL
-- function of SQLite gives all digits of a REAL. Called by: engines/sqlite/audit.py. Reads: users' tables.

-- name: probe_rowid
select t./*: rowid */ rowid /*:*/ from "__table__" as t limit 0

-- name: page_end
-- The place of the last row of a page; nothing when the page is the table's last. :size rows, behind the place given.
select /*: place */ t."id" /*:*/ from "__table__" as t
 where /*: behind */ true /*:*/ order by /*: order */ t."id" /*:*/ limit 1 offset ?

-- name: read_page
select /*: columns */ t."id" /*:*/ from "__table__" as t
 where /*: behind */ true /*:*/ and /*: upto */ true /*:*/ and /*: filter */ true /*:*/

-- name: fetch_row
select /*: columns */ t."id" /*:*/ from "__table__" as t where /*: same_key */ t."id" is ? /*:*/ and /*: filter */ true /*:*/

-- name: prove_value
-- A value through the database and back.
select ?

-- name: settle
pragma query_only = on

-- name: follows
-- Whether a row has the row it follows, and that one meets a condition.
select exists (select 1 from "__table__" as /*: alias */ p1 /*:*/ where /*: same */ true /*:*/ and /*: condition */ true /*:*/)
