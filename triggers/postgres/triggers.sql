-- The triggers of one captured table, in one short transaction. "!" sorts before the user's triggers and before the
-- foreign keys' ("RI_…"): ours must fire first, or changes they make would be captured before the one that caused them.
-- Rendered by: engines/postgres/{capture,central}.py.

-- name: by_statement
begin;
set local lock_timeout = '2s';
/*: drops *//*:*/
create trigger "__insert__" after insert on "__schema__"."__table__" referencing new table as new_rows
    for each statement execute function replicator."__function__"();
create trigger "__update__" after update on "__schema__"."__table__" referencing old table as old_rows new table as new_rows
    for each statement execute function replicator."__function__"();
create trigger "__delete__" after delete on "__schema__"."__table__" referencing old table as old_rows
    for each statement execute function replicator."__function__"();
/*: truncate *//*:*/
/*: always *//*:*/
commit;

-- name: by_row
begin;
set local lock_timeout = '2s';
/*: drops *//*:*/
create trigger "__row__" after insert or update or delete on "__schema__"."__table__"
    for each row execute function replicator."__function__"();
/*: truncate *//*:*/
/*: always *//*:*/
commit;

-- name: drop
drop trigger "__trigger__" on "__schema__"."__table__";

-- name: truncate
create trigger "__truncate__" after truncate on "__schema__"."__table__"
    for each statement execute function replicator."__function__"();

-- name: truncate_before
-- At a centre: every row is noted while it is still there.
create trigger "__truncate__" before truncate on "__schema__"."__table__"
    for each statement execute function replicator."__function__"();

-- name: always
-- Fires for every writer, whatever its session_replication_role. Only the table's owner may ask for it.
alter table "__schema__"."__table__" enable always trigger "__trigger__";
