-- Whether a value goes to its target column unchanged: one expression per form, 1 when it fits, else 0, never NULL.
-- Each block is an expression over "__column__" (not a statement), put into the reader's select list. What does not
-- fit is not lost: its row takes the careful way and is parked where the target cannot hold it.
-- substr() around comparisons with text takes a column's affinity and collation away. Which column uses which form: replicator/types.py, fits_form. No function newer than SQLite 3.9 (json_valid).

-- name: any
1

-- name: none
-- Targets whose values SQLite cannot judge (network addresses, ranges, arrays, enums …).
("__column__" is null)

-- name: int16
(typeof("__column__") = 'null' or (typeof("__column__") = 'integer' and "__column__" between -32768 and 32767))

-- name: int32
(typeof("__column__") = 'null'
    or (typeof("__column__") = 'integer' and "__column__" between -2147483648 and 2147483647))

-- name: int64
(typeof("__column__") in ('integer', 'null'))

-- name: numeric
-- Reals by their shortest digits; 9e999 is infinity. Text when it is a plain decimal number.
(case typeof("__column__")
    when 'null' then 1
    when 'integer' then 1
    when 'real' then "__column__" between -1.7976931348623157e308 and 1.7976931348623157e308
    when 'text' then instr("__column__", char(0)) = 0
        and ltrim("__column__", '-') not glob '*[^0-9.]*' and ltrim("__column__", '-') glob '[0-9]*'
        and length("__column__") - length(ltrim("__column__", '-')) < 2
        and length("__column__") - length(replace("__column__", '.', '')) < 2 and "__column__" glob '*[0-9]'
    else 0 end)

-- name: float8
(case typeof("__column__")
    when 'real' then 1
    when 'null' then 1
    when 'integer' then "__column__" between -9007199254740992 and 9007199254740992
    else 0 end)

-- name: float4
-- Whether a double is a four-byte real cannot be asked in SQL: only small whole numbers surely are.
(case typeof("__column__")
    when 'null' then 1
    when 'integer' then "__column__" between -16777216 and 16777216
    else 0 end)

-- name: text
-- PostgreSQL text cannot hold a NUL character.
(case typeof("__column__")
    when 'text' then instr("__column__", char(0)) = 0
    when 'null' then 1
    else 0 end)

-- name: bytes
(typeof("__column__") in ('blob', 'null'))

-- name: bool
(typeof("__column__") = 'null' or (typeof("__column__") = 'integer' and "__column__" in (0, 1)))

-- name: uuid
(case typeof("__column__")
    when 'null' then 1
    when 'text' then length(cast("__column__" as blob)) = 36 and length(replace("__column__", '-', '')) = 32
        and replace("__column__", '-', '') not glob '*[^0-9a-fA-F]*' and "__column__" glob '????????-????-????-????-*'
    else 0 end)

-- name: date
-- With '+0 days' strftime moves 30 February to 1 March, so a real date is one it leaves alone. PostgreSQL has no year 0.
(case typeof("__column__")
    when 'null' then 1
    when 'text' then length(cast("__column__" as blob)) = 10 and substr("__column__", 1, 4) <> '0000'
        and "__column__" glob '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]'
        and coalesce(strftime('%Y-%m-%d', "__column__", '+0 days') = substr("__column__", 1, 10), 0)
    else 0 end)

-- name: time
(case typeof("__column__")
    when 'null' then 1
    when 'text' then length(cast("__column__" as blob)) between 8 and 15 and instr("__column__", char(0)) = 0
        and substr("__column__", 1, 8) glob '[0-2][0-9]:[0-5][0-9]:[0-5][0-9]' and substr("__column__", 1, 2) < '24'
        and (length("__column__") = 8
            or (substr("__column__", 9) glob '.[0-9]*' and substr("__column__", 10) not glob '*[^0-9]*'))
    else 0 end)

-- name: timestamp
-- Date and time without a zone, at most 6 fraction digits.
(case typeof("__column__")
    when 'null' then 1
    when 'text' then length(cast("__column__" as blob)) between 19 and 26 and instr("__column__", char(0)) = 0
        and substr("__column__", 1, 19)
            glob '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][ T][0-2][0-9]:[0-5][0-9]:[0-5][0-9]'
        and substr("__column__", 1, 4) <> '0000'
        and coalesce(strftime('%Y-%m-%d', substr("__column__", 1, 10), '+0 days')
            = substr("__column__", 1, 10), 0)
        and substr("__column__", 12, 2) < '24'
        and (length("__column__") = 19
            or (substr("__column__", 20) glob '.[0-9]*' and substr("__column__", 21) not glob '*[^0-9]*'))
    else 0 end)

-- name: timestamptz
-- Date and time with Z or an offset in hours and minutes up to ±15:59; without a zone it names no moment and does not
-- fit. PostgreSQL stores the moment, so years at the edge of the calendar are left out.
(case typeof("__column__")
    when 'null' then 1
    when 'text' then instr("__column__", char(0)) = 0 and length(cast("__column__" as blob)) between 20 and 32
        and substr("__column__", 1, 19)
            glob '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][ T][0-2][0-9]:[0-5][0-9]:[0-5][0-9]'
        and substr("__column__", 1, 10) >= '0001-01-02'
        and coalesce(strftime('%Y-%m-%d', substr("__column__", 1, 10), '+0 days')
            = substr("__column__", 1, 10), 0)
        and substr("__column__", 12, 2) < '24'
        and (substr("__column__", -1) = 'Z'
            or (substr("__column__", -6) glob '[+-][0-1][0-9]:[0-5][0-9]' and substr("__column__", -5, 2) < '16'))
        and (length("__column__") - case substr("__column__", -1) when 'Z' then 1 else 6 end = 19
            or (substr("__column__", 20, 2) glob '.[0-9]'
                and length("__column__") - case substr("__column__", -1) when 'Z' then 1 else 6 end between 21 and 26
                and substr("__column__", 21, length("__column__") - 20
                    - case substr("__column__", -1) when 'Z' then 1 else 6 end) not glob '*[^0-9]*'))
    else 0 end)

-- name: json
(case typeof("__column__")
    when 'null' then 1
    when 'text' then instr("__column__", char(0)) = 0 and json_valid("__column__")
    else 0 end)

-- name: jsonb
-- jsonb refuses \u0000, lone surrogates and huge exponents: text that may have them takes the careful way.
(case typeof("__column__")
    when 'null' then 1
    when 'text' then instr("__column__", char(0)) = 0 and instr("__column__", '\u') = 0 and json_valid("__column__")
        and "__column__" not glob '*[0-9][eE][+0-9-][0-9][0-9][0-9]*'
    else 0 end)

-- name: text_affinity
-- SQLite targets that would turn a value of another storage class into text.
(typeof("__column__") in ('text', 'blob', 'null'))

-- name: numeric_affinity
(typeof("__column__") in ('integer', 'blob', 'null'))

-- name: real_affinity
(typeof("__column__") in ('real', 'blob', 'null'))
