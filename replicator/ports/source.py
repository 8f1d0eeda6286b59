"""A database changes are read from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from replicator.model import CapturedChange, ChunkRequest, Key, Lag, Position, RowEvent, Standing, TableName, TablePlan
from replicator.ports.batch import Batch


class Source(Protocol):
    """A database changes are read from. One instance serves one link and one thread.

    On a link from the centre a batch is the rows, as they are at its end, that were touched since by anybody but the site
    itself (or for the site alone) and concern it; Op.GONE where a row is not the site's any more. ``after=None``: all of the
    site's rows. Raises BatchError when the link stayed away longer than the retention.
    """

    def read_identity(self) -> str:
        """What tells this database from every other and from an older backup of itself. Read only."""
        ...

    def prove_history(self, after: Position | None, stamp: str, target: str) -> bool:
        """Whether ``after``, with the stamp of the batch it ended, was read from this very history; false: it may have been.

        ``target``: the identity of the link's target (Target.read_identity); a centre knows its sites by the other link.
        Asked at every contact, before batches are read. Read only. A position that was acknowledged here is known without a
        stamp. Raises BatchError when it is certain that one end was put back from a backup, copied or made anew: changes were
        made here that ``after`` knows and this database does not, or more was acknowledged here than ``after`` knows.
        """
        ...

    def read_schema_mark(self) -> str:
        """Another text whenever the plans' tables have other columns, types or keys, or other triggers of ours. Read only."""
        ...

    def read_batch(
        self, after: Position | None, limit: int, wanted: ChunkRequest | None = None
    ) -> AbstractContextManager[Batch | None]:
        """The next whole transactions behind ``after`` (``None``: from the start of the outbox), about ``limit`` changes.

        With ``wanted``, and when the window reaches the present, the chunk's rows follow the changes, read in the snapshot that
        ends the window; then there is a batch even without changes. A window that was cut carries no chunk.

        Source transaction, read only, short; it ends with the context. ``None`` when there is nothing. Safe to repeat:
        the same ``after`` gives at least the same changes. A transaction larger than ``limit`` still comes whole.
        Raises BatchError when ``after`` is not of this source's history (restored from a backup).
        """
        ...

    def estimate_rows(self, table: TableName) -> int:
        """About how many rows of a plan's source table the link may have to bring. Read only, quick."""
        ...

    def acknowledge_batch(self, upto: Position) -> None:
        """Tell the source that ``upto`` is durable at the target, so it may prune. Own short transaction; repeatable."""
        ...

    def tidy(self) -> None:
        """Write acknowledgements put off and prune what every link has passed; called when there is nothing to move.

        Own short transactions; repeatable.
        """
        ...

    def read_lag(self, after: Position | None) -> Lag:
        """How much lies behind ``after``. Read only."""
        ...

    def read_standing(self) -> Standing | None:
        """What this source knows of its link; ``None`` before the first acknowledgement. Read only."""
        ...

    def read_history(self, table: str, key: Sequence[str]) -> Sequence[RowEvent]:
        """The changes of one row that are still in the outbox, in order. Read only; reads the table's whole outbox.

        ``table`` is a plan's source, ``key`` its key values as text, as the database spells them.
        """
        ...

    def read_change(self, number: int, position: Position | None) -> CapturedChange | None:
        """One change of the outbox by its number, and whether ``position`` has passed it; ``None`` when it is not there.

        A change is pruned when every link has passed it. Read only.
        """
        ...

    def read_clock(self) -> int:
        """The source's wall clock, microseconds since 1970 (for the skew measured at each contact)."""
        ...

    def wait(self, timeout: float) -> bool:
        """Sleep until something may have been committed, at most ``timeout`` seconds; false on time-out.

        Costs next to nothing while nothing happens, holds no transaction, never slows writers down.
        """
        ...

    def wake(self) -> None:
        """Make a ``wait`` in another thread return at once (clean stop). Thread-safe."""
        ...

    def wake_others(self) -> None:
        """Make the ``wait`` of whoever else reads this source for the link, in whatever process, return soon.

        For news that is not in the outbox: an order at the target. Own short transaction; repeatable. One who does not wait
        now finds the news at his next look.
        """
        ...

    def close(self) -> None:
        """Release all connections. Repeatable."""
        ...


class InFlight(Protocol):
    """Tells rows in flight from rows that differ (met by sources)."""

    def keys_in_flight(self, table: TablePlan, after: Position | None, keys: Sequence[Key]) -> set[Key]:
        """Those of ``keys`` with a committed change behind ``after``, before or after that change. Read only.

        Key values: SQLite as stored; PostgreSQL as record literals spell them. A TRUNCATE behind ``after``
        puts every key in flight. Changes already pruned may be left out: the caller checks that the link did not move.
        """
        ...

    def read_lag(self, after: Position | None) -> Lag:
        """As ``Source.read_lag``: no change at all behind ``after`` settles keys whose stored spelling is unknown."""
        ...
