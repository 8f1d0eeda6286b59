"""Whoever fills the outbox from the log is killed at any moment, again and again: every change is there once, in order."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from replicator.embedded import EmbeddedServer
from replicator.engines.postgres.wal.filler import Filler
from replicator.errors import RetryableError, SetupError
from tests.fixtures.cli import ROOT
from tests.integration.postgres_site import LINK, MakeSite, Site
from tests.integration.postgres_wal_site import WalSite, make_wal_site

__all__ = ["make_wal_site"]

FILLER = """
import sys, time
from replicator.engines.postgres.wal.filler import Filler
from replicator.errors import RetryableError
filler = Filler(sys.argv[1], sys.argv[2])
print("ready", flush=True)
while True:
    try:
        filler.fill(200)
        filler.wait(0.05)
    except RetryableError:
        time.sleep(0.02)
"""


def write(site: Site, stop: threading.Event, seed: int) -> None:
    """Transactions of all sizes that count rows up; one in ten is rolled back."""
    chance = random.Random(seed)
    with psycopg.connect(site.url) as connection:
        connection.execute("set synchronous_commit = off")
        while not stop.is_set():
            low = chance.randint(1, 500)
            connection.execute(
                "update t set n = n + 1 where id between %s and %s", (low, low + chance.choice((0, 5, 300)))
            )
            (connection.commit if chance.random() > 0.1 else connection.rollback)()
            time.sleep(0.002)


@pytest.mark.slow
def test_a_filler_that_is_killed_loses_and_doubles_nothing(make_wal_site: MakeSite) -> None:
    """Invariants 1, 2 and 3."""
    site = make_wal_site("create table t (id int primary key, n int)")
    site.run("insert into t select g, 0 from generate_series(1, 800) g")
    stop, chance = threading.Event(), random.Random(3)
    writers = [threading.Thread(target=write, args=(site, stop, seed)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(12):
            command = [sys.executable, "-c", FILLER, site.url, LINK.topology]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                time.sleep(0.1 + chance.random() * 0.5)
                process.kill()
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    killed_at = site.rows("select count(*) from replicator.outbox")[0][0]
    filler = Filler(site.url, LINK.topology)
    for _ in range(100):
        try:
            while not filler.fill(1000):
                continue
            break
        except RetryableError:
            time.sleep(0.05)
    filler.close()
    counts: dict[object, object] = {}
    outbox = "select split_part(trim('()' from before), ',', 2)::int, split_part(trim('()' from after), ',', 1)::int, "
    outbox += "split_part(trim('()' from after), ',', 2)::int from replicator.outbox order by seq"
    for before, key, after in site.rows(outbox):
        assert counts.get(key) == before
        counts[key] = after
    assert list(counts.items()) != []
    assert sorted(counts.items()) == sorted(site.rows("select id, n from t"))
    assert 800 < int(str(killed_at)) <= len(site.rows("select from replicator.outbox"))


def test_a_slot_whose_log_was_removed_is_named_and_install_brings_it_back(own_server: EmbeddedServer) -> None:
    url = own_server.create_database("site")
    site = WalSite(url, psycopg.connect(url, autocommit=True))
    try:
        site.run("create table t (id int primary key)")
        site.install()
        for change in ("max_slot_wal_keep_size = '1MB'", "max_wal_size = '32MB'", "min_wal_size = '32MB'"):
            site.run(f"alter system set {change}")
        site.run("select pg_reload_conf()")
        for number in range(6):
            site.run(f"insert into t values ({number})")
            site.run("select pg_switch_wal()")
            site.run("checkpoint")
        assert site.rows("select wal_status from pg_replication_slots") == [("lost",)]
        with pytest.raises(SetupError, match="invalidated"):
            site.read()
        site.install(skip_existing=False)
        with pytest.raises(SetupError, match="changes from before it are missing"):
            site.read()
        site.installer.close_gap(LINK.topology)
        assert site.read() == []
        site.run("insert into t values (6)")
        assert len(site.read()) == 1
    finally:
        site.close()
