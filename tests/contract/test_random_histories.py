"""Invariant 6 under random histories: whatever the site does, and however it is cut into batches, both sides end equal."""

from __future__ import annotations

import random
import sqlite3
from contextlib import suppress

import psycopg
import pytest

from tests.fixtures.pairs import Pair, exact

TABLES = (
    "create table parent (id integer primary key, code text unique, n bigint)",
    "create table child (a text, b integer, up integer references parent (id), tag text unique, primary key (a, b))",
    "create table alone (k text primary key, v double precision)",
)
ROUNDS, TRANSACTIONS = 12, 10


class _GivenUp(Exception):
    """An application that changes its mind."""


class History:
    """Random statements; those the site's database refuses are rolled back, like an application's."""

    def __init__(self, pair: Pair, seed: int) -> None:
        self.random = random.Random(seed)
        self._pair = pair
        self._postgres = pair.site.engine == "postgres"
        self.done = 0

    def transaction(self) -> None:
        """One to five statements; a refused one is rolled back to its savepoint; one transaction in eight is given up."""
        with suppress(_GivenUp), self._pair.site.session() as run:
            for _ in range(self.random.randint(1, 5)):
                run("savepoint s")
                try:
                    run(self._statement())
                    self.done += 1
                except (sqlite3.IntegrityError, psycopg.IntegrityError):
                    run("rollback to savepoint s")
                run("release savepoint s")
            if self.random.random() < 0.125:
                raise _GivenUp

    def _statement(self) -> str:
        pick = self.random
        n, m = pick.randint(1, 12), pick.randint(1, 12)
        code = pick.choice(["null", *(f"'code {i}'" for i in range(8))])
        tag = pick.choice(["null", *(f"'tag {i}'" for i in range(8))])
        a, b = pick.choice("xyz"), pick.randint(0, 4)
        statements = [
            f"insert into parent values ({n}, {code}, {m})",
            f"update parent set code = {code}, n = n + 1 where id = {n}",
            f"update parent set id = {m} where id = {n}",
            f"delete from parent where id = {n}",
            f"insert into child values ('{a}', {b}, {n}, {tag})",
            f"update child set up = {n}, tag = {tag} where a = '{a}' and b = {b}",
            f"update child set b = {pick.randint(0, 4)} where a = '{a}' and b = {b}",
            f"update child set up = null where up = {n}",
            f"delete from child where b = {b}",
            f"delete from child where up = {n}",
            f"insert into alone values ('{n}', {pick.random()!r})",
            f"update alone set v = v * 2 where k < '{n}'",
            f"update alone set k = k || 'x' where k = '{n}'",
            f"delete from alone where k = '{n}'",
            "update parent set n = n",
        ]
        if self._postgres:
            statements += ["truncate alone", "truncate child"] if pick.random() < 0.2 else []
        else:
            statements += [
                f"insert or replace into parent values ({n}, {code}, {m})",
                f"update or replace child set tag = {tag} where a = '{a}' and b = {b}",
                f"insert or ignore into child values ('{a}', {b}, null, {tag})",
                f"insert into alone values ('{n}', 1) on conflict (k) do update set v = v + 1",
            ]
        return pick.choice(statements)


def compare(pair: Pair, where: str = "true") -> None:
    """All tables, value by value."""
    for table in ("parent", "child", "alone"):
        condition = where if table == "parent" else "true"
        here = exact(pair.site.rows(f"select * from {table} where {condition}"))
        assert exact(pair.centre.rows(f"select * from {table}")) == here, table


@pytest.mark.parametrize("seed", range(4))
def test_invariant_6_random_histories_converge(pair: Pair, seed: int) -> None:
    pair.site.run(*TABLES)
    pair.install("*")
    history = History(pair, seed)
    for _ in range(ROUNDS):
        for _ in range(TRANSACTIONS):
            history.transaction()
        if history.random.random() < 0.8:
            pair.sync(limit=history.random.choice([1, 3, 1000]))
            compare(pair)
            assert pair.parked() == [], f"seed {seed}"
    pair.sync()
    compare(pair)
    assert (pair.parked(), pair.conflicts()) == ([], [])
    assert history.done > ROUNDS * TRANSACTIONS


@pytest.mark.parametrize("policy", ["source_wins"])
def test_invariant_6_random_histories_converge_with_a_centre_that_is_written_too(pair: Pair, policy: str) -> None:
    """Rows changed at the centre behind the site's back are overwritten as soon as the site changes them again."""
    pair.site.run("create table alone (k integer primary key, v bigint)")
    pair.install({"name": "alone", "policy": policy})
    pick = random.Random(7)
    for round_ in range(12):
        for place in (pair.site, pair.site, pair.centre):
            k, v = pick.randint(1, 15), pick.randint(1, 5)
            for statement in (
                f"delete from alone where k = {k}",
                f"insert into alone values ({k}, {v})",
                f"update alone set v = {v + round_} where k in ({k + 1}, {k + 2})",
            ):
                place.run(statement)
        pair.sync(limit=pick.choice([1, 1000]))
    pair.site.run("update alone set v = v + 1000")
    pair.sync()
    here = pair.site.rows("select k, v from alone")
    there = dict(pair.centre.rows("select k, v from alone"))
    assert {k: there.get(k) for k, _ in here} == dict(here)
    assert pair.parked() == []
    assert pair.conflicts() != []


@pytest.mark.parametrize("seed", range(2))
def test_invariant_6_random_histories_converge_through_a_row_filter(pair: Pair, seed: int) -> None:
    pair.site.run(*TABLES)
    pair.install({"name": "parent", "where": "n > 4"}, "*")
    history = History(pair, 100 + seed)
    for _ in range(6):
        for _ in range(TRANSACTIONS):
            history.transaction()
        pair.sync(limit=history.random.choice([1, 1000]))
        compare(pair, "n > 4")
    assert (pair.parked(), pair.conflicts()) == ([], [])
