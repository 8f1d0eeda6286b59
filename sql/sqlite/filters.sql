-- Pieces of row filters that SQLite spells in its own way: expressions, not statements (see replicator/terms.py).

-- name: moment
-- A timestamp's text in one spelling (blank between date and time, six fraction digits), so that text order is time
-- order. Every spelling that fits a timestamp column (fits.sql) comes out 26 characters long.
(replace(substr(/*: value */ "moment" /*:*/, 1, 19), 'T', ' ') || case length(/*: value */ "moment" /*:*/)
    when 10 then ' 00:00:00.000000' when 16 then ':00.000000' when 19 then '.000000'
    else substr(/*: value */ "moment" /*:*/ || '000000', 20, 7) end)

-- name: whole
-- The result of integer arithmetic. What does not fit 64 bits becomes a real at the very edge of them, and -2^63 would
-- equal an integer: doubled, it lies beyond every integer, as the true result does.
(case typeof(/*: value */ 1 + 1 /*:*/)
    when 'real' then (/*: value */ 1 + 1 /*:*/) * 2 else /*: value */ 1 + 1 /*:*/ end)
