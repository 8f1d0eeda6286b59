"""A database whose rows can be digested and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from replicator.model import Key, RouteStep, TableName


@dataclass(frozen=True, slots=True)
class Digest:
    """Count and sum of row hashes of one bucket. The sum is over signed 64-bit hashes, as a Python int."""

    count: int
    total: int


@dataclass(frozen=True, slots=True)
class AuditTable:
    """One side of an audited table: its name, columns in the plan's order with their types, key columns, row filter.

    ``constants``: this site's key constants (only rows that carry them belong to the site). ``forms`` names each
    column's canonical form (see ``replicator/canonical.py``); both sides of a pair use the same forms. ``path``: the row has
    to have a row at its end that meets ``where``, which names the row as ``p1``, ``p2`` … by its place in the path, and as
    ``t`` where there is no path.
    """

    name: TableName
    columns: tuple[str, ...]
    types: tuple[str, ...]
    forms: tuple[str, ...]
    key: tuple[str, ...]
    constants: tuple[tuple[str, str], ...] = ()
    where: str = ""
    path: tuple[RouteStep, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row as its database spells it for comparison: images of its key and of all columns, and the key itself.

    ``native``: the key's values as ``InFlight`` takes them (SQLite: as stored; PostgreSQL: as in record literals).
    """

    key: str
    image: str
    native: Key


class Auditable(Protocol):
    """A database whose tables can be digested inside it. Read only, short transactions, nothing written.

    Images, hashes and buckets are those of ``replicator/canonical``. A table is read page by page, each page in a snapshot
    of its own: a row written meanwhile may be seen in either state, or in none when its key changes.
    """

    def prove_form(self, form: str) -> Sequence[int]:
        """Row hashes of the form's test vector, computed as those of rows are. Raises RejectedError."""
        ...

    def digest_buckets(self, table: AuditTable, buckets: int) -> Mapping[int, Digest]:
        """Digest per bucket of the key's hash; equal rows give equal digests on every engine. Empty buckets are left out."""
        ...

    def digest_rows(self, table: AuditTable, buckets: int, wanted: Sequence[int]) -> Iterator[tuple[str, int]]:
        """(key image, row hash) of every row in the wanted buckets."""
        ...

    def fetch_rows(self, table: AuditTable, keys: Sequence[str]) -> Sequence[AuditRow]:
        """The rows whose key images are among ``keys``; those that do not exist are left out. Read when called."""
        ...

    def close(self) -> None:
        """Release all connections. Repeatable."""
        ...
