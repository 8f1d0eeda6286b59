-- Purpose: announce again the rows that follow a moved one, when every transaction has ended that may have written such
--   rows without having seen the move. Costs one look at an empty table where nothing moves. Gives back how many are done.
-- Reads, writes: replicator.moved, replicator.clock, replicator.outbox, pg_locks and the followers (read). Called by: sql/postgres/routed.sql.
create or replace function replicator.follow_moves(of_topology text)
returns bigint
language plpgsql set search_path = pg_catalog
as $function$
declare
    move record;
    done bigint := 0;
begin
    if not exists (select from replicator.moved where topology = of_topology) then
        return 0;
    end if;
    update replicator.moved set horizon = pg_current_snapshot() where topology = of_topology and horizon is null;
    for move in
        delete from replicator.moved
        where topology = of_topology and not exists (
            -- Those that wrote in this database hold a lock on a table of it.
            select from pg_snapshot_xip(horizon) as open (id)
            join pg_locks as own on own.locktype = 'transactionid' and own.mode = 'ExclusiveLock'
                and own.transactionid::text::bigint = open.id::text::bigint % 4294967296
            join pg_locks as held on held.virtualtransaction = own.virtualtransaction and held.locktype = 'relation'
                and held.database = (select oid from pg_database where datname = current_database())
            where not pg_visible_in_snapshot(open.id, pg_current_snapshot()))
        returning statement, key
    loop
        execute move.statement using move.key, greatest(
            (extract(epoch from clock_timestamp()) * 1000000)::bigint, (select seen + 1 from replicator.clock));
        done := done + 1;
    end loop;
    return done;
end
$function$;
