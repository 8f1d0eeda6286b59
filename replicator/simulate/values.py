"""Values for columns by the family of their type: few enough to meet again, odd enough to break what is careless. Pure."""

from __future__ import annotations

import uuid
from random import Random

from replicator.model import Engine
from replicator.simulate.schema import Column

Value = None | int | float | str | bytes

_TEXTS = ("A", "B", "", " ", "Ω ≠ ω", "it's", '"quoted"', "zero\\n", "🩸 \u202e")
_FLOATS = (0.0, 1.5, -2.25, 1e-300, 1.7976931348623157e308, 0.1, 5e-324)
_INTS = (0, 1, -1, 7, 2**31 - 1, -(2**31))
_NUMBERS = ("0", "1.5", "-2.25", "1234567.875", "0.001")
_BYTES = (b"", b"\x00\xff", b"it's", b"\\x41")


def key_value(column: Column, number: int) -> Value:
    """The ``number``-th value of a key column; the same in every database, other numbers have others."""
    match column.family:
        case "int":
            return number + 1
        case "numeric" | "float" | "float4":
            return f"{number + 1}.5" if column.engine is Engine.POSTGRES else number + 1.5
        case "bool":
            return truth(column, bool(number % 2))
        case "bytes":
            return bytes([number + 1])
        case _:
            return _plain(column, number)


def _plain(column: Column, number: int) -> Value:
    """Values that are texts, or spelled as such."""
    match column.family:
        case "uuid":
            return str(uuid.UUID(int=number + 1))
        case "date":
            return f"2024-02-{number % 28 + 1:02}"
        case "timestamp":
            return f"2024-02-29 12:34:{number % 60:02}"
        case "timestamptz":
            return f"2024-02-29 12:34:{number % 60:02}+00:00"
        case "time":
            return f"12:34:{number % 60:02}"
        case "timetz":
            return f"12:34:{number % 60:02}+00"
        case "interval":
            return f"{number} days"
        case "json" | "jsonb":
            return f'{{"n": {number}}}'
        case "bits":
            return format(number % 8, "b").zfill(column.length or 1)
        case _:
            return f"k{number}"


def value(column: Column, random: Random) -> Value:
    """Any value of a column; NULL where it may be, one time in eight."""
    if column.nullable and random.random() < 0.125:
        return None
    return _any(column, random)


def _any(column: Column, random: Random) -> Value:
    match column.family:
        case "int":
            return random.choice(_INTS)
        case "float":
            return random.choice(_FLOATS)
        case "float4":
            return random.choice(_FLOATS[:3])
        case "numeric":
            text = random.choice(_NUMBERS)
            return text if column.engine is Engine.POSTGRES else float(text)
        case "bool":
            return truth(column, random.random() < 0.5)
        case "bytes":
            return random.choice(_BYTES)
        case "text":
            text = random.choice(_TEXTS)
            return text[: column.length] if column.length else text
        case _:
            return _plain(column, random.randrange(20))


def truth(column: Column, yes: bool) -> Value:
    """A boolean as the column's engine takes it."""
    return int(yes) if column.engine is Engine.SQLITE else "t" if yes else "f"


def stamp_value(column: Column, stamp: str) -> Value:
    """A stamp (a letter and a number) as the column takes it."""
    return int(stamp[1:]) if column.family == "int" else stamp
