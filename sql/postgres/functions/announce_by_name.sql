-- Purpose: the statement by which a centre notes touched rows when a table's columns are no longer those the capture
--   function was made for. Keys become JSON objects, column name → the value's text as its type prints it, of all the row's
--   columns; the reader finds the key's columns in them. Such rows concern every site.
-- Parameters: the table; TG_OP; what stands in FROM for the old and for the new rows. The statement takes
--   $1 relation (negative), $2 changed_at, $3… the rows where capture is by row.
-- Reads: pg_attribute. Writes: nothing (the statement writes replicator.outbox). Called by: triggers/postgres/central_capture.sql.
create or replace function replicator.announce_by_name(captured_table oid, event text, old_source text, new_source text)
returns text
language plpgsql stable set search_path = pg_catalog
as $function$
declare
    names text;
    row_values text;
    source text;
begin
    select string_agg(quote_literal(attname), ', ' order by attnum),
        string_agg(format('case when num_nulls(x.%1$I) = 0 then format(''%%s'', x.%1$I) end', attname), ', ' order by attnum)
    into names, row_values
    from pg_attribute
    where attrelid = captured_table and attnum > 0 and not attisdropped and attgenerated = '';
    source := case event
        when 'INSERT' then new_source
        when 'UPDATE' then format('(select * from %s as o union all select * from %s as n)', old_source, new_source)
        else old_source
    end;
    return format('insert into replicator.outbox (relation, op, changed_at, key, route)'
        ' select $1, ''u'', $2, json_object(array[%s]::text[], array[%s]::text[])::text, '''' from %s as x', names, row_values, source);
end
$function$;
