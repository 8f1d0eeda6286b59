"""Finds the keys of one table whose rows may differ: digests by bucket first, then the rows of unequal buckets only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from replicator.audit.sides import Sides
from replicator.ports import Auditable, Digest

ROWS_A_BUCKET = 512
_FEWEST, _MOST = 16, 65_536
_ROWS_AT_ONCE = 50_000
"""Rows of unequal buckets held at once, each side; one bucket is held whole."""

_NONE = Digest(0, 0)


@dataclass(frozen=True, slots=True)
class Digests:
    """Both sides' digests of one table."""

    buckets: int
    source: Mapping[int, Digest]
    target: Mapping[int, Digest]

    @property
    def unequal(self) -> list[int]:
        """Buckets whose digests differ."""
        every = self.source.keys() | self.target.keys()
        return sorted(n for n in every if self.source.get(n, _NONE) != self.target.get(n, _NONE))

    @property
    def rows(self) -> tuple[int, int]:
        """Rows at the source and at the target."""
        return sum(each.count for each in self.source.values()), sum(each.count for each in self.target.values())

    def weight(self, bucket: int) -> int:
        """Rows of a bucket at the side that has more."""
        return max(self.source.get(bucket, _NONE).count, self.target.get(bucket, _NONE).count)


class Finder:
    """Digests and drills one table; both sides work at the same time.

    Args:
        sides: the table.
        source: one database.
        target: the other.
        threads: where the two sides run.
    """

    def __init__(self, sides: Sides, source: Auditable, target: Auditable, threads: Executor) -> None:
        self._sides, self._source, self._target, self._threads = sides, source, target, threads

    def digest(self) -> Digests:
        """Digests with about ``ROWS_A_BUCKET`` rows a bucket; done again when the catalogue's estimate was far off."""
        plan = self._sides.plan
        digests = self._digest(bucket_count(max(plan.source.estimate, plan.target_shape.estimate)))
        needed = bucket_count(max(digests.rows))
        if digests.unequal and needed > 4 * digests.buckets:
            digests = self._digest(needed)
        return digests

    def candidates(self, digests: Digests) -> Iterator[list[str]]:
        """Images of keys that are not equal on both sides, lot by lot."""
        for wanted in _lots(digests):
            found = self._threads.submit(self._rows, self._source, True, digests.buckets, wanted)
            rows = Counter(self._target.digest_rows(self._sides.target, digests.buckets, wanted))
            rows.subtract(found.result())
            yield sorted({key for (key, _), count in rows.items() if count})

    def _digest(self, buckets: int) -> Digests:
        source = self._threads.submit(self._source.digest_buckets, self._sides.source, buckets)
        target = self._target.digest_buckets(self._sides.target, buckets)
        return Digests(buckets, source.result(), target)

    def _rows(self, side: Auditable, is_source: bool, buckets: int, wanted: Sequence[int]) -> list[tuple[str, int]]:
        return list(side.digest_rows(self._sides.source if is_source else self._sides.target, buckets, wanted))


def bucket_count(rows: int) -> int:
    """A power of two that leaves about ``ROWS_A_BUCKET`` rows in each bucket."""
    wanted = max(rows, 0) // ROWS_A_BUCKET
    return max(_FEWEST, min(_MOST, 1 << wanted.bit_length()))


def _lots(digests: Digests) -> Iterator[list[int]]:
    lot: list[int] = []
    rows = 0
    for bucket in digests.unequal:
        weight = digests.weight(bucket)
        if lot and rows + weight > _ROWS_AT_ONCE:
            yield lot
            lot, rows = [], 0
        lot.append(bucket)
        rows += weight
    if lot:
        yield lot
