"""Spells outbox rows: record literals as ``row(…)::text`` does, images by name as capture by name does, COPY rows.

Rows go into the outbox by binary COPY: texts need no escaping there, and a row is a few joined pieces.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from replicator.engines.postgres.wal.protocol import UNCHANGED

PLAIN_TYPES = frozenset({16, 20, 21, 23, 26, 700, 701, 1700, 2950})
"""Types whose texts are never empty and never need quotes: booleans, numbers, UUIDs."""

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"

_SPECIAL = b' \t\n\v\f\r"\\(),'
_NULL, _TEXT = ord("n"), ord("t")
_UINT = struct.Struct(">I").unpack_from
_MIDDLE = 27
_NULL_FIELD = b"\xff\xff\xff\xff"
_TEXT_OID = 25
_size = struct.Struct(">i").pack
_HEAD = struct.Struct(">6xi4xc4xq").unpack_from


def read_fields(data: bytes, at: int, plain: Sequence[bool]) -> tuple[list[bytes], int]:
    """A row of a pgoutput message as the fields of a record literal, and where it ends. The hot path: one pass.

    NULL is nothing, quotes stand only where PostgreSQL writes them. ``plain``: columns whose texts never need them.
    UNCHANGED where the log does not repeat a value.
    """
    fields: list[bytes] = []
    take = fields.append
    at += 2
    for safe in plain:
        kind = data[at]
        if kind == _TEXT:
            start = at + 5
            at = start + _UINT(data, at + 1)[0]
            value = data[start:at]
            if safe:
                take(value)
            elif len(value.translate(None, _SPECIAL)) != at - start or at == start:
                take(b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'""') + b'"')
            else:
                take(value)
        else:
            take(b"" if kind == _NULL else UNCHANGED)
            at += 1
    return fields, at


def record(values: Sequence[bytes | None]) -> bytes:
    """The values as the record literal PostgreSQL writes."""
    return b"(" + b",".join([b"" if value is None else _field(value) for value in values]) + b")"


def _field(value: bytes) -> bytes:
    if value and len(value.translate(None, _SPECIAL)) == len(value):
        return value
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'""') + b'"'


def by_name(names: Sequence[str], values: Sequence[bytes | None]) -> bytes:
    """An image of a table whose columns are not those on record: a JSON object, column name → text."""
    pairs = zip(names, values, strict=True)
    found = {name: None if value is None else value.decode() for name, value in pairs}
    return json.dumps(found, ensure_ascii=False).encode()


def text_field(value: bytes | None) -> bytes:
    """A field of a binary COPY row that holds text."""
    return _NULL_FIELD if value is None else _size(len(value)) + value


def array_field(values: Sequence[bytes | None] | None) -> bytes:
    """A field of a binary COPY row that holds an array of texts."""
    if values is None:
        return _NULL_FIELD
    body = struct.pack(">iiiii", 1, 1, _TEXT_OID, len(values), 1) + b"".join(map(text_field, values))
    return _size(len(body)) + body


def row_head(fields: int, relation: int, op: str) -> bytes:
    """The beginning of a row: how many fields, then relation and op."""
    return struct.pack(">hiii", fields, 4, relation, 1) + op.encode()


def time_origin_place(changed_at: int, origin: bytes | None, lsn: int) -> bytes:
    """The next three fields of a row; ``lsn``: where its transaction's commit stands in the log."""
    return struct.pack(">iq", 8, changed_at) + text_field(origin) + struct.pack(">iQ", 8, lsn)


@dataclass(frozen=True, slots=True)
class OutboxChange:
    """What stands in a row that was spelled for the outbox."""

    relation: int
    op: bytes
    changed_at: int
    before: bytes | None
    after: bytes | None


def read_row(row: bytes) -> OutboxChange:
    """The other way round: what a binary COPY row for the outbox holds."""
    relation, op, changed_at = _HEAD(row)
    at = _field_end(row, _MIDDLE)
    at = _field_end(row, at)
    before, at = _text_at(row, at)
    return OutboxChange(relation, op, changed_at, before, _text_at(row, at)[0])


def copy_line(order: int, change: OutboxChange) -> bytes:
    """A change as a line of text COPY for a target's stage: see ports.OutboxBlock."""
    images = copy_text(change.before), copy_text(change.after)
    return b"%d\t%d\t%b\t%d\t%b\t%b\n" % (order, change.relation, change.op, change.changed_at, *images)


def copy_text(value: bytes | None) -> bytes:
    r"""A value as a field of text COPY: ``\N`` is NULL, and what parts fields and lines is escaped."""
    if value is None:
        return b"\\N"
    if len(value.translate(None, b"\\\n\r\t")) == len(value):
        return value
    for plain, escaped in ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t")):
        value = value.replace(plain, escaped)
    return value


def _field_end(row: bytes, at: int) -> int:
    size = int.from_bytes(row[at : at + 4], "big", signed=True)
    return at + 4 + max(size, 0)


def _text_at(row: bytes, at: int) -> tuple[bytes | None, int]:
    end = _field_end(row, at)
    return (None if row[at] == 0xFF else row[at + 4 : end]), end
