"""The canonical forms: their names, what each means, and how a SQLite value is spelled in each.

A value that a form cannot spell raises NoFormError with the reason: to the audit that row is a difference, never a crash.
Nothing is rounded, trimmed or guessed here: what would change a value has no form.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TypeAlias

from replicator.canonical import documents, times

FORMS_VERSION = 1
"""Grows whenever a form spells any value in another way: digests of two versions must never be compared."""

Value: TypeAlias = int | float | str | bytes | None
"""A value as SQLite stores it: its five storage classes."""


class Form(StrEnum):
    """How the values of a pair of columns are spelled for comparison. Both sides of a pair use one form.

    NULL stands outside of every form. Which pair of types takes which form is said by the type rules.
    """

    INTEGER = "integer"
    """Any integer type: decimal digits. SQLite: integers, integral reals, digits in text."""
    NUMERIC = "numeric"
    """Decimal value without trailing zeros (``trim_scale``), NaN and infinities by name. SQLite: integers, reals by their
    shortest exact digits, numbers in text with all their digits."""
    FLOAT8 = "float8"
    """The eight bytes of the double as hex; -0.0 differs from 0.0; every NaN is one. Only for PostgreSQL pairs: a SQLite
    REAL column cannot hold -0.0. Widens ``real``."""
    FLOAT8_ZERO = "float8_zero"
    """As FLOAT8, but -0.0 is 0.0: for pairs with SQLite on one side."""
    FLOAT4 = "float4"
    """The four bytes of a ``real`` as hex, -0.0 being 0.0. SQLite: a double that is exactly a 4-byte float or the shortest
    decimal spelling of one; any other double would have been rounded and has no form."""
    BOOLEAN = "boolean"
    """``t`` or ``f``. SQLite: 0 and 1, or PostgreSQL's words for them."""
    TEXT = "text"
    """Characters as they stand; every other PostgreSQL type by ``::text``. SQLite: text only."""
    PADDED = "padded"
    """``character(n)``: as TEXT without trailing blanks on either side."""
    LOOSE_TEXT = "loose_text"
    """As TEXT; a SQLite integer counts as its digits and a real as its shortest exact digits: for columns without a type."""
    BYTES = "bytes"
    """Hex. SQLite: blobs only."""
    DATE = "date"
    """PostgreSQL's four bytes as hex: days since 2000, infinities and BC included. SQLite: the texts told in ``times``."""
    TIME = "time"
    """Eight bytes as hex: microseconds since midnight. SQLite: ``HH:MM``, seconds and fraction as wanted."""
    TIMESTAMP = "timestamp"
    """Eight bytes as hex: microseconds since 2000, infinities and BC included. SQLite: a text without zone or in UTC."""
    TIMESTAMPTZ = "timestamptz"
    """As TIMESTAMP, of the instant in UTC. SQLite: a text; without zone it is UTC."""
    UUID = "uuid"
    """As PostgreSQL prints it. SQLite: text in any form PostgreSQL reads, or 16 bytes."""
    JSONB = "jsonb"
    """``jsonb::text``. SQLite: JSON text, spelled again as jsonb prints it."""
    STORAGE = "storage"
    """SQLite on both sides: storage class and exact value. Every value has this form."""


class NoFormError(ValueError):
    """The value cannot be spelled in the form; the message is the reason, for the report."""


class Undecodable(bytes):
    """The bytes of a SQLite text that is not UTF-8."""


_INTEGER = re.compile(r"\s*[+-]?\d{1,30}\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_WORDS: Mapping[str, str] = {
    "nan": "NaN", "inf": "Infinity", "infinity": "Infinity", "+inf": "Infinity", "+infinity": "Infinity",
    "-inf": "-Infinity", "-infinity": "-Infinity",
}  # fmt: skip
_TRUE = frozenset({"t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"})
_FALSE = frozenset({"f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"})
_UUID = re.compile(r"\{?((?:[0-9a-f]{4}-?){7}[0-9a-f]{4})\}?", re.IGNORECASE)
_NUMERIC_DIGITS = 131_072
_NUMERIC_SCALE = 16_383
_NAMES = {int: "an integer", float: "a real", str: "text", bytes: "a blob", Undecodable: "text that is not UTF-8"}


def canonical_text(form: Form, value: Value) -> str | None:
    """``value`` spelled in ``form``; ``None`` for NULL. Raises NoFormError with the reason when it cannot be."""
    if value is None:
        return None
    return SPELLERS[form](value)


def storage_text(value: Value) -> str:
    """Storage class and exact value; one letter, then the value."""
    match value:
        case Undecodable():
            return "u" + value.hex()
        case bytes():
            return "b" + value.hex()
        case str():
            return "t" + value
        case float():
            return "r" + struct.pack(">d", value).hex()
        case _:
            return f"i{value}"


def no_form(value: Value, wanted: str) -> NoFormError:
    """The error for a value of the wrong storage class."""
    return NoFormError(f"the value is {_NAMES.get(type(value), 'NULL')}, not {wanted}")


def _integer(value: Value) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2.0**63:
        return str(int(value))
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return str(int(value))
    raise no_form(value, "an integer")


def _numeric(value: Value) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        digits = repr(value + 0.0)
        if "e" in digits:
            return _decimal(digits)
        return _WORDS.get(digits) or digits.removesuffix(".0")
    if isinstance(value, str):
        if word := _WORDS.get(value.strip().lower()):
            return word
        if _NUMBER.fullmatch(value):
            return _decimal(value.strip())
    raise no_form(value, "a number")


def _decimal(text: str) -> str:
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise NoFormError("the number's exponent is too large") from error
    if not number:
        return "0"
    exponent = number.as_tuple().exponent
    if number.adjusted() >= _NUMERIC_DIGITS or (isinstance(exponent, int) and exponent < -4 * _NUMERIC_SCALE):
        raise NoFormError("the number has more digits than numeric holds")
    digits = format(number, "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _double(value: Value) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, int):
        if int(float(value)) == value:
            return float(value)
        raise NoFormError("the integer is not exactly a double")
    if isinstance(value, str) and (_NUMBER.fullmatch(value) or value.strip().lower() in _WORDS):
        return float(value)
    raise no_form(value, "a number")


def _float8(value: Value) -> str:
    number = _double(value)
    return "NaN" if math.isnan(number) else struct.pack(">d", number).hex()


def _float8_zero(value: Value) -> str:
    return _float8(_double(value) + 0.0)


def _float4(value: Value) -> str:
    number = _double(value) + 0.0
    if math.isnan(number):
        return "NaN"
    try:
        packed = struct.pack(">f", number)
    except OverflowError as error:
        raise NoFormError("the number is too large for a 4-byte float") from error
    single: float = struct.unpack(">f", packed)[0]
    if single != number and float(shortest_single(single)) != number:
        raise NoFormError("a 4-byte float would round the number")
    return packed.hex()


def shortest_single(single: float) -> str:
    """The shortest decimal digits that read back as this 4-byte float."""
    packed = struct.pack(">f", single)
    for digits in range(1, 9):
        text = f"{single:.{digits}g}"
        try:
            if struct.pack(">f", float(text)) == packed:
                return text
        except OverflowError:
            continue
    return f"{single:.9g}"


def _boolean(value: Value) -> str:
    if isinstance(value, int | float) and value in (0, 1):
        return "t" if value else "f"
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE or word in _FALSE:
            return "t" if word in _TRUE else "f"
    raise NoFormError("the value is neither true nor false")


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise no_form(value, "text")
    if "\0" in value:
        raise NoFormError("the text holds a NUL character, which PostgreSQL cannot store")
    return value


def _padded(value: Value) -> str:
    return _text(value).rstrip(" ")


def _loose_text(value: Value) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else _WORDS[repr(value)]
    return _text(value)


def _bytes(value: Value) -> str:
    if isinstance(value, bytes) and not isinstance(value, Undecodable):
        return value.hex()
    raise no_form(value, "a blob")


def _uuid(value: Value) -> str:
    digits = ""
    if isinstance(value, str) and (match := _UUID.fullmatch(value)) and value.startswith("{") == value.endswith("}"):
        digits = match.group(1).replace("-", "").lower()
    elif isinstance(value, bytes) and len(value) == 16 and not isinstance(value, Undecodable):
        digits = value.hex()
    if not digits:
        raise no_form(value, "a UUID")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _temporal(read: Callable[[str], int], wanted: str, layout: str = ">q") -> Callable[[Value], str]:
    def spell(value: Value) -> str:
        if not isinstance(value, str):
            raise no_form(value, f"the text of {wanted}")
        try:
            return struct.pack(layout, read(value)).hex()
        except ValueError as error:
            raise NoFormError(str(error)) from error

    return spell


def _jsonb(value: Value) -> str:
    if not isinstance(value, str):
        raise no_form(value, "JSON text")
    try:
        return documents.jsonb_text(value)
    except (ValueError, RecursionError) as error:
        raise NoFormError(f"not JSON that jsonb holds: {error}") from error


SPELLERS: Mapping[Form, Callable[[Value], str]] = {
    Form.INTEGER: _integer,
    Form.NUMERIC: _numeric,
    Form.FLOAT8: _float8,
    Form.FLOAT8_ZERO: _float8_zero,
    Form.FLOAT4: _float4,
    Form.BOOLEAN: _boolean,
    Form.TEXT: _text,
    Form.PADDED: _padded,
    Form.LOOSE_TEXT: _loose_text,
    Form.BYTES: _bytes,
    Form.DATE: _temporal(times.read_date, "a date", ">i"),
    Form.TIME: _temporal(times.read_time, "a time"),
    Form.TIMESTAMP: _temporal(times.read_timestamp, "a timestamp"),
    Form.TIMESTAMPTZ: _temporal(times.read_timestamptz, "a timestamp"),
    Form.UUID: _uuid,
    Form.JSONB: _jsonb,
    Form.STORAGE: storage_text,
}
