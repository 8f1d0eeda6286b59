"""Row images: the canonical texts of a row's values one behind the other, so framed that no two rows share an image.

A piece per column: ``~,`` is NULL; forms that never hold a comma end with one (``42,``); all others carry their length in
characters (``5:a,b,c``). A value without canonical form is ``!length:storage class and value``, which no PostgreSQL side ever
makes, so such a row always differs. Row hash: the first eight bytes of the image's sha256, signed; bucket: the same
hash over the key's image, first two bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from replicator.canonical import times
from replicator.canonical.forms import (
    SPELLERS,
    Form,
    NoFormError,
    Undecodable,
    Value,
    canonical_text,
    shortest_single,
    storage_text,
)

_LENGTHED = frozenset({Form.TEXT, Form.PADDED, Form.LOOSE_TEXT, Form.JSONB, Form.STORAGE})
_NULL = "~,"


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of an image. ``text`` is ``None`` for NULL; ``fits`` is false for a value without canonical form."""

    text: str | None
    fits: bool = True


def frame(form: Form, value: Value) -> str:
    """One SQLite value as a piece of an image."""
    if value is None:
        return _NULL
    try:
        text = SPELLERS[form](value)
    except NoFormError:
        text = storage_text(value)
        return f"!{len(text)}:{text}"
    return f"{len(text)}:{text}" if form in _LENGTHED else text + ","


def image_rows(forms: Sequence[Form], rows: Sequence[Sequence[Value]]) -> list[str]:
    """The images of SQLite rows. Works by column: a column of one storage class is framed without a call per value."""
    if not rows:
        return []
    columns = [_frames(form, column) for form, column in zip(forms, zip(*rows, strict=True), strict=True)]
    return list(map("".join, zip(*columns, strict=True)))


def hash_images(images: Sequence[str]) -> tuple[int, ...]:
    """The row hashes, as PostgreSQL computes them in ``sql/postgres/audit.sql``."""
    digests = b"".join([sha256(image.encode()).digest()[:8] for image in images])
    return struct.unpack(f">{len(images)}q", digests)


def bucket_of(image: str, buckets: int) -> int:
    """The bucket of a key's image; ``buckets`` is a power of two, at most 65,536."""
    digest = sha256(image.encode()).digest()
    return (digest[0] << 8 | digest[1]) & (buckets - 1)


def split_image(forms: Sequence[Form], image: str) -> tuple[Cell, ...]:
    """The values of an image. Raises ValueError when the image is not of these forms."""
    cells = []
    place = 0
    for form in forms:
        if image.startswith(_NULL, place):
            cells.append(Cell(None))
            place += len(_NULL)
        elif form in _LENGTHED or image.startswith("!", place):
            colon = image.index(":", place)
            fits = image[place] != "!"
            end = colon + 1 + int(image[place if fits else place + 1 : colon])
            cells.append(Cell(image[colon + 1 : end], fits))
            place = end
        else:
            comma = image.index(",", place)
            cells.append(Cell(image[place:comma]))
            place = comma + 1
    if place != len(image):
        raise ValueError("the image has more values than forms")
    return tuple(cells)


def readable(form: Form, cell: Cell) -> str | None:
    """The value for people, as PostgreSQL prints it where it can; ``None`` for NULL."""
    text = cell.text
    if text is None:
        return None
    if not cell.fits or form is Form.STORAGE:
        value = stored_value(text)
        return "\\x" + value.hex() if isinstance(value, bytes) else str(value)
    show = _SHOWN.get(form)
    return text if show is None or text == "NaN" else show(text)


def _number(digits: str) -> int:
    return int.from_bytes(bytes.fromhex(digits), "big", signed=True)


def _double_text(digits: str) -> str:
    return repr(struct.unpack(">d", bytes.fromhex(digits))[0])


_SHOWN: Mapping[Form, Callable[[str], str]] = {
    Form.FLOAT8: _double_text,
    Form.FLOAT8_ZERO: _double_text,
    Form.FLOAT4: lambda text: shortest_single(struct.unpack(">f", bytes.fromhex(text))[0]),
    Form.BOOLEAN: {"t": "true", "f": "false"}.__getitem__,
    Form.BYTES: "\\x".__add__,
    Form.DATE: lambda text: times.date_text(_number(text)),
    Form.TIME: lambda text: times.time_text(_number(text)),
    Form.TIMESTAMP: lambda text: times.timestamp_text(_number(text)),
    Form.TIMESTAMPTZ: lambda text: times.timestamp_text(_number(text), "+00"),
}


def native_value(form: Form, cell: Cell) -> Value:
    """The SQLite value a canonical text stands for, in its most usual spelling."""
    text = cell.text
    if text is None:
        return None
    if not cell.fits or form is Form.STORAGE:
        return stored_value(text)
    match form:
        case Form.INTEGER:
            return int(text)
        case Form.FLOAT8 | Form.FLOAT8_ZERO:
            return text if text == "NaN" else float(readable(form, cell) or 0)
        case Form.BYTES:
            return bytes.fromhex(text)
        case Form.BOOLEAN:
            return int(text == "t")
        case _:
            return readable(form, cell)


def stored_value(text: str) -> Value:
    """The value of a ``storage_text``."""
    kind, rest = text[0], text[1:]
    match kind:
        case "i":
            return int(rest)
        case "r":
            number: float = struct.unpack(">d", bytes.fromhex(rest))[0]
            return number
        case "b":
            return bytes.fromhex(rest)
        case "u":
            return Undecodable(bytes.fromhex(rest))
        case _:
            return rest


def _frames(form: Form, column: Sequence[Value]) -> list[str]:
    """One column's pieces, storage class by storage class: each class may have a way without a call per value."""
    kinds = set(map(type, column))
    if len(kinds) == 1:
        return _frames_of(form, kinds.pop(), column)
    parts = {kind: iter(_frames_of(form, kind, [value for value in column if type(value) is kind])) for kind in kinds}
    return [next(parts[type(value)]) for value in column]


def _frames_of(form: Form, kind: type, column: Sequence[Any]) -> list[str]:
    """As ``frame`` for each value; all are of one storage class."""
    if kind is type(None):
        return [_NULL] * len(column)
    if kind is int and form in (Form.INTEGER, Form.NUMERIC):
        return [f"{value}," for value in column]
    if kind is str and form in (Form.TEXT, Form.LOOSE_TEXT) and "\0" not in "".join(column):
        return [f"{len(value)}:{value}" for value in column]
    if kind is str and form is Form.STORAGE:
        return [f"{len(value) + 1}:t{value}" for value in column]
    if kind is int and form is Form.STORAGE:
        return [f"{len(text)}:{text}" for text in [f"i{value}" for value in column]]
    if kind is float and form is Form.STORAGE:
        digits = struct.pack(f">{len(column)}d", *column).hex()
        return [f"17:r{digits[place : place + 16]}" for place in range(0, len(digits), 16)]
    if kind is float and form is Form.FLOAT8_ZERO:
        digits = struct.pack(f">{len(column)}d", *[value + 0.0 for value in column]).hex()
        return [digits[place : place + 16] + "," for place in range(0, len(digits), 16)]
    if kind is bytes and form is Form.BYTES:
        return [f"{value.hex()}," for value in column]
    return [frame(form, value) for value in column]


def reason_of(form: Form, cell: Cell) -> str:
    """Why a cell without canonical form has none."""
    try:
        canonical_text(form, stored_value(cell.text or "t"))
    except NoFormError as error:
        return str(error)
    return "the value has no canonical form"


def storage_class(cell: Cell) -> str:
    """SQLite's storage class of a cell in the form STORAGE."""
    return {"i": "integer", "r": "real", "b": "blob", "u": "text that is not UTF-8"}.get((cell.text or "t")[0], "text")
