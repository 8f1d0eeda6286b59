"""Whole transactions as a batch straight from the log, without a way through the outbox.

The changes are kept as the log sent them until they are asked for, in one of two forms: as outbox rows, which every target
takes; and by table with their values apart, which a PostgreSQL target takes quicker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from replicator.engines.postgres.wal import protocol, spelling
from replicator.engines.postgres.wal.tables import Lane
from replicator.engines.postgres.wal.values import LoggedValues
from replicator.model import Chunk, Position, Relation
from replicator.ports import OutboxBlock, RowBlock, ValueBlock

_CHUNK_BYTES = 1 << 17


@dataclass(slots=True)
class Run:
    """Neighbouring changes of one table in one transaction, as the log sent them.

    ``middle``: their time, origin and place, as the lane's rows have them. Without a lane: rows that a lane has made.
    """

    lane: Lane | None
    changed_at: int
    middle: bytes
    messages: list[bytes] = field(default_factory=list)

    def rows(self) -> Iterator[bytes]:
        """As rows of the outbox; changes that changed nothing captured are left out."""
        if self.lane is None:
            yield from self.messages
            return
        ways = {
            protocol.INSERT: self.lane.insert, protocol.UPDATE: self.lane.update, protocol.DELETE: self.lane.delete
        }  # fmt: skip
        for data in self.messages:
            row = ways[data[0]](self.middle, data)
            if row is not None:
                yield row


class LoggedBatch:
    """Meets ports.Readable. A transaction that is larger than memory should hold goes on from ``rest``.

    Args:
        runs: its changes, or their beginning.
        rest: more of them, read from the log when they are asked for; ``None`` when the batch is whole.
        end: tells the position after the batch, its stamp, and whether there is more, once it is whole.
    """

    marker: Position | None = None
    chunk: Chunk | None = None

    def __init__(
        self, after: Position | None, relations: Mapping[int, Relation], runs: Sequence[Run],
        rest: Iterator[Sequence[Run]] | None, end: Callable[[], tuple[Position, str, bool]],
    ) -> None:  # fmt: skip
        self.after = after
        self.relations = relations
        self._runs = runs
        self._rest = rest
        self._end = end

    def blocks(self) -> Iterator[OutboxBlock | RowBlock]:
        """All changes as one block; again as long as ``values`` gives anything."""
        yield OutboxBlock(self._lines())

    def _lines(self) -> Iterator[bytes]:
        order, size = 0, 0
        lines: list[bytes] = []
        for runs in (self._runs, *(() if self._rest is None else self._rest)):
            for run in runs:
                for row in run.rows():
                    change = spelling.read_row(row)
                    if abs(change.relation) not in self.relations:
                        continue
                    order += 1
                    lines.append(spelling.copy_line(order, change))
                    size += len(lines[-1])
                    if size > _CHUNK_BYTES:
                        yield b"".join(lines)
                        lines.clear()
                        size = 0
        yield b"".join(lines)

    def values(self) -> Sequence[ValueBlock]:
        """See ports.Readable."""
        if self._rest is not None or any(run.lane is None or not run.lane.simple for run in self._runs):
            return ()
        blocks: dict[int, LoggedValues] = {}
        order = 0
        for run in self._runs:
            assert run.lane is not None
            number = run.lane.captured.relation
            if number not in self.relations:
                continue
            block = blocks.setdefault(number, LoggedValues(number))
            block.add(order, run.lane, run.changed_at, run.messages)
            order += len(run.messages)
        return list(blocks.values())

    @property
    def upto(self) -> Position:
        """The position after the batch."""
        return self._end()[0]

    @property
    def stamp(self) -> str:
        """See ports.Batch."""
        return self._end()[1]

    @property
    def more(self) -> bool:
        """Whether the log may have more at once."""
        return self._end()[2]
