-- The audit's statements on PostgreSQL: rows are spelled and hashed inside the database, nothing is written.
-- Called by: engines/postgres/audit.py. Reads: users' tables. The forms are those of replicator/canonical/forms.py.

-- The ``form_*`` blocks spell one column as a piece of a row image; see replicator/canonical/images.py for the framing.
-- Each is used as an expression: what stands behind ``select``.

-- name: form_integer
select coalesce(t."__column__"::text || ',', '~,')

-- name: form_numeric
-- By way of text: a cast from a double to numeric keeps fifteen digits only.
select coalesce(trim_scale(t."__column__"::text::numeric)::text || ',', '~,')

-- name: form_float8
-- The bit pattern of a NaN is not a value: arithmetic makes several, text knows one.
select coalesce(case when t."__column__"::float8 = 'NaN'::float8 then 'NaN'
                     else encode(float8send(t."__column__"::float8), 'hex') end || ',', '~,')

-- name: form_float8_zero
select coalesce(case when t."__column__"::float8 = 'NaN'::float8 then 'NaN'
                     else encode(float8send(t."__column__"::float8 + 0.0::float8), 'hex') end || ',', '~,')

-- name: form_float4
select coalesce(case when t."__column__"::float4 = 'NaN'::float4 then 'NaN'
                     else encode(float4send(t."__column__"::float4 + 0.0::float4), 'hex') end || ',', '~,')

-- name: form_boolean
select case when t."__column__" then 't,' when not t."__column__" then 'f,' else '~,' end

-- name: form_text
select coalesce(char_length(t."__column__"::text)::text || ':' || t."__column__"::text, '~,')

-- name: form_padded
select coalesce(char_length(rtrim(t."__column__"::text, ' '))::text || ':' || rtrim(t."__column__"::text, ' '), '~,')

-- name: form_printed
-- As form_text, for types that a cast to text spells in another way than they are printed (a network address gets a mask).
select case when t."__column__" is null then '~,'
       else char_length(format('%s', t."__column__"))::text || ':' || format('%s', t."__column__") end

-- name: form_loose_text
select coalesce(char_length(t."__column__"::text)::text || ':' || t."__column__"::text, '~,')

-- name: form_bytes
select coalesce(encode(t."__column__", 'hex') || ',', '~,')

-- name: form_date
select coalesce(encode(date_send(t."__column__"), 'hex') || ',', '~,')

-- name: form_time
select coalesce(encode(time_send(t."__column__"), 'hex') || ',', '~,')

-- name: form_timestamp
select coalesce(encode(timestamp_send(t."__column__"::timestamp), 'hex') || ',', '~,')

-- name: form_timestamptz
select coalesce(encode(timestamptz_send(t."__column__"::timestamptz), 'hex') || ',', '~,')

-- name: form_uuid
select coalesce(t."__column__"::text || ',', '~,')

-- name: form_jsonb
select coalesce(char_length(t."__column__"::jsonb::text)::text || ':' || t."__column__"::jsonb::text, '~,')

-- name: part_key
-- An expression: a key value as its type's output function spells it, as in record literals (a cast to text spells
-- booleans, padded text and network addresses in another way).
select format('%s', t."__column__")

-- name: part_last
select "__column__"::text

-- name: part_wanted
select /*: parameter */ $1 /*:*/::text[]

-- name: prove_form
-- $1: the test vector as text[]. Row hashes of its values in one form, in order.
select array(
    select ('x' || left(encode(sha256(convert_to(/*: image */ t.value::text /*:*/, 'UTF8')), 'hex'), 16))::bit(64)::bigint
      from (select v::/*: type */ text /*:*/ as "value", place from unnest($1::text[]) with ordinality as u (v, place)) as t
     order by t.place);

-- name: settle
-- The audit waits for nobody and writes nothing.
select pg_catalog.set_config(name, value, false)
from (values ('default_transaction_read_only', 'on'), ('lock_timeout', '5s'), ('statement_timeout', '120s')) as setting (name, value);

-- name: digest_page
-- One page of the table in key order: digests by bucket glued into one text (a driver costs more per row than the hash),
-- rows read, and the page's last key as text. Rows the filter leaves out have no hash.
-- $1: rows a page; then the key behind which it begins.
with page as materialized (
    select /*: keys */ x.k0 /*:*/, (get_byte(x.spread, 0) << 8 | get_byte(x.spread, 1)) & /*: mask */ 0 /*:*/ as bucket,
           case when x.wanted then ('x' || left(encode(sha256(convert_to(x.image, 'UTF8')), 'hex'), 16))::bit(64)::bigint end as hash
      from (select /*: row_keys */ t.id as k0 /*:*/, /*: filter */ true /*:*/ as wanted, /*: image */ t.id::text /*:*/ as image,
                   sha256(convert_to(/*: key_image */ t.id::text /*:*/, 'UTF8')) as spread
              from "__schema__"."__table__" as t
             where /*: after */ true /*:*/
             order by /*: order */ t.id /*:*/
             limit $1::bigint) as x)
select coalesce((select string_agg(concat_ws(' ', d.bucket, d.n, d.total), E'\n')
                   from (select bucket, count(*) as n, sum(hash) as total from page where hash is not null group by bucket) as d), ''),
       (select count(*) from page),
       (select array[/*: last */ k0::text /*:*/] from page order by /*: backward */ k0 desc /*:*/ limit 1);

-- name: rows_page
-- As digest_page, but key images and row hashes of the buckets in $2, as two arrays. Other rows are spelled no further than
-- their key; "offset 0" keeps the key's hash from being computed at every mention.
-- $1: rows a page; $2: buckets; then the key behind which it begins.
with page as materialized (
    select /*: row_keys */ t.id as k0 /*:*/, /*: key_image */ t.id::text /*:*/ as key_image,
           case when (get_byte(x.spread, 0) << 8 | get_byte(x.spread, 1)) & /*: mask */ 0 /*:*/ = any($2::integer[])
                     and /*: filter */ true /*:*/
                then ('x' || left(encode(sha256(convert_to(/*: image */ t.id::text /*:*/, 'UTF8')), 'hex'), 16))::bit(64)::bigint
           end as hash
      from (select t.* from "__schema__"."__table__" as t
             where /*: after */ true /*:*/
             order by /*: order */ t.id /*:*/
             limit $1::bigint) as t
     cross join lateral (select sha256(convert_to(/*: key_image */ t.id::text /*:*/, 'UTF8')) as spread offset 0) as x)
select (select array_agg(key_image) from page where hash is not null),
       (select array_agg(hash) from page where hash is not null),
       (select count(*) from page),
       (select array[/*: last */ k0::text /*:*/] from page order by /*: backward */ k0 desc /*:*/ limit 1);

-- name: fetch_rows
-- Rows by key: key image, row image, and the key's values as text. One text[] of key values per key column.
select r.key_image, r.image, r.key
  from unnest(/*: wanted */ $1::text[] /*:*/) as w (/*: names */ w0 /*:*/)
 cross join lateral (
    select /*: key_image */ t.id::text /*:*/ as key_image, /*: image */ t.id::text /*:*/ as image,
           array[/*: key */ t.id::text /*:*/] as key
      from "__schema__"."__table__" as t
     where /*: same_key */ t.id = w.w0::bigint /*:*/ and /*: filter */ true /*:*/) as r;

-- name: follows
-- Whether a row has the row it follows, and that one meets a condition.
select exists (select 1 from "__schema__"."__table__" as /*: alias */ p1 /*:*/ where /*: same */ true /*:*/ and /*: condition */ true /*:*/)
