"""Record literals against the real ``record_out`` and ``record_in``."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.records import encode_record, parse_record
from tests.fixtures.databases import PostgresDatabases

TEXTS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0")) | st.text(
    alphabet='",\\() \n\t\v\f\ra'
)


@pytest.fixture
def postgres(postgres_database: PostgresDatabases) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_database("records"), autocommit=True) as connection:
        connection.execute("create type triple as (a text, b text, c text)")
        yield connection


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.none() | TEXTS, min_size=3, max_size=3))
def test_postgres_and_python_read_each_others_records(postgres: psycopg.Connection, values: list[str | None]) -> None:
    written = postgres.execute("select row(%s::text, %s::text, %s::text)::text", values).fetchone()
    assert written is not None
    assert parse_record(written[0]) == values
    assert postgres.execute("select (%s::triple).*", [encode_record(values)]).fetchone() == tuple(values)
