-- Capture at a centre, in key mode: which row was touched, and whom that concerns (`route`). The reader sends rows as they
-- are when it reads. The same text serves statement triggers (rows from transition tables) and row triggers.
-- Runs inside the application's transaction. Reads: the rows, the tables they follow and the tables that follow them,
-- replicator.clock, replicator.feed. Writes: replicator.outbox, replicator.tick, replicator.ledger, replicator.moved.
-- Fired by: triggers/postgres/triggers.sql. Rendered by: engines/postgres/central.py. See README.md.
create or replace function replicator."__function__"() returns trigger
language plpgsql security definer set search_path = pg_catalog /*: settings */set timezone = 'UTC'/*:*/
as $central$
#variable_conflict use_column
<<capture>>
declare
    ready boolean;
    stamp bigint;
    origin text;
    captured bigint := 0;
    written bigint;
    last_seq bigint;
begin
    -- What another topology, or nobody, wrote is a change of the centre's own.
    select greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, (select seen + 1 from replicator.clock limit 1)),
        case when starts_with(current_setting('replicator.origin', true), /*: origins */'topology/'/*:*/)
            then current_setting('replicator.origin', true) end
    into stamp, origin;
    if tg_op = 'INSERT' then
        ready := /*: ready_new */true/*:*/;
    else
        if tg_op = 'UPDATE' or tg_op = 'DELETE' then
            ready := /*: ready_old */true/*:*/;
        else
            ready := /*: ready_all */true/*:*/;
        end if;
    end if;
    ready := ready and /*: others_ready */true/*:*/;
    if ready and tg_op = 'INSERT' then
        if /*: sent */true/*:*/ then
            /*: inserted */insert into replicator.outbox (relation, op, changed_at) values (1, 'i', 0)/*:*/;
            get diagnostics captured = row_count;
        end if;
        if origin is null and /*: versioned */true/*:*/ then
            /*: versions_inserted */insert into replicator.ledger (feed, key, changed_at, checksum) values (1, '', 0, 0)/*:*/;
        end if;
        if /*: orphans */true/*:*/ then
            /*: inserted_followers */insert into replicator.outbox (relation, op, changed_at) values (1, 'u', 0)/*:*/;
            get diagnostics written = row_count;
            captured := captured + written;
            /*: inserted_moves */insert into replicator.moved (topology, statement, key) values ('', '', '')/*:*/;
        end if;
    elsif ready and tg_op = 'UPDATE' then
        if /*: sent */true/*:*/ then
            /*: updated */insert into replicator.outbox (relation, op, changed_at) values (1, 'u', 0)/*:*/;
            get diagnostics captured = row_count;
        end if;
        if origin is null and /*: versioned */true/*:*/ then
            /*: versions_updated */insert into replicator.ledger (feed, key, changed_at, checksum) values (1, '', 0, 0)/*:*/;
        end if;
        if /*: followed */true/*:*/ then
            /*: updated_followers */insert into replicator.outbox (relation, op, changed_at) values (1, 'u', 0)/*:*/;
            get diagnostics written = row_count;
            captured := captured + written;
            /*: updated_moves */insert into replicator.moved (topology, statement, key) values ('', '', '')/*:*/;
        end if;
    elsif ready and tg_op = 'DELETE' then
        if /*: sent */true/*:*/ then
            /*: deleted */insert into replicator.outbox (relation, op, changed_at) values (1, 'd', 0)/*:*/;
            get diagnostics captured = row_count;
        end if;
        if origin is null and /*: versioned */true/*:*/ then
            /*: versions_deleted */insert into replicator.ledger (feed, key, changed_at, checksum) values (1, '', 0, 0)/*:*/;
        end if;
        if /*: orphans */true/*:*/ then
            /*: deleted_followers */insert into replicator.outbox (relation, op, changed_at) values (1, 'u', 0)/*:*/;
            get diagnostics written = row_count;
            captured := captured + written;
            /*: deleted_moves */insert into replicator.moved (topology, statement, key) values ('', '', '')/*:*/;
        end if;
    elsif ready then
        -- Before a TRUNCATE: every row goes.
        if /*: sent */true/*:*/ then
            /*: truncated */insert into replicator.outbox (relation, op, changed_at) values (1, 'd', 0)/*:*/;
            get diagnostics captured = row_count;
        end if;
        if origin is null and /*: versioned */true/*:*/ then
            /*: versions_truncated */insert into replicator.ledger (feed, key, changed_at, checksum) values (1, '', 0, 0)/*:*/;
        end if;
        if /*: orphans */true/*:*/ then
            /*: truncated_followers */insert into replicator.outbox (relation, op, changed_at) values (1, 'u', 0)/*:*/;
            get diagnostics written = row_count;
            captured := captured + written;
            /*: truncated_moves */insert into replicator.moved (topology, statement, key) values ('', '', '')/*:*/;
        end if;
    else
        -- A table's columns are not those this function was made for: say what there is, by name, to every site.
        if /*: sent */true/*:*/ then
            if tg_op = 'INSERT' then
                execute replicator.announce_by_name(tg_relid, tg_op, /*: named_new */'', 'new_rows'/*:*/) using -/*: relation */1/*:*/, stamp/*: using_new *//*:*/;
            elsif tg_op = 'UPDATE' then
                execute replicator.announce_by_name(tg_relid, tg_op, /*: named_pair */'old_rows', 'new_rows'/*:*/) using -/*: relation */1/*:*/, stamp/*: using_pair *//*:*/;
            elsif tg_op = 'DELETE' then
                execute replicator.announce_by_name(tg_relid, tg_op, /*: named_old */'old_rows', ''/*:*/) using -/*: relation */1/*:*/, stamp/*: using_old *//*:*/;
            else
                execute replicator.announce_by_name(tg_relid, tg_op, format('(select * from /*: only *//*:*/ %s)', tg_relid::regclass), '')
                    using -/*: relation */1/*:*/, stamp;
            end if;
            get diagnostics captured = row_count;
        end if;
        insert into replicator.outbox (relation, op, changed_at, route)
        select follower, 'a', capture.stamp, '' from unnest(/*: followers */'{}'/*:*/::integer[]) as f (follower);
        get diagnostics written = row_count;
        captured := captured + written;
    end if;
    if captured > 0 then
        last_seq := currval('replicator.outbox_seq_seq'::regclass);
        if last_seq % 8192 < captured then
            insert into replicator.tick (seq, snapshot) values (last_seq, pg_current_snapshot());
        end if;
        -- The reader holds this lock exclusively while it sleeps. A notification would stop PREPARE TRANSACTION.
        if not pg_try_advisory_xact_lock_shared(/*: lock */1/*:*/)
            and (current_setting('max_prepared_transactions') = '0' or current_setting('replicator.notify', true) = 'on')
        then
            perform pg_notify(/*: channel */'replicator'/*:*/, '');
        end if;
    end if;
    return null;
end
$central$;
