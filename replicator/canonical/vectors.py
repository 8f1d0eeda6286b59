"""The test vector of each form: values both engines must hash alike before a difference or its absence is believed.

A probe holds a value as PostgreSQL reads it and as SQLite stores it; probes of one form all differ from one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from replicator.canonical.forms import Form, Value


class Probe(NamedTuple):
    """One value: PostgreSQL's input text, and SQLite's value."""

    postgres: str | None
    sqlite: Value


_NULL = Probe(None, None)
_FLOATS: tuple[tuple[str, float], ...] = (
    ("0", 0.0), ("1", 1.0), ("-1.5", -1.5), ("0.1", 0.1), ("0.30000000000000004", 0.1 + 0.2), ("5e-324", 5e-324),
    ("2.2250738585072011e-308", 2.225073858507201e-308), ("1.7976931348623157e308", 1.7976931348623157e308),
    ("9007199254740993", 9007199254740992.0), ("Infinity", float("inf")), ("-Infinity", float("-inf")),
)  # fmt: skip
_MOMENTS = (
    "2024-02-29 23:59:59.999999", "2024-02-29T00:00", "1969-12-31 23:59:59.5", "0001-01-01 00:00:00",
    "0044-03-15 12:00:00 BC", "294276-12-31 23:59:59.999999", "4713-01-01 00:00:00 BC", "infinity", "-infinity",
)  # fmt: skip
_DAYS = (
    "2024-02-29",
    "1970-01-01",
    "1999-12-31",
    "0001-01-01",
    "0044-03-15 BC",
    "294277-01-01",
    "infinity",
    "-infinity",
)
_TEXTS = (
    "", "~", "~,", "NULL", "!1:x", "a,b", " a ", "a|b", "Ünïcödé", "e\u0301", "é", "👩‍🔬", "line\nline\r", "\x01", "'\"\\",
)  # fmt: skip
_UUIDS = (
    "00000000-0000-0000-0000-000000000000", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{6ba7b810-9dad11d1-80b400c04fd430c8}",
)  # fmt: skip
_DOCUMENTS = (
    "null", '""', "1", "1.0", "1e2", "-0.0", "1.50e-3", "[]", "{}", "[ 1,2 , [true,false] ]", '{"bb":1,"a":2,"c":{"z":null}}',
    '{"a":1,"a":"last"}', '"\\u00e9\\n\\u0001\\/\\"👩"', '{"é":1,"zz":2}', "123456789012345678901234567890.10",
)  # fmt: skip
_NUMBERS: tuple[tuple[str, Value], ...] = (
    ("0", 0), ("-1", -1), ("1.50", "1.500"), ("0.1", 0.1), ("1e-7", 1e-7), ("1e22", 1e22), ("9223372036854775807", 2**63 - 1),
    ("100", "1e2"), ("12345678901234567890.123456789", "12345678901234567890.1234567890"), ("NaN", "NaN"),
    ("0." + "0" * 100 + "1", "1e-101"), ("9" * 400, "9" * 400),
)  # fmt: skip


def _same(texts: tuple[str, ...]) -> tuple[Probe, ...]:
    return (_NULL, *(Probe(text, text) for text in texts))


VECTORS: Mapping[Form, tuple[Probe, ...]] = {
    Form.INTEGER: (_NULL, *(Probe(str(n), n) for n in (0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)))),
    Form.NUMERIC: (_NULL, *(Probe(text, value) for text, value in _NUMBERS)),
    Form.FLOAT8: (_NULL, Probe("-0", -0.0), Probe("NaN", "NaN"), *(Probe(text, value) for text, value in _FLOATS)),
    Form.FLOAT8_ZERO: (_NULL, Probe("NaN", "NaN"), *(Probe(text, value) for text, value in _FLOATS)),
    Form.FLOAT4: (
        _NULL, Probe("0.1", 0.1), Probe("-0", 0.0), Probe("1e-45", 1e-45), Probe("3.4028235e38", 3.4028235e38),
        Probe("16777216", 16777216.0), Probe("Infinity", float("inf")),
    ),
    Form.BOOLEAN: (_NULL, Probe("true", 1), Probe("false", 0)),
    Form.TEXT: _same(_TEXTS),
    Form.PADDED: _same(("", "a", " a", "é")),
    Form.LOOSE_TEXT: (*_same(_TEXTS), Probe("7", 7), Probe("0.1", 0.1)),
    Form.BYTES: (_NULL, Probe("\\x", b""), Probe("\\x00", b"\0"), Probe("\\x" + bytes(range(256)).hex(), bytes(range(256)))),
    Form.DATE: _same(_DAYS),
    Form.TIME: _same(("00:00", "00:00:00.000001", "12:30", "23:59:59.999999", "24:00:00")),
    Form.TIMESTAMP: _same(_MOMENTS),
    Form.TIMESTAMPTZ: (*_same(_MOMENTS), Probe("2024-01-01 05:00:00+05:30", "2024-01-01T05:00+0530")),
    Form.UUID: _same(_UUIDS),
    Form.JSONB: _same(_DOCUMENTS),
    Form.STORAGE: (
        _NULL, Probe(None, 0), Probe(None, 0.0), Probe(None, "0"), Probe(None, b"0"), Probe(None, ""), Probe(None, b""),
        Probe(None, "a\0b"), Probe(None, 0.1), Probe(None, 2**63 - 1), Probe(None, "é"), Probe(None, bytes(range(256))),
    ),
}  # fmt: skip
