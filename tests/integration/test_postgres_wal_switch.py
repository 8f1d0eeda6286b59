"""Going over from triggers to the log and back while the application writes: no change is lost, none comes twice."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from replicator.engines.postgres.installer import PostgresInstaller
from replicator.engines.postgres.wal.installer import PostgresWalInstaller
from replicator.engines.postgres.wal.source import PostgresWalSource
from replicator.model import Position
from tests.fixtures.databases import PostgresDatabases
from tests.integration.postgres_site import LINK, Change, plan_of, read_once

TABLES = ("t", "u")


class Switching:
    """A database whose way of capture changes while two applications write to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = psycopg.connect(url, autocommit=True)
        for table in TABLES:
            self.connection.execute(f"create table {table} (id int primary key, n int)".encode())
        self.stop, self.ending = threading.Event(), threading.Event()
        self.seen: list[Change] = []
        self.position: Position | None = None
        self.from_log = False

    def install(self, *, from_log: bool) -> None:
        """What ``replicator install`` does after the YAML was changed."""
        installer = (PostgresWalInstaller if from_log else PostgresInstaller)(self.url, patience=20)
        tables = installer.read_catalogue().tables.values()
        installer.install(installer.plan_site(LINK.topology, [plan_of(table) for table in tables]))
        installer.close()
        self.from_log = from_log

    def left_to_install(self) -> list[str]:
        installer = (PostgresWalInstaller if self.from_log else PostgresInstaller)(self.url)
        tables = installer.read_catalogue().tables.values()
        plan = installer.plan_site(LINK.topology, [plan_of(table) for table in tables])
        installer.close()
        return [step.object for step in plan.statements]

    def source(self) -> PostgresWalSource:
        with closing(PostgresInstaller(self.url)) as installer:
            plans = [plan_of(table) for table in installer.read_catalogue().tables.values()]
        return PostgresWalSource(self.url, LINK, plans, expected=self.from_log)

    def read(self) -> None:
        """What the service does, with the YAML as it was when it started: read, wait, read, until nothing is left."""
        with closing(self.source()) as source:
            ending = False
            while True:
                changes, upto, _ = read_once(source, self.position, 500)
                if upto is not None:
                    self.seen += changes
                    self.position = upto
                elif ending:
                    return
                else:
                    ending = self.ending.is_set()
                    source.wait(0.1)

    def start(self) -> None:
        self.ending.clear()
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def end(self) -> None:
        self.ending.set()
        self.reader.join()

    def write(self, seed: int) -> None:
        """Each row counts up; transactions take their time and touch both tables."""
        chance = random.Random(seed)
        with psycopg.connect(self.url) as connection:
            while not self.stop.is_set():
                for _ in range(chance.randint(1, 3)):
                    table = chance.choice(TABLES).encode()
                    key = chance.randint(1, 20) * 2 + seed
                    connection.execute(
                        b"insert into " + table + b" as x values (%s, 0) on conflict (id) do update set n = x.n + 1",
                        (key,),
                    )
                    time.sleep(chance.random() * 0.003)
                (connection.commit if chance.random() > 0.1 else connection.rollback)()

    def expect_every_change_once(self) -> None:
        """Every row counted from 0 to what it is, in order and without a gap."""
        counts: dict[tuple[str, str | None], int] = {}
        for table, op, before, after in self.seen:
            assert after is not None
            key = (table, after[0])
            was = counts.get(key)
            assert (op, before) == (("i", None) if was is None else ("u", (after[0], str(was)))), (table, before, after)
            counts[key] = int(str(after[1]))
            assert counts[key] == (0 if was is None else was + 1)
        found = {
            (table, str(key)): n
            for table in TABLES
            for key, n in self.connection.execute(f"select id, n from {table}".encode()).fetchall()
        }
        assert counts == found
        assert sum(found.values()) > 100


@pytest.fixture
def switching(postgres_database: PostgresDatabases) -> Iterator[Switching]:
    made = Switching(postgres_database("switch"))
    made.install(from_log=False)
    yield made
    made.stop.set()
    made.connection.close()


@pytest.mark.parametrize("restart", [True, False], ids=["reader restarted", "reader goes on"])
def test_to_the_log_and_back_under_load(switching: Switching, *, restart: bool) -> None:
    """Invariants 1 and 2."""
    writers = [threading.Thread(target=switching.write, args=(seed,)) for seed in (0, 1)]
    for writer in writers:
        writer.start()
    try:
        switching.start()
        for from_log in (True, False, True, False):
            time.sleep(0.5)
            if restart:
                switching.end()
            switching.install(from_log=from_log)
            if not restart:
                switching.end()
            switching.start()
        time.sleep(0.3)
    finally:
        switching.stop.set()
        for writer in writers:
            writer.join()
        switching.end()
    switching.expect_every_change_once()
    assert switching.connection.execute("select count(*) from replicator.slot").fetchall() == [(0,)]
    slots = "select count(*) from pg_replication_slots where database = current_database()"
    assert switching.connection.execute(slots.encode()).fetchall() == [(0,)]
    assert [what.partition(" ")[0] for what in switching.left_to_install()] == ["publication", "replica", "replica"]
    switching.install(from_log=False)
    assert not switching.left_to_install()
