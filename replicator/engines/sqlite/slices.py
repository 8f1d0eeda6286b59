"""Reading one site's part of one table of a SQLite centre."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from replicator.engines.sqlite.reading import Row, TableReader
from replicator.engines.sqlite.values import checksum_call, image_call
from replicator.errors import SetupError
from replicator.model import Direction, Engine, Op
from replicator.ports import RowBlock
from replicator.sqlfiles import literal, quote, render, statement

_SQL = "sql/sqlite/routed.sql"


@dataclass(frozen=True)
class RoutedReader(TableReader):
    """Reads one site's rows of one of the centre's tables.

    Args:
        noted: the captured table's key, as the outbox has it.
        routes: the site's routes, as a JSON list.
        own: the origin of the site's own changes.
        tells_gone: pages tell of rows that are not the site's, too, that they are gone (at a new site none of them is).
    """

    noted: tuple[str, ...]
    routes: str
    own: str
    tells_gone: bool = False

    def changed_rows(
        self, connection: sqlite3.Connection, low: int, high: int, shift: int, budget: int
    ) -> tuple[RowBlock, int]:
        """See TableReader."""
        parameters = (low, high, self.relation.id, shift, self.routes, self.own)
        rows, size = self._fetch(connection, self._read_routed, parameters, budget)
        return self._with_checksums(rows), size

    def page_rows(
        self,
        connection: sqlite3.Connection,
        behind: Row | None,
        end: Row | None,
        ordinal: int,
        changed_at: int,
        budget: int,
    ) -> tuple[RowBlock, int]:
        """See TableReader."""
        bounds = [self._bound(sign, bound) for sign, bound in ((">", behind), ("<=", end)) if bound is not None]
        bounds += self._constants if self.tells_gone else [self.condition]
        inside = self.condition if self.tells_gone else "1"
        fragments = self._fragments | {"between": " and ".join(bounds) or "1", "inside": inside, "base": self._base}
        parameters = (ordinal, changed_at, *(behind or ()), *(end or ()))
        rows, size = self._fetch(connection, self._routed("read_page", fragments), parameters, budget)
        return self._with_checksums([each for row in rows for each in self._told(row)]), size

    def _told(self, row: Row) -> Iterator[Row]:
        """A row of a page; of one that is not the site's nothing but the key, if that names a row at all."""
        if row[1] not in (Op.GONE, "og"):
            yield row
        elif None not in (key := [row[3 + place] for place in self.plan.key_indexes]):
            values = dict(zip(self.plan.key_indexes, key, strict=True))
            yield (*row[:3], *(values.get(place) for place in range(len(self.plan.columns))), None)

    def _with_checksums(self, rows: list[Row]) -> RowBlock:
        block = self._block([row[:-1] for row in rows])
        if not self._keeps_bases:
            return block
        given = {row[0]: row[-1] for row in rows}
        texts = [given[row[0]] for row in (*block.rows, *block.odd)]
        return replace(block, checksums=[None if text is None else str(text) for text in texts])

    def block_of(self, rows: list[Row], ordinal: int) -> RowBlock:
        """See TableReader."""
        block = self._with_checksums([(number, *row[1:-1]) for number, row in enumerate(rows, ordinal + 1)])
        return replace(block, loaded=True)

    @property
    def chunk_fragments(self) -> dict[str, str]:
        """See TableReader."""
        return super().chunk_fragments | {"base": self._base}

    @property
    def mine(self) -> str:
        """See TableReader."""
        return self.condition

    @property
    def constants(self) -> str:
        """See TableReader."""
        return " and ".join(self._constants) or "1"

    @property
    def _keeps_bases(self) -> bool:
        """Whether the site sends changes of this table without before images."""
        return self.plan.direction is Direction.BOTH and self.plan.target_engine is Engine.SQLITE

    # --- statements -----------------------------------------------------------------------------------------------

    @cached_property
    def _read_routed(self) -> str:
        same_row = [self._same_noted(place, name) for place, name in enumerate(self.noted)]
        places = range(len(self.noted))
        noted = {name: f"c.replicator_k{place}" for place, name in enumerate(self.noted)}
        constants = [f"cast({noted[name]} as text) = {literal(value)}" for name, value in self.plan.source_constants]
        more = {
            "present": self._present,
            "places": ", ".join(f"k{place} as replicator_k{place}" for place in places),
            "distinct": ", ".join(f"k{place}, typeof(k{place})" for place in places),
            "same_row": " and ".join([*same_row, self.condition]),
            "values": self._values(noted),
            "base": self._base,
            "mine": " and ".join(constants) or "1",
        }
        return self._routed("read_changed", self._fragments | more)

    def _same_noted(self, place: int, name: str) -> str:
        return self._same_key(place, name, self._capture.loose(name))

    @cached_property
    def _base(self) -> str:
        """What the centre's ledger will have for this row when the site's change of it has been processed."""
        if not self._keeps_bases:
            return "null"
        values = [f"m.{quote(name)}" for name in sorted(column.source for column in self.plan.columns)]
        checksum = f"lower(hex({checksum_call(values)}))"
        return f"{checksum} || '|' || {image_call(values)}" if self.plan.policy.merges else checksum

    @cached_property
    def condition(self) -> str:
        """Whether a row (m) is the site's."""
        parts = self._constants
        if self.plan.where is not None:
            if not self.plan.where.sqlite:
                raise SetupError(
                    f"table {self.plan.source.name}: the condition {self.plan.where.source!r} cannot be read from SQLite: "
                    f"{self.plan.where.obstacle}",
                    hint="write it with constructs both engines share",
                )
            parts.append(self._by_path(self.plan.where.sqlite))
        return " and ".join(parts) or "1"

    @property
    def _constants(self) -> list[str]:
        """Whether the row carries the site's key constants: another site's is another row."""
        return [f"m.{quote(name)} = {literal(value)}" for name, value in self.plan.source_constants]

    def _by_path(self, where: Sequence[str]) -> str:
        path = self.plan.route.path
        if not path:
            return f"({quote('m').join(where)})"
        rows = ["m", *(f"p{place}" for place in range(len(path)))]
        follows = [
            f"{rows[place + 1]}.{quote(there)} = {rows[place]}.{quote(here)}"
            for place, step in enumerate(path)
            for there, here in zip(step.parent_columns, step.columns, strict=True)
        ]
        joins = [f", {quote(step.parent.name)} as p{place + 1}" for place, step in enumerate(path[1:])]
        follows.append(f"({quote(rows[-1]).join(where)})")
        fragments = {"joins": "".join(joins), "follows": " and ".join(follows)}
        return render(statement(_SQL, "by_path"), identifiers={"table": path[0].parent.name}, fragments=fragments)

    def _routed(self, name: str, fragments: dict[str, str]) -> str:
        return render(statement(_SQL, name), identifiers={"table": self.plan.source.name.name}, fragments=fragments)
