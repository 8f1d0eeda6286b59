-- Capture by row, where transition tables cannot serve: partitions, inheritance, and tables whose own AFTER ROW triggers
-- may write the same table again (a statement trigger would see the outer change after the inner one).
-- Runs inside the application's transaction. Reads: replicator.clock. Writes: replicator.outbox, replicator.tick.
-- Fired by: triggers/postgres/triggers.sql. Rendered by: engines/postgres/capture.py. See README.md.
create or replace function replicator."__function__"() returns trigger
language plpgsql security definer set search_path = pg_catalog /*: settings */set timezone = 'UTC'/*:*/
as $capture$
#variable_conflict use_column
<<capture>>
declare
    ready boolean;
    stamp bigint;
    origin text;
    captured bigint;
    last_seq bigint;
begin
    -- What a link from the centre writes here is the centre's own, it knows it.
    if current_setting('replicator.origin', true) = /*: applied */'topology/centre'/*:*/ then
        return null;
    end if;
    -- A session keeps the plans below and does not make them anew when the table changes, so names, types and numbers
    -- are looked at before they are used: a column that was dropped and added again is another one. Fields are taken as new."a", which PL/pgSQL finds by name every time, never as (new).*.
    select greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, (select seen + 1 from replicator.clock limit 1)),
        nullif(current_setting('replicator.origin', true), ''),
        (
            select count(*) from pg_attribute as a
            where a.attrelid = tg_relid and a.attnum > 0 and not a.attisdropped
                and (a.attname, format_type(a.atttypid, null)) in (values /*: wanted_types */('a', 'integer'), ('b', 'text')/*:*/)
                and (/*: partitioned */false/*:*/ or a.attname = (array[/*: by_attnum */'a', 'b'/*:*/]::name[])[a.attnum])
        ) = /*: wanted_count */2/*:*/
        -- A partition numbers its columns as it likes.
        and (not /*: partitioned */false/*:*/ or (
            select count(*) from pg_attribute as a
            where a.attrelid = pg_partition_root(tg_relid) and a.attnum > 0
                and a.attname = (array[/*: by_attnum */'a', 'b'/*:*/]::name[])[a.attnum]
        ) = /*: wanted_count */2/*:*/)
    into stamp, origin, ready;
    if tg_op = 'INSERT' then
        if ready then
            insert into replicator.outbox (relation, op, changed_at, origin, after)
            select /*: relation */1/*:*/, 'i', capture.stamp, capture.origin, row(/*: new_columns */new."a", new."b"/*:*/)::text
            where /*: new_filter */true/*:*/;
        end if;
    elsif tg_op = 'UPDATE' then
        if ready then
            insert into replicator.outbox (relation, op, changed_at, origin, before, after)
            select /*: relation */1/*:*/,
                case when not n.inside then 'd' when not o.inside then 'i' when o.key *<> n.key then 'k' else 'u' end,
                capture.stamp, capture.origin, case when o.inside then o.image end, case when n.inside then n.image end
            from (
                select row(/*: old_columns */old."a", old."b"/*:*/)::text as image, row(/*: old_key */old."a"/*:*/) as key,
                    (/*: old_filter */true/*:*/) is true as inside
            ) as o,
            (
                select row(/*: new_columns */new."a", new."b"/*:*/)::text as image, row(/*: new_key */new."a"/*:*/) as key,
                    (/*: new_filter */true/*:*/) is true as inside
            ) as n
            where (o.inside and n.inside and o.image <> n.image) or o.inside <> n.inside;
        end if;
    elsif tg_op = 'DELETE' then
        if ready then
            insert into replicator.outbox (relation, op, changed_at, origin, before)
            select /*: relation */1/*:*/, 'd', capture.stamp, capture.origin, row(/*: old_columns */old."a", old."b"/*:*/)::text
            where /*: old_filter */true/*:*/;
        end if;
    else
        ready := true;
        insert into replicator.outbox (relation, op, changed_at, origin) values (/*: relation */1/*:*/, 't', capture.stamp, capture.origin);
    end if;
    if not ready then
        -- The table's columns are not those this function was made for: capture what there is, by name.
        if tg_op = 'INSERT' then
            execute replicator.capture_by_name(tg_relid, tg_op, '(select ($4).*)', '(select ($4).*)') using -/*: relation */1/*:*/, stamp, origin, new;
        elsif tg_op = 'UPDATE' then
            execute replicator.capture_by_name(tg_relid, tg_op, '(select ($5).*)', '(select ($4).*)') using -/*: relation */1/*:*/, stamp, origin, new, old;
        else
            execute replicator.capture_by_name(tg_relid, tg_op, '(select ($4).*)', '(select ($4).*)') using -/*: relation */1/*:*/, stamp, origin, old;
        end if;
    end if;
    get diagnostics captured = row_count;
    if captured = 0 then
        return null;
    end if;
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
    return null;
end
$capture$;
