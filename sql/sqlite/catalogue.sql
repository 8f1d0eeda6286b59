-- Reading a SQLite file's own catalogue. Run by replicator/engines/sqlite/catalogue.py and installer.py.

-- name: list_tables
-- type: table, virtual, shadow, view; wr: WITHOUT ROWID.
select name, type, wr from pragma_table_list where schema = 'main' and name not like 'sqlite\_%' escape '\' order by name

-- name: list_columns
-- hidden: 1 hidden column of a virtual table, 2 and 3 generated columns.
select name, type, "notnull", dflt_value, pk, hidden from pragma_table_xinfo(?) order by cid

-- name: read_index_sql
select sql from sqlite_master where type = 'index' and name = ?

-- name: read_table_sql
select sql from sqlite_master where type = 'table' and name = ?

-- name: list_indexed
-- Indexes over whole tables with their columns in order.
select l.name, c.name from pragma_index_list(?) as l cross join pragma_index_info(l.name) as c
where not l.partial order by l.name, c.seqno

-- name: create_index
-- Proposed by check, run by people.
create index "__index__" on "__table__" (/*: columns */ "__column__" /*:*/)

-- name: estimate_rowid_table
select coalesce((select max(rowid) from "__table__"), 0)

-- name: estimate_table
select count(*) from "__table__"

-- name: list_our_objects
-- Tables are ours by exact name, triggers by prefix. Indexes go with their tables.
select type || ' ' || name from sqlite_master
where (type = 'table' and name in (select value from json_each(?)))
   or (type = 'trigger' and name like 'replicator\_%' escape '\')
order by 1

-- name: list_triggers
-- place: creation order; SQLite fires the newest first.
select name, tbl_name, sql, rowid as place from sqlite_master where type = 'trigger' order by rowid

-- name: list_table_names
select name from sqlite_master where type = 'table' order by name

-- name: has_migrations
select 1 from sqlite_master where type = 'table' and name = 'replicator_migration'

-- name: read_level
-- The last migration that ran here.
select coalesce(max(number), 0) from replicator_migration

-- name: journal_mode
pragma journal_mode

-- name: schema_version
pragma schema_version

-- name: data_version
pragma data_version

-- name: quick_look
select count(*) from sqlite_master

-- name: all_rows
-- A small table whole: the sites' parameters.
select * from "__table__"

-- name: encoding
pragma encoding
