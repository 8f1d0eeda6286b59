"""Values on their way into a SQLite table: conversion, fitness, text forms, and the ledger's checksum. Pure.

Nothing is altered in silence: what a column's affinity would turn into something else is refused with a reason.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import math
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation

from replicator.engines.sqlite.affinity import Affinity, affinity_of
from replicator.engines.sqlite.reading import Undecoded

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.IGNORECASE)
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_FLOATS = frozenset(("double precision", "real"))
_INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}
_INT64 = 1 << 63
_EXACT_DIGITS = 15
"""A double gives so many digits back as they came."""
_BATCH_OF_ARGUMENTS = 100
"""SQLite takes 127 arguments per function; wider rows are digested in pieces."""

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Made once: ``json.dumps`` would make an encoder per image."""

_ZONED = re.compile(r"timestamp(\(\d\))? with time zone")
_HOUR_ZONE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d")

Converter = Callable[[str], object]


class UnfitError(Exception):
    """A value that the target column cannot hold unchanged; the message says why."""


class SourceText(str):
    """A value as a PostgreSQL source printed it, not yet converted."""

    __slots__ = ()


# --- into storage -------------------------------------------------------------------------------------------------


def converter(source_type: str, target_type: str) -> Converter | None:
    """Turns PostgreSQL's text of a value into what the target column stores; ``None`` when the text is stored as it is.

    The converter raises UnfitError. What it gives is a value of SQLite's own classes, never a SourceText: keys are told apart
    by how they are stored.
    """
    if source_type == "bytea":
        return lambda text: bytes.fromhex(text[2:])
    affinity = affinity_of(target_type)
    if _ZONED.fullmatch(source_type):
        return _to_zoned
    if affinity in (Affinity.TEXT, Affinity.BLOB):
        return None
    if source_type == "boolean":
        return {"t": 1, "f": 0, "true": 1, "false": 0}.__getitem__
    if affinity is Affinity.REAL:
        return _to_float if source_type in _FLOATS else _to_exact_float
    numeric = _is_number(source_type)
    return lambda text: _to_number(text, affinity, numeric)


def _to_zoned(text: str) -> object:
    """SQLite's date functions read ``+00:00``, not PostgreSQL's ``+00``; of other years than 0000 to 9999 they read nothing."""
    return f"{text}:00" if _HOUR_ZONE.fullmatch(text) else str(text)


def _to_float(text: str) -> object:
    if text == "NaN":
        raise UnfitError("SQLite cannot hold NaN: it would become NULL")
    return _INFINITIES.get(text) or float(text)


def _to_exact_float(text: str) -> object:
    if text in ("NaN", "Infinity", "-Infinity"):
        return _to_float(text)
    if not _NUMBER.fullmatch(text):
        return str(text)
    number = float(text)
    if not math.isfinite(number) or Decimal(repr(number)) != Decimal(text):
        raise UnfitError(f"{_short(text)} has more digits than SQLite's REAL keeps")
    return number


def _to_number(text: str, affinity: Affinity, numeric: bool) -> object:
    if _INTEGER.fullmatch(text) and text != "-0" and -_INT64 <= (whole := int(text)) < _INT64:
        return whole
    if text == "NaN" and numeric:
        raise UnfitError("SQLite cannot hold NaN as a number")
    if text in _INFINITIES and numeric:
        return _INFINITIES[text]
    if not _NUMBER.fullmatch(text):
        return str(text)
    number = float(text)
    if not numeric or not math.isfinite(number) or not _same_number(number, text):
        raise UnfitError(f"{_short(text)} would lose digits in a column of {affinity} affinity")
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number


def _is_number(source_type: str) -> bool:
    return source_type in _FLOATS or source_type.startswith(("numeric", "smallint", "integer", "bigint"))


def _same_number(number: float, text: str) -> bool:
    if len(text) <= _EXACT_DIGITS and "e" not in text and "E" not in text:
        return True
    try:
        return Decimal(repr(number)) == Decimal(text.strip())
    except InvalidOperation:
        return False


def unfit(value: object, target_type: str) -> str:
    """Why a value of a SQLite source cannot be stored unchanged; empty when it can."""
    if isinstance(value, Undecoded):
        return f"text that is not UTF-8 ({_short(value.hex())})"
    affinity = affinity_of(target_type)
    if affinity is Affinity.BLOB or value is None or isinstance(value, bytes):
        return ""
    if affinity is Affinity.TEXT:
        return "" if isinstance(value, str) else f"{value!r} would become text in a column of type {target_type}"
    if isinstance(value, str):
        numeric = _NUMBER.fullmatch(value)
        return f"text {_short(value)} would become a number in a column of type {target_type}" if numeric else ""
    wrong = isinstance(value, int) if affinity is Affinity.REAL else isinstance(value, float) and value.is_integer()
    return f"{value!r} would change its class in a column of type {target_type}" if wrong else ""


# --- text forms ---------------------------------------------------------------------------------------------------


def shown(value: object) -> str | None:
    """A value for people and for the conflict record."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return repr(value) if isinstance(value, float) else str(value)


def encode_image(values: Iterable[object]) -> str:
    """Values as JSON that ``decode_image`` gives back exactly, class and bit."""
    return _ENCODE([_tagged(value) for value in values])


def decode_image(image: str) -> list[object]:
    """The values ``encode_image`` was given."""
    return [_untagged(value) for value in json.loads(image)]


def _tagged(value: object) -> object:
    if isinstance(value, float):
        return {"real": repr(value)}
    if isinstance(value, bytes):
        return {"text" if isinstance(value, Undecoded) else "blob": value.hex()}
    return {"source": str(value)} if isinstance(value, SourceText) else value


def _untagged(value: object) -> object:
    if not isinstance(value, dict):
        return value
    ((tag, text),) = value.items()
    makers: dict[str, Callable[[str], object]] = {
        "real": float,
        "blob": bytes.fromhex,
        "text": lambda raw: Undecoded(bytes.fromhex(raw)),
        "source": SourceText,
    }
    return makers[tag](text)


def decode_text(raw: bytes, encoding: str) -> str | Undecoded:
    """Text as SQLite keeps it in a file of this encoding; an ``Undecoded`` stands for text that is none."""
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        return Undecoded(raw)


def key_maker(constants: Sequence[str], places: Sequence[int]) -> Callable[[Sequence[object]], str]:
    """Makes the key text of a row: a JSON array of constants and key values, different for different keys."""
    if len(places) != 1:
        return lambda row: encode_image((*constants, *(row[place] for place in places)))
    (place,) = places
    start = encode_image(constants)[:-1] + ("," if constants else "")

    def make(row: Sequence[object]) -> str:
        value = row[place]
        return f"{start}{value}]" if type(value) is int else encode_image((*constants, value))

    return make


def typed(text: str | None, declared: str, known: Iterable[object] = ()) -> object:
    """A value from its text form: the one of ``known`` that is shown so, else what the column's type makes of the text.

    Raises UnfitError.
    """
    for value in known:
        if shown(value) == text:
            return value
    if text is None:
        return None
    if text.startswith("\\x") and affinity_of(declared) is Affinity.BLOB:
        return bytes.fromhex(text[2:])
    convert = converter("text" if not _NUMBER.fullmatch(text) else "numeric", declared)
    if convert is not None:
        return convert(text)
    numeric = affinity_of(declared) is Affinity.BLOB and any(isinstance(value, (int, float)) for value in known)
    return _to_number(text, Affinity.NUMERIC, True) if numeric else text


def image_call(values: Sequence[str]) -> str:
    """The SQL expression for the image of these expressions, as ``encode_image`` makes it."""
    if len(values) <= _BATCH_OF_ARGUMENTS:
        return f"replicator_image({', '.join(values)})"
    rest = image_call(values[_BATCH_OF_ARGUMENTS:])
    start = image_call(values[:_BATCH_OF_ARGUMENTS])
    return f"(substr({start}, 1, length({start}) - 1) || ',' || substr({rest}, 2))"


def image_value(image: str | None, place: int, count: int) -> str | bytes | int | float | None:
    """One value of an image of ``count`` values; None where there is no such image."""
    values = decode_image(image) if image is not None else []
    value = values[place] if len(values) == count else None
    return value if isinstance(value, (str, bytes, int, float)) else None


# --- checksum -----------------------------------------------------------------------------------------------------


def checksum(*values: object) -> bytes:
    """16 bytes of sha256 over a form that is different for different rows (classes and bits included).

    The form is marshal's version 2: fixed since Python 2.5 for these five classes, and three times faster than any made
    in Python.
    """
    return hashlib.sha256(marshal.dumps(values, 2)).digest()[:16]  # type: ignore[arg-type]


def checksum_of(values: Sequence[object]) -> bytes:
    """What ``checksum_call`` makes of these values."""
    if len(values) <= _BATCH_OF_ARGUMENTS:
        return checksum(*values)
    starts = range(0, len(values), _BATCH_OF_ARGUMENTS)
    return checksum_of([checksum_of(values[start : start + _BATCH_OF_ARGUMENTS]) for start in starts])


def checksum_call(values: Sequence[str]) -> str:
    """The SQL expression that digests these expressions."""
    if len(values) <= _BATCH_OF_ARGUMENTS:
        return f"replicator_checksum({', '.join(values)})"
    starts = range(0, len(values), _BATCH_OF_ARGUMENTS)
    return checksum_call([checksum_call(values[start : start + _BATCH_OF_ARGUMENTS]) for start in starts])


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else repr(text[:57] + "...")
