-- Pieces of row filters on PostgreSQL (see replicator/filters.py and terms.py).

-- name: expression
-- How a filter from the YAML is handed to the parser; this never reaches a database.
select
/*: expression */ true /*:*/

-- name: as_numeric
-- Arithmetic on numeric does not overflow.
(/*: value */ 1 /*:*/)::numeric

-- name: as_bigint
(/*: value */ 1 /*:*/)::bigint

-- name: as_type
(/*: value */ 1 /*:*/)::/*: type */ text /*:*/
