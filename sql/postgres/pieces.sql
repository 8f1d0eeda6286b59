-- Expressions the apply templates are filled with. Reads, writes: nothing by themselves. Used by: engines/postgres/lane.py.

-- name: as_text
/*: value */ v0 /*:*/::text

-- name: as_type
/*: value */ v0 /*:*/::/*: type */ text /*:*/

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

-- name: same_checksum
hashtextextended(row(/*: current */ v0 /*:*/)::text, 0) = c.base
