-- Expressions the apply templates are filled with. Reads, writes: nothing by themselves. Used by: engines/postgres/lane.py.

-- name: as_text
/*: value */ v0 /*:*/::text

-- name: as_type
/*: value */ v0 /*:*/::/*: type */ text /*:*/

-- name: as_record
row(/*: values */ v0 /*:*/)::text

-- name: first_of
coalesce(/*: values */ v0 /*:*/)

-- name: equals
/*: left */ v0 /*:*/ = /*: right */ k0 /*:*/

-- name: is_there
/*: value */ v0 /*:*/ is not null

-- name: texts
-- An array of texts, however many.
array[/*: values */ 'v0' /*:*/]::text[]

-- name: unfit
-- The column's own type would round or cut the value: there and back again it is another. (Compared without the way back,
-- a bigint would be rounded to the double it is compared with.)
/*: value */ a0 /*:*/ is distinct from /*: value */ a0 /*:*/::/*: type */ text /*:*/::/*: staging */ text /*:*/

-- name: unfit_words
case when /*: unfit */ true /*:*/ then /*: words */ '' /*:*/ || /*: value */ a0 /*:*/::text end

-- name: same_image
-- Exact, bit by bit: "=" calls 0.0 and -0.0 equal, and some types have no "=".
record_image_eq(row(/*: current */ v0 /*:*/), row(/*: base */ b0 /*:*/))

-- name: arrived
-- A row with a change's new key holds its values.
exists (select from "__schema__"."__table__" as t
         where /*: same_row */ true /*:*/ and record_image_eq(row(/*: current */ t.v0 /*:*/), row(/*: after */ c.a0 /*:*/)))

-- name: counted
-- The row is what the site made of it, but that is somebody else's doing (this change would have left its version): two equal
-- steps of a counter. What the row was before is known, so a row that both sides had all along is not meant.
c.existed and not (/*: unchanged */ false /*:*/)
                    and (v.changed_at is distinct from c.changed_at or coalesce(v.origin, '') not in ('', /*: origin */ '' /*:*/))

-- name: untouched
-- The site left the row as it had found it.
c.existed and c.present and /*: same */ true /*:*/

-- name: same_checksum
hashtextextended(row(/*: current */ v0 /*:*/)::text, 0) = c.base

-- name: before_or_came
-- f = the first change of a row, c = its last.
/*: before */ b0 /*:*/ = case when f.existed or c.present then f./*: before */ b0 /*:*/ else f./*: came */ a0 /*:*/ end

-- name: named
/*: value */ v0 /*:*/ as /*: name */ "v0" /*:*/

-- name: named_if
case when /*: there */ true /*:*/ then /*: value */ v0 /*:*/ end as /*: name */ "v0" /*:*/

-- name: record_if
case when /*: there */ true /*:*/ then row(/*: values */ v0 /*:*/)::text end

-- name: not_applied
d.verdict <> 'apply'

-- name: op_of_state
case when c.present then 's'::"char" else 'g' end

-- name: op_of_images
case when c.present then case when c.existed then 'u'::"char" else 'i' end else 'd' end

-- name: rule_answer
-- A base on record counts only if it has as many fields as a row has now.
(select /*: rule */ '' /*:*/
   from (select /*: site */ 1 as v0 /*:*/) as site,
        (select /*: centre */ 1 as v0 /*:*/) as centre,
        (select /*: base */ 1 as v0 /*:*/
           from (select case when length(f.bare) - length(replace(f.bare, ',', '')) + 1 = /*: count */ 1 /*:*/
                             then c.image::pg_temp."__base__" end as image
                   from (select regexp_replace(c.image, '"(?:[^"\\]|""|\\.)*"', '', 'g') as bare) as f
                 offset 0) as s) as base)

-- name: field
(/*: image */ v0 /*:*/)./*: name */ "f1" /*:*/

-- name: json_field
/*: image */ v0 /*:*/ ->> /*: name */ 'v0' /*:*/
