-- Capture by statement: one call per INSERT, UPDATE, DELETE or TRUNCATE statement, rows from transition tables.
-- Runs inside the application's transaction. Reads: the transition tables, replicator.clock. Writes: replicator.outbox,
-- replicator.tick. Fired by: triggers/postgres/triggers.sql. Rendered by: engines/postgres/capture.py. See README.md.
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
    if tg_op = 'INSERT' then
        select greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, (select seen + 1 from replicator.clock limit 1)),
            nullif(current_setting('replicator.origin', true), ''), found_columns.ready and (
                select count(*) from pg_attribute as a
                where a.attrelid = tg_relid and a.attnum > 0 and a.attname = (array[/*: by_attnum */'a', 'b'/*:*/]::name[])[a.attnum]
            ) = /*: wanted_count */2/*:*/
        into stamp, origin, ready
        from (values (/*: wanted_values */true, true/*:*/)) as wanted (/*: wanted_names */"a", "b"/*:*/),
            lateral (select /*: wanted_test */"a" is null and "b" is null/*:*/ as ready
                from (select) as nothing left join new_rows as n on false) as found_columns;
        if ready then
            insert into replicator.outbox (relation, op, changed_at, origin, after)
            select /*: relation */1/*:*/, 'i', capture.stamp, capture.origin, row(/*: new_columns */n."a", n."b"/*:*/)::text
            from new_rows as n
            where /*: new_filter */true/*:*/;
        end if;
    elsif tg_op = 'UPDATE' then
        select greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, (select seen + 1 from replicator.clock limit 1)),
            nullif(current_setting('replicator.origin', true), ''), found_columns.ready and (
                select count(*) from pg_attribute as a
                where a.attrelid = tg_relid and a.attnum > 0 and a.attname = (array[/*: by_attnum */'a', 'b'/*:*/]::name[])[a.attnum]
            ) = /*: wanted_count */2/*:*/
        into stamp, origin, ready
        from (values (/*: wanted_values */true, true/*:*/)) as wanted (/*: wanted_names */"a", "b"/*:*/),
            lateral (select /*: wanted_test */"a" is null and "b" is null/*:*/ as ready
                from (select) as nothing left join new_rows as n on false) as found_columns;
        if ready then
            -- Both transition tables are filled in step, so the n-th old row belongs to the n-th new row. A full join is never
            -- done row by row against row, which would be quadratic: a session keeps the plan it made for a few rows. Offset 0
            -- keeps the condition outside, or the planner would see that an inner join will do.
            insert into replicator.outbox (relation, op, changed_at, origin, before, after)
            select /*: relation */1/*:*/,
                case when not p.stays then 'd' when not p.was then 'i' when p.moved then 'k' else 'u' end,
                capture.stamp, capture.origin, case when p.was then p.before end, case when p.stays then p.after end
            from (
                select o.inside as was, n.inside as stays, o.key *<> n.key as moved, o.image as before, n.image as after
                from (
                    select row_number() over () as place, row(/*: old_columns */o."a", o."b"/*:*/)::text as image,
                        row(/*: old_key */o."a"/*:*/) as key, (/*: old_filter */true/*:*/) is true as inside
                    from old_rows as o
                ) as o
                full join (
                    select row_number() over () as place, row(/*: new_columns */n."a", n."b"/*:*/)::text as image,
                        row(/*: new_key */n."a"/*:*/) as key, (/*: new_filter */true/*:*/) is true as inside
                    from new_rows as n
                ) as n on n.place = o.place
                offset 0
            ) as p
            where (p.was and p.stays and p.before <> p.after) or p.was <> p.stays;
        end if;
    elsif tg_op = 'DELETE' then
        select greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, (select seen + 1 from replicator.clock limit 1)),
            nullif(current_setting('replicator.origin', true), ''), found_columns.ready and (
                select count(*) from pg_attribute as a
                where a.attrelid = tg_relid and a.attnum > 0 and a.attname = (array[/*: by_attnum */'a', 'b'/*:*/]::name[])[a.attnum]
            ) = /*: wanted_count */2/*:*/
        into stamp, origin, ready
        from (values (/*: wanted_values */true, true/*:*/)) as wanted (/*: wanted_names */"a", "b"/*:*/),
            lateral (select /*: wanted_test */"a" is null and "b" is null/*:*/ as ready
                from (select) as nothing left join old_rows as n on false) as found_columns;
        if ready then
            insert into replicator.outbox (relation, op, changed_at, origin, before)
            select /*: relation */1/*:*/, 'd', capture.stamp, capture.origin, row(/*: old_columns */o."a", o."b"/*:*/)::text
            from old_rows as o
            where /*: old_filter */true/*:*/;
        end if;
    else
        ready := true;
        insert into replicator.outbox (relation, op, changed_at, origin)
        select /*: relation */1/*:*/, 't',
            greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, (select seen + 1 from replicator.clock limit 1)),
            nullif(current_setting('replicator.origin', true), '');
    end if;
    if not ready then
        -- The table's columns are not those this function was made for: capture what there is, by name.
        execute replicator.capture_by_name(tg_relid, tg_op, 'old_rows', 'new_rows') using -/*: relation */1/*:*/, stamp, origin;
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
