-- A slot that took the place of a lost one: changes in between are in no log that can be read. Nothing is read for the link
-- until backfills of its tables are on record at the centre.
alter table replicator.slot add column gap boolean not null default false;

-- What we say in the log (who writes, where capture starts). Before PostgreSQL 14 slots do not tell messages: there a row here,
-- which is published, stands for one, until whoever fills the outbox has read it.
create table replicator.note (
    id bigint generated always as identity primary key,
    prefix text not null,
    content text not null
);

create function replicator.tell(prefix text, content text) returns pg_lsn language plpgsql set search_path = pg_catalog as $$
begin
    if pg_catalog.current_setting('server_version_num')::integer >= 140000 then
        return pg_catalog.pg_logical_emit_message(true, tell.prefix, pg_catalog.convert_to(tell.content, 'UTF8'));
    end if;
    insert into replicator.note (prefix, content) values (tell.prefix, tell.content);
    return pg_catalog.pg_current_wal_insert_lsn();
end
$$;
