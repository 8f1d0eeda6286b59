"""Decodes pgoutput (protocol version 1, values as text): what a replication slot sends. Pure: no connection.

Messages hold names and type numbers, never attribute numbers; a value is bytes in the client's encoding, ``None`` for NULL,
or UNCHANGED: a large value stored outside its row that the update left as it was, so the log does not repeat it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

BEGIN, COMMIT, RELATION, INSERT, UPDATE, DELETE, TRUNCATE, MESSAGE = map(ord, "BCRIUDTM")
TYPE, ORIGIN = map(ord, "YO")

UNCHANGED = b"\0unchanged"
"""Told by identity; as text cannot hold a zero byte, no value equals it."""

Values = Sequence[bytes | None]

_EPOCH_US = 946_684_800_000_000
"""2000-01-01, PostgreSQL's zero, in microseconds since 1970."""

_UINT = struct.Struct(">I").unpack_from
_NULL, _UNCHANGED, _TEXT, _NEW, _OLD, _KEY = map(ord, "nutNOK")


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction follows: where its commit stands in the log, when it was committed (microseconds since 1970)."""

    commit_lsn: int
    committed_at: int
    xid: int


@dataclass(frozen=True, slots=True)
class TableMessage:
    """A table as it was when the changes that follow were made. ``identity``: ``f`` full, ``d`` key, ``i`` index."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[str, ...]
    types: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row's change. ``old`` is ``None`` where the log has no old row; ``whole``: old has all columns, not the key's only."""

    oid: int
    old: Values | None
    new: Values | None
    whole: bool


@dataclass(frozen=True, slots=True)
class LogMessage:
    """What ``pg_logical_emit_message`` wrote."""

    transactional: bool
    prefix: str
    content: bytes


def read_begin(data: bytes) -> Begin:
    """A Begin message."""
    commit_lsn, committed_at, xid = struct.unpack_from(">QqI", data, 1)
    return Begin(commit_lsn, committed_at + _EPOCH_US, xid)


def read_commit_end(data: bytes) -> int:
    """Where a Commit message's transaction ends in the log: everything before it has been sent."""
    return int(struct.unpack_from(">Q", data, 10)[0])


def read_table(data: bytes) -> TableMessage:
    """A Relation message."""
    oid = _UINT(data, 1)[0]
    schema, at = _string(data, 5)
    name, at = _string(data, at)
    identity, count = chr(data[at]), int.from_bytes(data[at + 1 : at + 3], "big")
    at += 3
    columns, types = [], []
    for _ in range(count):
        column, at = _string(data, at + 1)
        columns.append(column)
        types.append(_UINT(data, at)[0])
        at += 8
    return TableMessage(oid, schema or "pg_catalog", name, identity, tuple(columns), tuple(types))


def read_oid(data: bytes) -> int:
    """The table of an Insert, Update or Delete message; an Insert's row starts at 6."""
    return int(_UINT(data, 1)[0])


def read_update(data: bytes) -> RowChange:
    """An Update message."""
    old: Values | None = None
    kind, at = data[5], 6
    if kind != _NEW:
        old, at = read_values(data, 6)
        at += 1
    return RowChange(_UINT(data, 1)[0], old, read_values(data, at)[0], kind == _OLD)


def read_delete(data: bytes) -> RowChange:
    """A Delete message."""
    return RowChange(_UINT(data, 1)[0], read_values(data, 6)[0], None, data[5] == _OLD)


def read_truncate(data: bytes) -> tuple[int, ...]:
    """A Truncate message: the tables one statement emptied."""
    return tuple(struct.unpack_from(f">{_UINT(data, 1)[0]}I", data, 6))


def read_message(data: bytes) -> LogMessage:
    """A message of ``pg_logical_emit_message``."""
    prefix, at = _string(data, 10)
    size = _UINT(data, at)[0]
    return LogMessage(bool(data[1] & 1), prefix, data[at + 4 : at + 4 + size])


def read_values(data: bytes, at: int) -> tuple[list[bytes | None], int]:
    """The values of a row that starts at ``at``, and where it ends."""
    count = data[at] << 8 | data[at + 1]
    at += 2
    values: list[bytes | None] = []
    take = values.append
    for _ in range(count):
        kind = data[at]
        if kind == _TEXT:
            start = at + 5
            at = start + _UINT(data, at + 1)[0]
            take(data[start:at])
        elif kind == _NULL:
            take(None)
            at += 1
        elif kind == _UNCHANGED:
            take(UNCHANGED)
            at += 1
        else:
            raise ValueError(f"a value of kind {chr(kind)!r} was not asked for")
    return values, at


def _string(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return data[at:end].decode(), end + 1
