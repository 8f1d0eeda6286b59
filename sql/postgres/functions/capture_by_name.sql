-- Purpose: the statement that captures a row change when the table's columns are no longer those the capture function
--   was made for. Images become JSON objects, column name → the value's text as its type prints it; the reader turns
--   them into the relation's form once `replicator install` has run.
-- Parameters: the table; TG_OP; what stands in FROM for the old and for the new rows. The statement takes
--   $1 relation (negative), $2 changed_at, $3 origin, $4… the rows where capture is by row.
-- Reads: pg_attribute. Writes: nothing (the statement writes replicator.outbox). Called by: triggers/postgres/capture_*.sql.
create or replace function replicator.capture_by_name(captured_table oid, event text, old_source text, new_source text)
returns text
language plpgsql stable set search_path = pg_catalog
as $function$
declare
    names text;
    old_values text;
    new_values text;
    old_image text;
    new_image text;
begin
    select string_agg(quote_literal(attname), ', ' order by attnum),
        string_agg(format('case when num_nulls(o.%1$I) = 0 then format(''%%s'', o.%1$I) end', attname), ', ' order by attnum),
        string_agg(format('case when num_nulls(n.%1$I) = 0 then format(''%%s'', n.%1$I) end', attname), ', ' order by attnum)
    into names, old_values, new_values
    from pg_attribute
    where attrelid = captured_table and attnum > 0 and not attisdropped and attgenerated = '';
    old_image := format('json_object(array[%s]::text[], array[%s]::text[])::text', names, old_values);
    new_image := format('json_object(array[%s]::text[], array[%s]::text[])::text', names, new_values);
    if event = 'INSERT' then
        return format('insert into replicator.outbox (relation, op, changed_at, origin, after)'
            ' select $1, ''i'', $2, $3, %s from %s as n', new_image, new_source);
    elsif event = 'DELETE' then
        return format('insert into replicator.outbox (relation, op, changed_at, origin, before)'
            ' select $1, ''d'', $2, $3, %s from %s as o', old_image, old_source);
    end if;
    return format('insert into replicator.outbox (relation, op, changed_at, origin, before, after)'
        ' select $1, ''u'', $2, $3, o.image, n.image'
        ' from (select row_number() over () as place, %s as image from %s as o) as o'
        ' join (select row_number() over () as place, %s as image from %s as n) as n on n.place = o.place',
        old_image, old_source, new_image, new_source);
end
$function$;
