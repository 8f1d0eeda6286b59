-- Purpose: note that a captured table was altered, dropped or made anew, and wake who reads it. Runs inside the user's DDL and
--   never fails it: whatever goes wrong here is a warning. What PostgreSQL needs a superuser for; without it tables are
--   compared at every contact.
-- Reads: replicator.relation. Writes: replicator.schema_change. Called by: the event triggers made by sql/postgres/install.sql.
create or replace function replicator.note_schema_change()
returns event_trigger
language plpgsql security definer set search_path = pg_catalog
as $function$
declare
    changed record;
begin
    if current_setting('application_name') like 'replicator %' then
        return; -- install alters tables too: which of its triggers fire
    end if;
    for changed in
        select distinct r.topology, r.table_schema, r.table_name
        from replicator.relation as r
        where r.retired_at is null and (
            (tg_event = 'sql_drop' and r.table_oid in (select d.objid from pg_event_trigger_dropped_objects() as d))
            or (tg_event = 'ddl_command_end' and exists (
                select from pg_event_trigger_ddl_commands() as c
                where c.objid = r.table_oid or c.objid = to_regclass(format('%I.%I', r.table_schema, r.table_name))
            ))
        )
    loop
        insert into replicator.schema_change (table_schema, table_name, command, place)
        values (changed.table_schema, changed.table_name, tg_tag,
            coalesce((select last_value from pg_sequences where schemaname = 'replicator' and sequencename = 'outbox_seq_seq'), 0));
        if current_setting('max_prepared_transactions') = '0' or current_setting('replicator.notify', true) = 'on' then
            perform pg_notify('replicator_' || left(encode(sha256(convert_to(changed.topology, 'UTF8')), 'hex'), 16), '');
        end if;
    end loop;
exception when others then
    raise warning 'replicator could not note that a table has changed: %', sqlerrm;
end
$function$;
