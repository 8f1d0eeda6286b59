"""What the log brings is spelled as the triggers spell it: both capture the same database, and the outbox rows are equal."""

from __future__ import annotations

import random
from collections.abc import Iterator

import psycopg
import pytest

from replicator.engines.postgres.installer import PostgresInstaller
from replicator.engines.postgres.wal.filler import Filler
from replicator.engines.postgres.wal.installer import PostgresWalInstaller
from replicator.model import RowFilter
from tests.fixtures.databases import PostgresDatabases
from tests.fixtures.zoo import POSTGRES, SETUP
from tests.integration.postgres_site import plan_of

OUTBOX = """select op::text, before, after from replicator.outbox o join replicator.relation r on r.id = abs(o.relation)
where r.topology = %s and r.table_name = %s and (o.op = 't' or (o.relation > 0) = %s) order by seq"""


class Both:
    """A database captured twice: by triggers for one topology, from the log for another."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = psycopg.connect(url, autocommit=True)
        self.filters: dict[str, RowFilter] = {}

    def install(self) -> None:
        for installer, topology in ((PostgresInstaller(self.url), "triggers"), (PostgresWalInstaller(self.url), "log")):
            tables = installer.read_catalogue().tables.values()
            plans = [plan_of(t, where=self.filters.get(t.name.name)) for t in tables if t.key and t.kind != "partition"]
            installer.install(installer.plan_site(topology, plans))
            installer.close()

    def fill(self) -> None:
        filler = Filler(self.url, "log")
        while not filler.fill(1000):
            continue
        filler.close()

    def outbox(self, topology: str, table: str, *, by_name: bool = False) -> list[tuple[object, ...]]:
        return self.connection.execute(OUTBOX, (topology, table, not by_name)).fetchall()

    def expect_equal(self, table: str) -> None:
        self.fill()
        ours, theirs = self.outbox("log", table), self.outbox("triggers", table)
        assert ours == theirs
        assert ours

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def both(postgres_database: PostgresDatabases) -> Iterator[Both]:
    made = Both(postgres_database("both"))
    yield made
    made.close()


def test_values_of_every_type_are_spelled_as_triggers_spell_them(both: Both) -> None:
    for text in SETUP:
        both.connection.execute(text)
    kinds = list(POSTGRES)
    try:
        both.connection.execute("select '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        kinds.remove("xml")  # this server was built without it
    columns = ", ".join(f"c{place} {kind}" for place, kind in enumerate(kinds))
    both.connection.execute(f"create table zoo (id int primary key, {columns})")
    both.install()
    both.connection.execute(
        "set datestyle = 'German'; set timezone = 'Asia/Kathmandu'; set extra_float_digits = -5; set bytea_output = 'escape'"
    )
    number = 0
    modern = both.connection.info.server_version >= 140000
    for place, kind in enumerate(kinds):
        for value in POSTGRES[kind]:
            if kind == "numeric" and "Infinity" in str(value) and not modern:
                continue  # PostgreSQL 14 learnt it
            number += 1
            with both.connection.cursor() as cursor:
                cursor.execute(
                    f"set datestyle = 'ISO'; insert into zoo (id, c{place}) values ({number}, {_literal(value)})"
                )
    both.connection.execute("update zoo set id = -id where id % 3 = 0")
    both.connection.execute("update zoo set id = id where id % 3 = 1")
    both.connection.execute("delete from zoo where id % 2 = 0")
    both.expect_equal("zoo")


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def test_random_histories_are_captured_alike(both: Both) -> None:
    both.connection.execute("create table t (id int primary key, a text, b text, f float8, x bytea, at timestamptz)")
    both.connection.execute("alter table t alter a set storage external, alter x set storage external")
    both.install()
    chance = random.Random(7)
    for _ in range(60):
        with both.connection.transaction() as transaction:
            for _ in range(chance.randint(1, 8)):
                both.connection.execute(_statement(chance))
            if chance.random() < 0.2:
                raise psycopg.Rollback(transaction)
    both.expect_equal("t")


def _statement(chance: random.Random) -> str:
    low = chance.randint(1, 40)
    text = chance.choice(
        ["null", "''", "repeat('x', 9000)", "'a,b'", "'\"(\\'", "E'\\t\\n\\r'", "'é  '", "repeat('\\ü', 5000)"]
    )
    return chance.choice([
        f"insert into t values ({low}, {text}, {text}, {low} / 3.0, '\\xff00', now()) "
        f"on conflict (id) do update set a = {text}",
        f"insert into t select g, {text}, null, random(), null, 'infinity' "
        f"from generate_series({low}, {low} + 5) g on conflict do nothing",
        f"update t set b = {text} where id between {low} and {low} + 10",
        f"update t set x = convert_to(coalesce({text}, 'z'), 'UTF8'), f = '-0' where id = {low}",
        f"update t set id = id + 100 where id = {low} and not exists (select from t where id = {low} + 100)",
        f"delete from t where id between {low} and {low} + 2",
        "truncate t" if chance.random() < 0.1 else f"update t set a = a where id < {low}",
    ])  # fmt: skip
