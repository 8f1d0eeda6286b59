"""A SQLite file as target of changes with before images, as a PostgreSQL source gives them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from replicator.engines.sqlite.installer import SqliteInstaller
from replicator.engines.sqlite.target import SqliteTarget
from replicator.model import ColumnPlan, Engine, Outcome, Position, Relation, TableName, TablePlan, TruncatePolicy
from replicator.pipeline import apply_span, retry_parked
from replicator.ports import OutboxBlock, RowBlock
from replicator.records import encode_record
from tests.fixtures.sqlite_sites import LINK, TOPOLOGY, create

_COLUMNS = (
    ("id", "bigint", "INTEGER"), ("name", "text", "TEXT"), ("ok", "boolean", "BOOLEAN"), ("amount", "numeric", "TEXT"),
    ("level", "double precision", "REAL"), ("raw", "bytea", "BLOB"), ("seen", "timestamp with time zone", "TEXT"),
)  # fmt: skip


@dataclass
class Images:
    """A batch as a PostgreSQL source gives it."""

    changes: list[tuple[str, Sequence[str | None] | None, Sequence[str | None] | None]]
    after: Position | None = None
    upto: Position = field(default=Position(""))
    more: bool = False
    stamp: str = ""
    chunk: None = None
    relations: dict[int, Relation] = field(
        default_factory=lambda: {
            5: Relation(5, TableName("public", "item"), tuple(name for name, _, _ in _COLUMNS), ("id",))
        }
    )

    def blocks(self) -> Iterator[OutboxBlock | RowBlock]:
        text = "".join(
            f"{n}\t5\t{op}\t{1000 + n}\t{_copied(before)}\t{_copied(after)}\n"
            for n, (op, before, after) in enumerate(self.changes, 1)
        ).encode()
        yield OutboxBlock(iter([text[start : start + 7] for start in range(0, len(text), 7)]))


def _copied(image: Sequence[str | None] | None) -> str:
    if image is None:
        return "\\N"
    text = encode_record(image)
    for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return text


@dataclass
class Fed:
    """A SQLite target fed with images."""

    centre: sqlite3.Connection
    target: SqliteTarget
    position: Position | None = None

    def apply(self, *changes: tuple[str, Sequence[str | None] | None, Sequence[str | None] | None]) -> Outcome:
        batch = Images(list(changes), self.position, Position(str(int(self.position or 0) + 1)))
        self.target.read_position()
        with self.target.transaction():
            self.target.stage_batch(batch)
            for span in self.target.spans():
                apply_span(self.target, span)
            outcome = self.target.record_batch(batch)
        self.position = batch.upto
        return outcome

    def rows(self) -> list[tuple[object, ...]]:
        return self.centre.execute("select * from item order by id").fetchall()


@pytest.fixture
def make_fed(sqlite_file: Callable[[str], Path]) -> Iterator[Callable[..., Fed]]:
    made: list[Fed] = []

    def make(types: dict[str, str] | None = None, **options: object) -> Fed:
        path = sqlite_file("centre")
        lines = ", ".join(f"{n} {(types or {}).get(n, t)}{' primary key' if n == 'id' else ''}" for n, _, t in _COLUMNS)
        centre = create(path, f"create table item ({lines});")
        installer = SqliteInstaller(path)
        shape = next(iter(installer.read_catalogue().tables.values()))
        columns = tuple(ColumnPlan(n, source, n, (types or {}).get(n, t)) for n, source, t in _COLUMNS)
        source = replace(shape, name=TableName("public", "item"))
        plan = TablePlan(source, shape.name, columns, ("id",), Engine.POSTGRES, Engine.SQLITE, shape)
        plan = replace(plan, **options)  # type: ignore[arg-type]
        installer.install(installer.plan_centre(TOPOLOGY, [plan]))
        installer.close()
        made.append(Fed(centre, SqliteTarget(path, LINK, [plan])))
        return made[-1]

    yield make
    for fed in made:
        fed.target.close()
        fed.centre.close()


ONE = ("1", 'tab\t"quote", \\ and\nline', "t", "0.1000", "0.1", "\\x00ff", "2024-01-01 00:00:00+00")
TWO = ("2", "", "f", None, "-Infinity", "\\x", None)


def test_images_are_converted_to_what_the_columns_hold(make_fed: Callable[..., Fed]) -> None:
    fed = make_fed()
    assert fed.apply(("i", None, ONE), ("i", None, TWO)).net == 2
    assert fed.rows() == [
        (1, 'tab\t"quote", \\ and\nline', 1, "0.1000", 0.1, b"\x00\xff", "2024-01-01 00:00:00+00:00"),
        (2, "", 0, None, float("-inf"), b"", None),
    ]


def test_updates_deletes_and_key_updates_meet_the_row_they_expect(make_fed: Callable[..., Fed]) -> None:
    fed = make_fed()
    fed.apply(("i", None, ONE), ("i", None, TWO))
    changed = (*ONE[:1], "new", *ONE[2:])
    moved = ("7", *changed[1:])
    outcome = fed.apply(
        ("u", ONE, changed), ("k", changed, moved), ("d", TWO, None), ("i", None, TWO), ("d", TWO, None)
    )
    assert (outcome.changes, outcome.conflicts, outcome.parked) == (5, 0, 0)
    assert [row[:2] for row in fed.rows()] == [(7, "new")]
    swap = [("8", *moved[1:]), ("9", *moved[1:])]
    fed.apply(("k", moved, swap[0]), ("i", None, moved), ("k", moved, swap[1]))
    assert [row[0] for row in fed.rows()] == [8, 9]


def test_images_conflict_with_a_row_the_centre_changed(make_fed: Callable[..., Fed]) -> None:
    fed = make_fed()
    fed.apply(("i", None, ONE))
    fed.centre.execute("update item set name = 'centre'")
    outcome = fed.apply(("u", ONE, (*ONE[:1], "site", *ONE[2:])))
    assert outcome.conflicts == 1
    before, current = fed.centre.execute("select before, current from replicator_conflict").fetchone()
    assert json.loads(before)["raw"] == "\\x00ff"
    assert json.loads(current)["name"] == "centre"
    assert fed.rows()[0][1] == "site"


@pytest.mark.parametrize(
    ("column", "type_", "text", "why"),
    [
        ("level", "REAL", "NaN", "NaN"),
        ("amount", "REAL", "0.1000000000000000000001", "digits"),
        ("amount", "NUMERIC", "123456789012345678.91", "digits"),
        ("name", "INTEGER", "007", "digits"),
    ],
)
def test_what_sqlite_would_alter_is_parked(
    column: str, type_: str, text: str, why: str, make_fed: Callable[..., Fed]
) -> None:
    fed = make_fed({column: type_})
    place = [name for name, _, _ in _COLUMNS].index(column)
    bad = tuple(text if n == place else value for n, value in enumerate(("3", None, "t", "1", "1", "\\x", None)))
    good = ("4", None, "t", "1", "1", "\\x", None)
    outcome = fed.apply(("i", None, bad), ("u", bad, (*bad[:6], "later")), ("i", None, good))
    assert (outcome.net, outcome.parked) == (1, 2)
    first, second = fed.target.list_parked()
    assert (first.state, second.state) == ("parked", "waiting")
    assert column in first.cause
    assert why in first.cause
    assert first.after is not None
    assert first.after[column] == text
    fed.target.edit_parked(first.id, {column: "5"})
    assert retry_parked(fed.target, first.id)
    fed.target.skip_parked(second.id)
    assert [row[0] for row in fed.rows()] == [3, 4]


@pytest.mark.parametrize("policy", list(TruncatePolicy))
def test_truncate_by_policy(policy: TruncatePolicy, make_fed: Callable[..., Fed]) -> None:
    fed = make_fed(truncate=policy)
    fed.apply(("i", None, ONE), ("i", None, TWO))
    outcome = fed.apply(("u", TWO, TWO), ("t", None, None), ("i", None, ("5", *ONE[1:])))
    left = [row[0] for row in fed.rows()]
    assert left == ([5] if policy is TruncatePolicy.REPLICATE else [1, 2, 5])
    assert outcome.parked == (1 if policy is TruncatePolicy.PARK else 0)
