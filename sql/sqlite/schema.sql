-- Changes of users' tables, as `schema diff` shows them and `schema apply` runs them, and as messages name them.
-- Reads, writes: the users' tables. Rendered by: replicator/alters.py.

-- name: add_column
alter table "__table__" add column /*: column */"c" integer/*:*/;

-- name: drop_column
alter table "__table__" drop column "__column__";

-- name: rename_column
alter table "__table__" rename column "__column__" to /*: new */"other"/*:*/;

-- name: rename_table
alter table "__table__" rename to /*: new */"other"/*:*/;
