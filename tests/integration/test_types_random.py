"""Invariant 5 with random values: exact or parked, on every pair of engines."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from datetime import date

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from replicator.pipeline import retry_parked
from tests.fixtures.pairs import MakePair, Pair, PostgresPlace, SqlitePlace
from tests.fixtures.values import changed, settled

_TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=30)
_FLOAT = st.floats(allow_nan=False)
_STORED = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), _FLOAT, st.text(st.characters(exclude_categories=("Cs",)), max_size=30),
    st.binary(max_size=30), st.from_regex(r"\A-?\d{1,40}(\.\d{0,30})?(e-?\d{1,2})?\Z"), st.dates().map(date.isoformat),
    st.datetimes().map(str),
)  # fmt: skip
_RANDOM_KINDS = {
    "numeric": st.decimals(allow_nan=False).filter(lambda n: not n.is_finite() or abs(n.adjusted()) < 300).map(str),
    "double precision": st.floats().map(repr),
    "real": st.floats(width=32).map(repr),
    "text": _TEXT,
    "text[]": st.lists(st.one_of(st.none(), _TEXT), max_size=5),
    "bytea": st.binary(max_size=50),
    "timestamp": st.datetimes().map(str),
    "jsonb": st.recursive(st.one_of(st.none(), st.booleans(), _TEXT, st.integers()), lambda inner: st.lists(inner, max_size=3)),
}  # fmt: skip
_BOUNDED = settings(
    max_examples=4,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_invariant_5_random_postgres_values(make_pair: MakePair, target: str) -> None:
    pair = make_pair("postgres", target)
    assert isinstance(pair.site, PostgresPlace)
    tables = {f"zoo_{place}": kind for place, kind in enumerate(_RANDOM_KINDS)}
    pair.site.run(*(f"create table {table} (id integer primary key, v {kind})" for table, kind in tables.items()))
    pair.install("zoo_*")
    place = pair.site

    @_BOUNDED
    @given(st.fixed_dictionaries({kind: st.lists(values, max_size=12) for kind, values in _RANDOM_KINDS.items()}))
    def check(values: dict[str, list[object]]) -> None:
        _empty(pair, tables)
        with settled(place) as connection:
            for table, kind in tables.items():
                for number, value in enumerate(values[kind]):
                    given_value = psycopg.types.json.Jsonb(value) if kind == "jsonb" else value
                    connection.execute(f"insert into {table} values (%s, %s::{kind})", (number, given_value))
        pair.sync()
        assert list(changed(pair, tables)) == []

    check()


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_invariant_5_random_sqlite_values(make_pair: MakePair, target: str) -> None:
    pair = make_pair("sqlite", target)
    assert isinstance(pair.site, SqlitePlace)
    kinds = ["INTEGER", "REAL", "NUMERIC", "TEXT", "BLOB", "", "DATE", "DATETIME"]
    tables = {f"zoo_{place}": kind for place, kind in enumerate(kinds)}
    pair.site.run(*(f"create table {table} (id integer primary key, v {kind})" for table, kind in tables.items()))
    pair.install("zoo_*")
    place = pair.site

    @_BOUNDED
    @given(st.lists(_STORED, max_size=15))
    def check(values: list[object]) -> None:
        _empty(pair, tables)
        with closing(place.connect()) as file:
            for table in tables:
                file.executemany(f"insert into {table} values (?, ?)", list(enumerate(values)))
        pair.sync()
        assert list(changed(pair, tables)) == []

    check()


def _empty(pair: Pair, tables: Iterable[str]) -> None:
    """Empty the tables on both sides; what the example before left parked is dropped, what waits behind it goes in."""
    pair.site.run(*(f"delete from {table}" for table in tables))
    pair.sync()
    with pair.ends() as ends:
        ends.target.take_lease()
        for change in ends.target.list_parked():
            if not retry_parked(ends.target, change.id):
                ends.target.skip_parked(change.id)
