"""A captured PostgreSQL database for tests: made from statements, installed by our installer, read by our source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import psycopg
import pytest

from replicator.engines.postgres.installer import PostgresInstaller
from replicator.engines.postgres.source import PostgresSource
from replicator.model import ColumnPlan, Engine, LinkName, Position, RowFilter, TableName, TablePlan, TableShape
from replicator.ports import OutboxBlock
from replicator.records import parse_record
from tests.fixtures.databases import PostgresDatabases

LINK = LinkName("lab", "site")

Change = tuple[str, str, tuple[str | None, ...] | None, tuple[str | None, ...] | None]
"""Table, op, before, after."""


MakeSite = Callable[[str], "Site"]


@pytest.fixture
def make_site(postgres_database: PostgresDatabases) -> Iterator[MakeSite]:
    """A factory of captured databases, made from statements."""
    made: list[Site] = []

    def make(sql: str) -> Site:
        url = postgres_database("site")
        site = Site(url, psycopg.connect(url, autocommit=True))
        made.append(site)
        site.run(sql)
        site.install()
        return site

    yield make
    for site in made:
        site.close()


def plan_of(shape: TableShape, *, where: RowFilter | None = None, key: tuple[str, ...] = ()) -> TablePlan:
    """A plan that captures every column of a table under its own name."""
    columns = tuple(ColumnPlan(c.name, c.type, c.name, c.type) for c in shape.columns if not c.generated)
    return TablePlan(
        source=shape, target=shape.name, columns=columns, key=key or shape.key, source_engine=Engine.POSTGRES,
        target_engine=Engine.POSTGRES, target_shape=shape, where=where,
    )  # fmt: skip


@dataclass
class Site:
    """One captured database."""

    url: str
    connection: psycopg.Connection[tuple[object, ...]]
    position: Position | None = None
    filters: dict[str, RowFilter] = field(default_factory=dict)
    opened: list[PostgresSource] = field(default_factory=list)

    def run(self, sql: str) -> None:
        """Run statements as the application."""
        self.connection.execute(sql.encode())

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Rows of one statement."""
        return self.connection.execute(sql.encode()).fetchall()

    def plans(self) -> list[TablePlan]:
        """Plans for all tables that have a key and are not partitions."""
        tables = self.installer.read_catalogue().tables.values()
        return [plan_of(t, where=self.filters.get(t.name.name)) for t in tables if t.key and t.kind != "partition"]

    @cached_property
    def installer(self) -> PostgresInstaller:
        """An installer of its own connection."""
        return PostgresInstaller(self.url, patience=20)

    def install(self, *, skip_existing: bool = True) -> None:
        """Install for all tables; by default the rows that are there already are passed over."""
        self.installer.install(self.installer.plan_site(LINK.topology, self.plans()))
        if skip_existing:
            self.read()

    def source(self) -> PostgresSource:
        """A new source for the link, closed with the site."""
        source = PostgresSource(self.url, LINK, self.plans())
        self.opened.append(source)
        return source

    def read(self, limit: int = 1 << 40) -> list[Change]:
        """All changes behind the site's position, which moves."""
        source = PostgresSource(self.url, LINK, self.plans())
        try:
            found: list[Change] = []
            while True:
                changes, upto, _ = read_once(source, self.position, limit)
                if upto is None:
                    return found
                found += changes
                self.position = upto
        finally:
            source.close()

    def close(self) -> None:
        """Release every connection."""
        for source in self.opened:
            source.close()
        self.installer.close()
        self.connection.close()


def read_once(source: PostgresSource, after: Position | None, limit: int) -> tuple[list[Change], Position | None, bool]:
    """One batch as parsed changes, its position (None: nothing to read) and whether there is more."""
    with source.read_batch(after, limit) as batch:
        if batch is None:
            return [], None, False
        tables = {number: relation.table for number, relation in batch.relations.items()}
        changes = [
            change for block in batch.blocks() if isinstance(block, OutboxBlock) for change in _parse(block, tables)
        ]
        return changes, batch.upto, batch.more


def _parse(block: OutboxBlock, tables: dict[int, TableName]) -> Iterable[Change]:
    for line in b"".join(block.chunks).decode().split("\n")[:-1]:
        _, relation, op, _, before, after = (None if part == "\\N" else _unescape(part) for part in line.split("\t"))
        yield str(tables[int(relation or 0)]), op or "", _image(before), _image(after)


def _image(text: str | None) -> tuple[str | None, ...] | None:
    return None if text is None else tuple(parse_record(text))


def _unescape(part: str) -> str:
    return part.replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r").replace("\\\\", "\\")
