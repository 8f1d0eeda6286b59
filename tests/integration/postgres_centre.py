"""A PostgreSQL centre for tests: made from statements, captured by our installer, read by our routed source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import psycopg
import pytest

from replicator.engines.postgres.installer import PostgresInstaller
from replicator.engines.postgres.routed import PostgresRoutedSource
from replicator.model import (
    CentralTable,
    ColumnPlan,
    Direction,
    Engine,
    LinkName,
    PolicyPlan,
    Position,
    Route,
    RouteStep,
    RowFilter,
    TableName,
    TablePlan,
    TableShape,
)
from replicator.ports import OutboxBlock
from replicator.records import parse_record
from replicator.sqlfiles import quote
from tests.fixtures.databases import PostgresDatabases
from tests.integration.postgres_site import _unescape

TOPOLOGY = "lab"

CLINIC = """
    create table patient (id int primary key, clinic text, name text);
    create table visit (
        id int primary key, patient int not null references patient on delete cascade on update cascade, note text
    );
    create table shot (id int primary key, visit int, dose numeric);
    create table drug (id int primary key, name text)
"""
"""Patients of a clinic, their visits, and what was given there (not tied by a foreign key); drugs are everybody's."""

PATIENT, VISIT, SHOT, DRUG = (TableName("public", name) for name in ("patient", "visit", "shot", "drug"))

_TO_PATIENT = RouteStep(("patient",), PATIENT, ("id",))
_TO_VISIT = RouteStep(("visit",), VISIT, ("id",))

ROUTES = {
    "patient": Route(("clinic",)),
    "visit": Route(("clinic",), (_TO_PATIENT,)),
    "shot": Route(("clinic",), (_TO_VISIT, _TO_PATIENT)),
}
SELECTED = {
    "patient": "select * from patient where clinic = '{}'",
    "visit": "select v.* from visit v join patient p on p.id = v.patient where p.clinic = '{}'",
    "shot": "select s.* from shot s join visit v on v.id = s.visit join patient p on p.id = v.patient where p.clinic = '{}'",
    "drug": "select * from drug",
}

Row = dict[str, str | None]
Change = tuple[str, str, tuple[str | None, ...]]
"""Table, op, the key of a row that is gone or all values of one that is there."""

MakeCentre = Callable[..., "Centre"]


@pytest.fixture
def make_centre(postgres_database: PostgresDatabases) -> Iterator[MakeCentre]:
    """A factory of captured centres: ``make(sql, routes, only=(tables,))``."""
    made: list[Centre] = []

    def make(sql: str = CLINIC, routes: Mapping[str, Route] | None = None, **options: object) -> Centre:
        url = postgres_database("centre")
        centre = Centre(url, psycopg.connect(url, autocommit=True), ROUTES if routes is None else routes)
        for name, value in options.items():
            setattr(centre, name, value)
        made.append(centre)
        centre.run(sql)
        centre.install()
        return centre

    yield make
    for centre in made:
        centre.close()


def plan_of(
    shape: TableShape, key: Sequence[str], site: str, route: Route, *, where: str = "", policy: PolicyPlan | None = None,
    constants: Sequence[tuple[str, str]] = (), target: TableShape | None = None,
) -> TablePlan:  # fmt: skip
    """A site's plan of one table; ``where`` is a condition on the column whose name stands before the first blank."""
    hidden = {name for name, _ in constants}
    columns = tuple(
        ColumnPlan(c.name, c.type, c.name, c.type) for c in shape.columns if not c.generated and c.name not in hidden
    )
    return TablePlan(
        source=shape, target=shape.name, columns=columns, key=tuple(name for name in key if name not in hidden),
        source_engine=Engine.POSTGRES, target_engine=Engine.POSTGRES, target_shape=target or shape,
        where=RowFilter(where, ("", f".{where}")) if where else None, policy=policy or PolicyPlan(),
        direction=Direction.BOTH, route=route, params=(site,) * len(route.columns), source_constants=tuple(constants),
    )  # fmt: skip


@dataclass
class Centre:
    """One captured database. A site is called as its value of the routing column."""

    url: str
    connection: psycopg.Connection[tuple[object, ...]]
    routes: Mapping[str, Route]
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unsent: frozenset[str] = frozenset()
    opened: list[PostgresRoutedSource] = field(default_factory=list)

    def run(self, sql: str) -> None:
        """Run statements as an application."""
        self.connection.execute(sql.encode())

    def apply(self, site: str, sql: str, marker: str = "") -> None:
        """Run statements as a link to the centre does, with its marker."""
        self.run(
            f"begin; select set_config('replicator.origin', '{TOPOLOGY}/{site}', true); {sql};"
            + (
                "insert into replicator.outbox (relation, op, changed_at, route, key)"
                f" values (0, 'm', 1, '@{TOPOLOGY}/{site}', '{marker}');"
                if marker
                else ""
            )
            + "commit"
        )

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Rows of one statement."""
        return self.connection.execute(sql.encode()).fetchall()

    def shapes(self) -> list[TableShape]:
        """All tables but partitions."""
        tables = self.installer.read_catalogue().tables.values()
        return [table for table in tables if table.kind != "partition"]

    def captured(self) -> list[CentralTable]:
        """All tables, as the centre captures them."""
        return [
            CentralTable(
                shape, self.keys.get(shape.name.name, shape.key), self.routes.get(shape.name.name, Route()),
                sent=shape.name.name not in self.unsent,
            )
            for shape in self.shapes()
        ]  # fmt: skip

    @cached_property
    def installer(self) -> PostgresInstaller:
        """An installer of its own connection."""
        return PostgresInstaller(self.url, patience=20)

    def install(self) -> None:
        """Install for all tables."""
        self.installer.install(self.installer.plan_centre(TOPOLOGY, (), self.captured()))

    def plans(self, site: str, **options: object) -> list[TablePlan]:
        """A site's plans: each table's rows by its routing column."""
        found = []
        for each in self.captured():
            if each.sent:
                columns = each.route.columns
                where = f"{quote(columns[0])} = '{site}'" if columns else ""
                found.append(plan_of(each.table, each.key, site, each.route, where=where, **options))  # type: ignore[arg-type]
        return found

    def source(self, site: str, plans: Sequence[TablePlan] | None = None, **options: object) -> PostgresRoutedSource:
        """A new source for a site's link, closed with the centre."""
        link = LinkName(TOPOLOGY, site, Direction.FROM_CENTRE)
        source = PostgresRoutedSource(self.url, link, self.plans(site) if plans is None else plans, **options)  # type: ignore[arg-type]
        self.opened.append(source)
        return source

    def copy(self, site: str, **options: object) -> Copy:
        """A site that keeps what it is sent, with all its rows."""
        copy = Copy(self, site, self.source(site, **options))  # type: ignore[arg-type]
        copy.read()
        return copy

    def outbox(self) -> list[tuple[object, ...]]:
        """What was captured since last asked: table, op, key, route, origin."""
        found = self.rows(
            "select r.table_name, o.op::text, o.key, o.route, o.origin from replicator.outbox o"
            " left join replicator.relation r on r.id = abs(o.relation) order by o.seq"
        )
        self.run("delete from replicator.outbox")
        return found

    def close(self) -> None:
        """Release every connection."""
        for source in self.opened:
            source.close()
        self.installer.close()
        self.connection.close()


@dataclass
class Copy:
    """What a site has of the centre's rows: table → key → values."""

    centre: Centre
    site: str
    source: PostgresRoutedSource
    position: Position | None = None
    marker: Position | None = None
    tables: dict[str, dict[tuple[str | None, ...], tuple[str | None, ...]]] = field(default_factory=dict)
    bases: list[str | None] = field(default_factory=list)
    acknowledges: bool = True

    def read(self) -> list[Change] | None:
        """One batch, applied; None when there is none."""
        with self.source.read_batch(self.position, 1) as batch:
            if batch is None:
                return None
            changes: list[Change] = []
            self.bases = []
            for block in batch.blocks():
                assert isinstance(block, OutboxBlock)
                for line in b"".join(block.chunks).decode().split("\n")[:-1]:
                    _, number, op, _, base, image = (None if p == "\\N" else _unescape(p) for p in line.split("\t"))
                    relation = batch.relations[int(number or 0)]
                    values = tuple(parse_record(image or ""))
                    key = tuple(values[relation.columns.index(name)] for name in relation.key)
                    held = self.tables.setdefault(relation.table.name, {})
                    if op == "s":
                        held[key] = values
                    else:
                        assert all(
                            v is None for n, v in zip(relation.columns, values, strict=True) if n not in relation.key
                        )
                        held.pop(key, None)
                    changes.append((relation.table.name, op or "", values if op == "s" else key))
                    self.bases.append(base)
            self.position, self.marker = batch.upto, batch.marker or self.marker
            assert not batch.more
        if self.acknowledges:
            self.source.acknowledge_batch(self.position)
        return sorted(changes, key=str)

    def check(self, selected: Mapping[str, str] = SELECTED) -> None:
        """Everything that is to be read is read, and the copy equals what the centre selects for the site."""
        while self.read() is not None:
            continue
        for table, sql in selected.items():
            wanted = {
                tuple(parse_record(str(row[0])))
                for row in self.centre.rows(f"select t::text from ({sql.format(self.site)}) t")
            }
            assert set(self.tables.get(table, {}).values()) == wanted, table
