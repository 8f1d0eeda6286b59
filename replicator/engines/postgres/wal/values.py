r"""Changes of one table as the log sends them → lines of text COPY, with as few steps of Python as there can be.

A text in the log cannot hold a zero byte, and the length of one below 256 bytes begins with three: so ``t\0\0\0.`` is where
such a field begins and nothing else, and one regular expression turns a row, or many, into fields parted by tabs. When it
finds as many fields as there are columns, none was NULL or long. All other rows are read value by value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from replicator.engines.postgres.wal import protocol
from replicator.engines.postgres.wal.protocol import UNCHANGED, Values
from replicator.engines.postgres.wal.spelling import copy_text
from replicator.engines.postgres.wal.tables import Lane
from replicator.errors import RejectedError

_FIELDS = re.compile(rb"t\0\0\0.", re.DOTALL).subn
_ROW = 8
"""Where the fields of a message's first row begin: behind kind, table, the row's kind and the number of its columns."""

_ZERO_BELOW = 256
"""A number of columns below this has a zero byte, so that it tells where the second row of an Update begins."""

_OLD, _TOGETHER = ord("O"), 256
_KIND = itemgetter(0)
_LINES = {
    protocol.INSERT: b"%d\tf\tt\t%d\t%b%b%b\n", protocol.UPDATE: b"%d\tt\tt\t%d\t%b%b%b\n",
    protocol.DELETE: b"%d\tt\tf\t%d\t%b%b%b\n",
}  # fmt: skip
_CHUNK_LINES = 2048


class LoggedValues:
    """Meets ports.ValueBlock."""

    def __init__(self, relation: int) -> None:
        self.relation = relation
        self.count = 0
        self.newest_changed_at = 0
        self._groups: list[tuple[int, Lane, int, int, Sequence[bytes]]] = []
        self._read: dict[int, Sequence[tuple[bytes, bytes]]] = {}

    def add(self, order: int, lane: Lane, changed_at: int, messages: Sequence[bytes]) -> None:
        """More changes, numbered from ``order`` + 1 on."""
        self.count += len(messages)
        self.newest_changed_at = max(self.newest_changed_at, changed_at)
        for kind, group in groupby(messages, _KIND):
            same = list(group)
            self._groups.append((order, lane, changed_at, kind, same))
            order += len(same)

    @property
    def inserted(self) -> int:
        """See ports.ValueBlock."""
        return sum(len(group) for _, _, _, kind, group in self._groups if kind == protocol.INSERT)

    def inserts(self, prefix: bytes) -> Iterator[bytes]:
        """See ports.ValueBlock."""
        for number, (_, lane, _, kind, messages) in enumerate(self._groups):
            if kind == protocol.INSERT and number in self._read:
                yield b"".join([prefix + row[1:] + b"\n" for _, row in self._read[number]])
            elif kind == protocol.INSERT:
                for start in range(0, len(messages), _TOGETHER):
                    yield _insert_lines(lane, messages[start : start + _TOGETHER], prefix)

    def is_distinct(self, key: Sequence[int]) -> bool:
        """See ports.ValueBlock."""
        seen: set[bytes] = set()
        for number in range(len(self._groups)):
            seen.update([_keys(before or after, key) for before, after in self._pairs(number)])
        return len(seen) == self.count

    def _pairs(self, number: int) -> Sequence[tuple[bytes, bytes]]:
        """A group's rows before and after, kept: they are read more than once."""
        if number not in self._read:
            _, lane, _, kind, messages = self._groups[number]
            self._read[number] = _pairs(lane, kind, messages)
        return self._read[number]

    def changes(self, key: Sequence[int], *, inserts: bool) -> Iterator[bytes]:
        """See ports.ValueBlock."""
        lines: list[bytes] = []
        for number, (order, lane, changed_at, kind, _) in enumerate(self._groups):
            if kind == protocol.INSERT and not inserts:
                continue
            none, place = b"\t\\N" * len(lane.places), order
            for before, after in self._pairs(number):
                place += 1
                keys = _keys(before or after, key)
                if before and after:
                    if before == after:
                        continue
                    if keys != _keys(after, key):
                        raise RejectedError("a key changes", sqlstate="0A000")
                lines.append(_LINES[kind] % (place, changed_at, keys, before or none, after or none))
            if len(lines) >= _CHUNK_LINES:
                yield b"".join(lines)
                lines.clear()
        yield b"".join(lines)


def _insert_lines(lane: Lane, messages: Sequence[bytes], prefix: bytes) -> bytes:
    count, width = len(messages), len(lane.places)
    if lane.in_order:
        text, found = _FIELDS(b"\t", b"\n".join([data[_ROW:] for data in messages]))
        if found == count * width == text.count(b"\t") and text.count(b"\n") == count - 1:
            return prefix + _escaped(text)[1:].replace(b"\n\t", b"\n" + prefix) + b"\n"
    images = [_images(lane, data)[1] or b"" for data in messages]
    return b"".join([prefix + image[1:] + b"\n" for image in images])


def _escaped(text: bytes) -> bytes:
    """What may be escaped in all fields at once."""
    if b"\\" in text:
        text = text.replace(b"\\", b"\\\\")
    return text.replace(b"\r", b"\\r") if b"\r" in text else text


def _keys(row: bytes, places: Sequence[int]) -> bytes:
    fields = row.split(b"\t", max(places) + 2)
    return fields[places[0] + 1] if len(places) == 1 else b"\t".join([fields[place + 1] for place in places])


def _pairs(lane: Lane, kind: int, messages: Sequence[bytes]) -> Sequence[tuple[bytes, bytes]]:
    """Rows before and after (empty: none) of messages of one kind, each field behind a tab."""
    width = len(lane.places)
    if lane.in_order and width < _ZERO_BELOW and (kind == protocol.INSERT or all(data[5] == _OLD for data in messages)):
        wanted = len(messages) * width * (2 if kind == protocol.UPDATE else 1)
        text, found = _FIELDS(b"\t", b"\n".join([data[_ROW:] for data in messages]))
        if found == wanted == text.count(b"\t") and text.count(b"\n") == len(messages) - 1:
            rows = _escaped(text).split(b"\n")
            if kind == protocol.INSERT:
                return [(b"", row) for row in rows]
            if kind == protocol.DELETE:
                return [(row, b"") for row in rows]
            middle = b"N" + width.to_bytes(2, "big")
            return [(before, after) for before, _, after in [row.partition(middle) for row in rows]]
    return [(before or b"", after or b"") for before, after in [_images(lane, data) for data in messages]]


def _images(lane: Lane, data: bytes) -> tuple[bytes | None, bytes | None]:
    """The rows before and after, each field behind a tab. Raises RejectedError where the log does not have the whole row."""
    kind, width = data[0], len(lane.places)
    if kind != protocol.INSERT and data[5] != _OLD:
        raise RejectedError("the log does not have the old row", sqlstate="0A000")
    if lane.in_order and width < _ZERO_BELOW:
        rows = 2 if kind == protocol.UPDATE else 1
        text, found = _FIELDS(b"\t", data[_ROW:])
        if found == rows * width == text.count(b"\t") and b"\n" not in text:
            text = _escaped(text)
            if kind == protocol.INSERT:
                return None, text
            if kind == protocol.DELETE:
                return text, None
            before, _, after = text.partition(b"N" + width.to_bytes(2, "big"))
            return before, after
    old, at = (None, 6) if kind == protocol.INSERT else protocol.read_values(data, 6)
    new = None
    if kind != protocol.DELETE:
        new, _ = protocol.read_values(data, 6 if old is None else at + 1)
        if UNCHANGED in new:
            if old is None:
                raise RejectedError("the log does not have a large value", sqlstate="0A000")
            new = [was if value is UNCHANGED else value for was, value in zip(old, new, strict=True)]
    return _line(lane, old), _line(lane, new)


def _line(lane: Lane, row: Values | None) -> bytes | None:
    return None if row is None else b"".join([b"\t" + copy_text(row[place]) for place in lane.places])
