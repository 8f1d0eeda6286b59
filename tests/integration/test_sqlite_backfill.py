"""Chunks read from a SQLite file: every key once in the key's own order, whatever it holds, beside writes and VACUUM."""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.engines.sqlite.chunks import ChunkReader
from replicator.engines.sqlite.reading import TableReader
from replicator.engines.sqlite.source import SqliteSource
from replicator.engines.sqlite.target import SqliteTarget
from replicator.model import Chunk, ChunkRequest, Key, Position, Relation, TableName
from replicator.pipeline import run_once
from replicator.ports import RowBlock
from tests.fixtures.sqlite_sites import LINK, capture, create, exact, plans_of, table_rows

KEYS = (
    "id integer primary key, b",
    "id text primary key, b",
    "id text collate nocase primary key, b",
    "id primary key, b",
    "id real primary key, b",
    "id numeric not null primary key, b",
    "id, b, primary key (id, b)",
    "id text not null, b integer not null, primary key (b, id)",
    "id text not null collate rtrim, b not null, primary key (b desc, id)",
)
UNEVEN = "id text collate nocase, b, primary key (id collate binary)"
"""The column compares otherwise than the index that keeps it unique."""
VALUES = (
    "null", "0", "1", "-1", "2", "1.5", "-0.0", "9e999", "1e300", "9223372036854775807", "-9223372036854775808", "''", "'a'",
    "'A'", "'a '", "'b'", "'1'", "'10'", "'2'", "'ö'", "'a' || char(0) || 'b'", "x''", "x'00ff'", "x'61'",
    "cast(x'ff61' as text)", "cast(x'ff' as text)", "'𝄞'", "'\"'",
)  # fmt: skip
EXAMPLES = int(os.environ.get("REPLICATOR_BACKFILL_EXAMPLES", "30"))


class Loader:
    """A target that keeps rows by exact key: changes as they come, a chunk's rows where no change of the batch has the key."""

    def __init__(self, path: Path, source: SqliteSource) -> None:
        (self.plan,) = plans_of(path, "t")
        self.source, self.position = source, None
        self.rows: dict[object, object] = {}
        self.nulls: list[object] = []
        self.loaded: list[object] = []

    position: Position | None

    def batch(self, wanted: ChunkRequest | None = None) -> Chunk | None:
        """Read one batch, and take its rows in."""
        with self.source.read_batch(self.position, 7, wanted) as batch:
            if batch is None:
                return None
            touched: set[object] = set()
            loaded: list[tuple[object, ...]] = []
            last = 0
            for block in batch.blocks():
                assert isinstance(block, RowBlock)
                for row in sorted((*block.rows, *block.odd), key=lambda row: int(str(row[0]))):
                    assert int(str(row[0])) > last or not block.loaded
                    last = max(last, int(str(row[0])))
                    if block.loaded:
                        loaded.append(row)
                    else:
                        touched.add(self._take(row))
            for row in loaded:
                key = self._key(row)
                self.loaded.append(key)
                if key not in touched:
                    self._take(row)
            self.position = batch.upto
            self.source.acknowledge_batch(batch.upto)
            return batch.chunk

    def _key(self, row: tuple[object, ...]) -> object:
        return exact(tuple(row[3 + place] for place in self.plan.key_indexes))

    def _take(self, row: tuple[object, ...]) -> object:
        key = self._key(row)
        if None in [row[3 + place] for place in self.plan.key_indexes]:
            self.nulls.append(exact(row[3:]))
        elif row[1] == "g":
            self.rows.pop(key, None)
        else:
            self.rows[key] = exact(row[3:])
        return key

    def load(self, limit: int, between: Callable[[], object] = lambda: None) -> list[int]:
        """All chunks; the rows of each. ``between`` is called before each."""
        behind, sizes = None, []
        while True:
            between()
            chunk = self.batch(ChunkRequest(1, TableName("", "t"), behind, limit))
            assert chunk is not None
            assert chunk.rows <= limit
            sizes.append(chunk.rows)
            if chunk.last:
                return sizes
            assert chunk.upto != behind, "it moves"
            behind = chunk.upto


def is_null(key: object) -> bool:
    """Whether part of an exact key is NULL."""
    return isinstance(key, tuple) and any(kind == "NoneType" for kind, _ in key)


@given(st.integers(0, 1 << 32))
@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_row_comes_whatever_its_key_and_whatever_is_written_meanwhile(seed: int) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "site.sqlite3")
        key = chance.choice(KEYS)
        strict = "not null" in key or key.startswith("id integer")
        without = " without rowid" if strict and chance.random() < 0.5 else ""
        app = create(path, f"create table t (v, {key}){without};", wal=chance.random() < 0.8)
        write(app, chance, 60)
        capture(path, plans_of(path, "t"))
        source = SqliteSource(path, LINK, plans_of(path, "t"), acknowledge_seconds=0)
        loader = Loader(path, source)
        loader.batch()
        loader.rows.clear()
        loader.nulls.clear()
        quiet = chance.random() < 0.3

        def between() -> None:
            if not quiet:
                write(app, chance, chance.randrange(4))
                if chance.random() < 0.2:
                    app.execute("vacuum")

        loader.load(chance.choice((1, 2, 3, 7, 100)), between)
        loader.batch()
        there = table_rows(app, loader.plan)
        assert loader.rows == {key: row for key, row in there.items() if not is_null(key)}
        if quiet:
            assert len(loader.loaded) == app.execute("select count(*) from t").fetchone()[0], "each row once"
        source.close()
        app.close()


def write(app: sqlite3.Connection, chance: random.Random, count: int) -> None:
    """Random statements; what the table refuses does not happen."""
    for _ in range(count):
        first, second = chance.choice(VALUES), chance.choice(VALUES)
        statement = chance.choice((
            f"insert into t (id, b, v) values ({first}, {second}, {chance.randrange(100)})",
            f"insert into t (id, b, v) values ({first}, {second}, {chance.randrange(100)})",
            f"insert or replace into t (id, b, v) values ({first}, {second}, 'r')",
            f"update t set v = {second} where id is {first}",
            f"update or ignore t set id = {second} where id is {first}",
            f"delete from t where id is {first} and b is {second}",
        ))  # fmt: skip
        with suppress(sqlite3.IntegrityError):
            app.execute(statement)


@pytest.fixture
def opened(sqlite_file: Callable[[str], Path]) -> Iterator[Callable[[str], tuple[sqlite3.Connection, Loader]]]:
    """Makes a captured file from a script, and reads what install ordered."""
    made: list[tuple[sqlite3.Connection, SqliteSource]] = []

    def make(script: str) -> tuple[sqlite3.Connection, Loader]:
        path = sqlite_file("site")
        app = create(path, script)
        capture(path, plans_of(path, "t"))
        source = SqliteSource(path, LINK, plans_of(path, "t"), acknowledge_seconds=0)
        made.append((app, source))
        loader = Loader(path, source)
        loader.batch()
        loader.rows.clear()
        return app, loader

    yield make
    for app, source in made:
        source.close()
        app.close()


Make = Callable[[str], tuple[sqlite3.Connection, Loader]]
NUMBERS = (
    "with recursive n (i) as (select 1 union all select i + 1 from n where i < {}) insert into t select {} from n;"
)


def test_a_place_is_found_by_the_keys_index(opened: Make) -> None:
    for key in (*KEYS, UNEVEN):
        app, loader = opened(f"create table t (v, {key});")
        order = ChunkReader(app, TableReader(loader.plan, Relation(1, TableName("", "t"), (), loader.plan.key))).order
        condition, parameters = order.behind((1,) * len(order.names))
        terms = ", ".join(order.terms)
        plan = app.execute(f"explain query plan select * from t as m where {condition} order by {terms}", parameters)
        steps = [str(row[3]) for row in plan]
        assert len(steps) == 1 or "desc" in key, (key, steps)
        assert steps[0].startswith("SEARCH m"), (key, steps)


def test_an_index_that_compares_otherwise_than_its_column(opened: Make) -> None:
    app, loader = opened(
        f"create table t (v, {UNEVEN});" + "insert into t (id) values ('a'), ('B'), ('A'), ('b'), ('C');"
    )
    assert loader.load(1) == [1, 1, 1, 1, 1, 0]
    assert loader.rows == table_rows(app, loader.plan)


def test_large_rows_make_small_chunks(opened: Make) -> None:
    """Memory is bounded by bytes, not by rows."""
    app, loader = opened(
        "create table t (id integer primary key, v blob);" + NUMBERS.format(30, "i, zeroblob(1000000)")
    )
    sizes = loader.load(1000)
    assert sum(sizes) == 30
    assert max(sizes) <= 16
    assert loader.rows == table_rows(app, loader.plan)


def test_named_rows_come_there_or_gone_and_large_ones_in_parts(opened: Make) -> None:
    app, loader = opened("create table t (id primary key, v blob);" + NUMBERS.format(30, "i, zeroblob(900000)"))
    app.execute("insert into t values ('x', 1), (x'00', 2), (1.5, 3), (cast(x'ff' as text), 4)")
    loader.batch()
    loader.rows.clear()
    keys: list[Key] = [(n,) for n in range(1, 41)] + [("x",), (b"\0",), (1.5,), ("1",), (None,)]
    chunk = loader.batch(ChunkRequest(1, TableName("", "t"), None, 100, keys, "45"))
    assert chunk is not None
    assert (chunk.upto, chunk.rows, chunk.last) == ("45", 44, False)
    wanted = table_rows(app, loader.plan, "typeof(id) <> 'text' or id = 'x'")
    assert loader.rows == wanted
    assert len(loader.loaded) == 44


def test_a_file_that_nobody_wrote_to_still_gives_its_chunks(opened: Make) -> None:
    app, loader = opened("create table t (id integer primary key, v);" + NUMBERS.format(10, "i, i"))
    loader.batch()
    position = loader.position
    assert loader.load(4) == [4, 4, 2]
    assert str(loader.position).split(":")[1:] == str(position).split(":")[1:]
    app.execute("delete from t")
    loader.batch()
    assert loader.load(4) == [0]


def test_an_order_that_is_no_more_begins_again(opened: Make) -> None:
    _, loader = opened("create table t (id integer primary key, v);" + NUMBERS.format(5, "i, i"))
    chunk = loader.batch(ChunkRequest(1, TableName("", "t"), '["m.\\"other\\"", 3]', 10))
    assert chunk is not None
    assert chunk.rows == 5


def test_estimates(opened: Make) -> None:
    _, loader = opened("create table t (id integer primary key, v);" + NUMBERS.format(1234, "i, i"))
    assert loader.source.estimate_rows(TableName("", "t")) == 1234


def test_a_file_from_before_there_were_backfills_has_none(sqlite_file: Callable[[str], Path]) -> None:
    """Until install has run, all else goes on."""
    site, centre = sqlite_file("site"), sqlite_file("centre")
    app, there = (create(path, "create table t (id integer primary key, v);") for path in (site, centre))
    plans = plans_of(site, "t")
    capture(site, plans)
    capture(centre, [])
    there.executescript("drop table replicator_backfill; drop table replicator_backfill_key;")
    source, target = SqliteSource(site, LINK, plans), SqliteTarget(centre, LINK, plans)
    app.execute("insert into t values (1, 1)")
    assert target.next_chunk() is None
    assert run_once(source, target, 10) is not None
    assert target.list_backfills() == []
    assert there.execute("select * from t").fetchall() == [(1, 1)]
    for each in (source, target, app, there):
        each.close()
