"""The log goes to the centre past the outbox: nothing is lost, doubled or out of order, whichever way it goes in between."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest

from replicator.engines.postgres.positions import joined, lsn_of, snapshot_of
from replicator.engines.postgres.wal import feed
from replicator.engines.postgres.wal.filler import Filler
from replicator.engines.postgres.wal.logged import LoggedBatch
from replicator.errors import BatchError, RetryableError, SettingsError
from replicator.model import Position
from replicator.pipeline import run_once
from replicator.worker import Ends, LinkState
from tests.fixtures.pairs import MakePair, Pair

TABLES = (
    "create table parent (id int primary key, n int not null, note text)",
    "create table child (id int primary key, parent int not null references parent, n int not null)",
)


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    """A site whose log goes past its outbox, with some rows on both sides."""
    made = make_pair("postgres-bypass", "postgres")
    made.site.run(*TABLES, "insert into parent select g, 0, 'a' from generate_series(1, 40) g")
    made.install("parent", "child")
    made.sync()
    return made


def outbox(pair: Pair) -> int:
    """Rows in the site's outbox."""
    return int(str(pair.site.rows("select count(*) from replicator.outbox")[0][0]))


def kinds(pair: Pair, ends: Ends, limit: int = 10_000) -> list[str]:
    """Move everything; how each batch came."""
    found = []
    read = ends.source.read_batch

    @contextmanager
    def noting(*given: Any) -> Iterator[Any]:
        with read(*given) as batch:
            if batch is not None:
                found.append("log" if isinstance(batch, LoggedBatch) else "outbox")
            yield batch

    ends.source.read_batch = noting  # type: ignore[method-assign,assignment]
    while run_once(ends.source, ends.target, limit) is not None:
        continue
    ends.source.tidy()
    ends.source.read_batch = read  # type: ignore[method-assign]
    return found


def test_changes_go_past_the_outbox(pair: Pair) -> None:
    before = outbox(pair)
    with pair.ends() as ends:
        pair.site.commit("insert into parent values (100, 1, 'x')", "insert into child values (1, 100, 1)")
        pair.site.run("update parent set id = 101 where id = 1", "delete from parent where id = 2", "truncate child")
        pair.site.run("update parent set note = E'tab\\there, back\\\\slash\\nnew line\\r', n = 3 where id < 9")
        assert set(kinds(pair, ends)) == {"log"}
        assert outbox(pair) == before
        assert kinds(pair, ends) == []
        assert lsn_of(ends.target.read_position()) > 0
    pair.assert_equal("parent", "child")
    assert (pair.conflicts(), pair.parked()) == ([], [])


def test_what_another_brought_into_the_outbox_is_drained_first(pair: Pair) -> None:
    """The service fills the outbox while the target is away, an audit does so to know what is in flight."""
    with pair.ends() as ends:
        pair.site.run("update parent set n = 1")
        assert kinds(pair, ends) == ["log"]
    pair.site.run("update parent set n = 2", "insert into child values (1, 1, 1)")
    filler = Filler(pair.site.url, pair.topology)
    while not filler.fill(1000):
        continue
    filler.close()
    pair.site.run("update parent set n = 3", "update child set n = 2")
    with pair.ends() as ends:
        assert kinds(pair, ends) == ["outbox", "log"]
        pair.site.run("delete from child")
        assert kinds(pair, ends) == ["log"]
    pair.assert_equal("parent", "child")
    assert (pair.conflicts(), pair.parked()) == ([], [])


COMMIT_WAITS = (
    "create function hold_commit() returns trigger language plpgsql as"
    " $$ begin perform pg_advisory_xact_lock_shared(77); return null; end $$",
    "create constraint trigger hold_commit after insert on replicator.outbox initially deferred"
    " for each row execute function hold_commit()",
    "alter table replicator.outbox enable always trigger hold_commit",
)


def test_a_filler_that_commits_though_it_was_killed_brings_nothing_twice(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its slot is free, its COMMIT on the way: that lands when the slot has been taken, before the outbox is drained."""
    pair.site.run(*COMMIT_WAITS, "update parent set n = 5")
    filler, take = Filler(pair.site.url, pair.topology), feed.Feed.take
    with psycopg.connect(pair.site.url, autocommit=True) as gate, ThreadPoolExecutor(1) as pool:
        gate.execute("select pg_advisory_lock(77)")
        filling = pool.submit(filler.fill, 1000)
        wait_for(lambda: bool(pair.site.rows("select from pg_locks where locktype = 'advisory' and not granted")))
        gate.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database()"
        )
        wait_for(
            lambda: (
                not pair.site.rows("select from pg_replication_slots where active and database = current_database()")
            )
        )

        def taken(self: feed.Feed, delivered: int, stamp: str) -> bool:
            found = take(self, delivered, stamp)
            gate.execute("select pg_advisory_unlock_all()")
            wait([filling])
            return found

        monkeypatch.setattr(feed.Feed, "take", taken)
        with pair.ends() as ends:
            assert kinds(pair, ends) == ["outbox"]
    with suppress(RetryableError):
        filling.result()
    filler.close()
    pair.assert_equal("parent")


def test_a_transaction_larger_than_memory_holds_is_read_while_it_is_applied(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_MUCH_BYTES", 10_000)
    pair.site.run("insert into parent select g, 0, repeat('x', 50) from generate_series(1000, 4000) g")
    pair.site.run("update parent set n = 1 where id > 3990")
    with pair.ends() as ends:
        assert kinds(pair, ends, 10) == ["log", "log"]
    pair.assert_equal("parent")


def test_a_change_that_is_not_clean_goes_the_careful_way(pair: Pair) -> None:
    pair.centre.run("delete from parent where id = 3", "update parent set note = 'centre' where id = 4")
    pair.site.run(
        "insert into parent values (50, 1, 'x')", "update parent set n = 1", "delete from parent where id = 4"
    )
    with pair.ends() as ends:
        assert kinds(pair, ends) == ["log"]
    assert len(pair.conflicts()) == 2
    assert pair.centre.rows("select n from parent where id in (5, 50)") == [(1,), (1,)]


def test_a_log_that_is_not_the_one_the_position_is_of_is_refused(pair: Pair) -> None:
    """A copy of the site from before: its log has other transactions behind the place that is on record there."""
    with pair.ends() as ends:
        ends.source.prove_history(ends.target.read_position(), "", "")
        pair.site.run("update parent set n = 1")
        with ends.source.read_batch(ends.target.read_position(), 10) as batch:
            assert isinstance(batch, LoggedBatch)
            list(batch.blocks())
            upto, stamp = batch.upto, batch.stamp
    place = lsn_of(upto)
    kind, lsn, end, at, xid = stamp.split("/")
    with pair.ends() as ends:
        ends.source.prove_history(upto, f"{kind}/{lsn}/{end}/{int(at) + 1}/{xid}", "")
        with pytest.raises(BatchError, match="not the one"), ends.source.read_batch(upto, 10):
            pass
    with pair.ends() as ends:
        ends.source.prove_history(upto, stamp, "")
        with ends.source.read_batch(upto, 10) as nothing:
            assert nothing is None
    with pair.ends() as ends, pytest.raises(BatchError, match="future"):
        ends.source.prove_history(joined(snapshot_of(upto), place + (1 << 40)), stamp, "")


def test_a_site_that_gets_changes_too_needs_its_outbox(pair: Pair) -> None:
    with pytest.raises(SettingsError, match="outbox"):
        pair.configure({"name": "parent", "direction": "both"})


def test_keys_in_flight_when_nobody_reads_the_log(pair: Pair) -> None:
    """It is brought into the outbox, from where the link drains it later."""
    with pair.ends() as ends:
        pair.site.run("update parent set n = 1 where id = 4")
        assert kinds(pair, ends) == ["log"]
    pair.site.run("update parent set n = 1 where id = 5")
    keys = [("4",), ("5",), ("6",)]
    with pair.ends() as ends:
        plan = next(each for each in ends.source._plans if each.source.name.name == "parent")  # type: ignore[attr-defined]
        after = ends.target.read_position()
        assert ends.source.keys_in_flight(plan, after, keys) == {("5",)}  # type: ignore[attr-defined]
        assert kinds(pair, ends) == ["outbox"]
    pair.assert_equal("parent")


def test_keys_in_flight_beside_a_link_that_reads_the_log(pair: Pair) -> None:
    """It has passed what was committed before the question, so that nothing is in flight or the position has moved."""
    (worker,) = pair.app.workers([pair.name])
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_for(lambda: worker.report.state is LinkState.WAITING)
        asked = pair.app.connect(pair.name)
        plan = next(each for each in asked.source._plans if each.source.name.name == "parent")  # type: ignore[attr-defined]
        for number in range(1, 6):
            pair.site.run(f"update parent set n = n + 1 where id = {number}")
            (before,) = pair.centre.rows("select position from replicator.link")
            flying = asked.source.keys_in_flight(plan, Position(str(before[0])), [(str(number),)])  # type: ignore[attr-defined]
            if pair.centre.rows("select position from replicator.link") == [before] and not flying:
                query = f"select n from parent where id = {number}"
                assert pair.centre.rows(query) == pair.site.rows(query)
        asked.close()
    finally:
        worker.stop()
        thread.join()
    pair.assert_equal("parent")


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_while_the_target_is_away_the_log_is_let_go(pair: Pair) -> None:
    """The service keeps filling the outbox; when the target is back that goes first, and the log goes past it again."""
    tap = pair.app._engines._pumps.keep(pair.site.url, pair.topology)
    with pair.ends() as ends:
        pair.site.run("update parent set n = 1")
        assert set(kinds(pair, ends)) <= {"log", "outbox"}
    before = outbox(pair)
    pair.site.run("update parent set n = 2")
    wait_for(lambda: outbox(pair) == before + 40)
    with pair.ends() as ends:
        pair.site.run("update parent set n = 3")
        assert kinds(pair, ends)[0] == "outbox"
        pair.site.run("update parent set n = 4")
        assert kinds(pair, ends) == ["log"]
    tap.close()
    pair.assert_equal("parent")
    assert (pair.conflicts(), pair.parked()) == ([], [])


class History:
    """Random steps on one link; every process that works on it may die at any point."""

    def __init__(self, pair: Pair, seed: int) -> None:
        self.pair = pair
        self.chance = random.Random(seed)
        self.ends: Ends | None = None
        self.written = 0
        self._next = 1000

    def run(self, steps: int) -> None:
        """So many of them, then whatever is left."""
        choices = [self.write] * 6 + [self.move] * 4 + [self.fail] * 2 + [self.close, self.spill, self.switch]
        for _ in range(steps):
            self.chance.choice(choices)()
        self.close()
        with self.pair.ends() as ends:
            kinds(self.pair, ends)
            kinds(self.pair, ends)

    def write(self) -> None:
        """One transaction."""
        with psycopg.connect(self.pair.site.url) as connection:
            for _ in range(self.chance.choice((1, 1, 2, 5, 30))):
                self.written += connection.execute(self._statement().encode()).rowcount

    def _statement(self) -> str:
        low = self.chance.randint(1, 60)
        self._next += 1000
        return self.chance.choice((
            f"update parent set n = n + 1 where id between {low} and {low + 5}",
            f"update parent set note = coalesce(note, '') || E'\\t{low}' where id = {low}",
            f"insert into parent select g, 0, null from generate_series({self._next}, {self._next + 3}) g",
            f"insert into child select {self._next} + id, id, 0 from parent where id between {low} and {low + 3}",
            f"delete from child where parent between {low} and {low + 2}",
            f"update parent set id = {self._next} where id = {low} and not exists (select from child where parent = {low})",
        ))  # fmt: skip

    def _open(self) -> Ends:
        if self.ends is None:
            self.ends = self.pair.app.connect(self.pair.name)
            position = self.ends.target.read_position()
            self.ends.source.prove_history(position, self.ends.target.read_stamp(), "")
        return self.ends

    def move(self) -> None:
        """A batch or two."""
        ends = self._open()
        for _ in range(self.chance.randint(1, 3)):
            run_once(ends.source, ends.target, self.chance.choice((3, 20, 1000)))

    def fail(self) -> None:
        """A batch during which the process dies: before something is recorded, behind it, or behind the commit."""
        ends = self._open()
        where, when = self.chance.choice((
            (ends.target, "record_batch"), (ends.target, "stage_batch"), (ends.source, "acknowledge_batch")
        )), self.chance.random() < 0.5  # fmt: skip
        owner, name = where
        real = getattr(owner, name)

        def dying(*given: object) -> object:
            if when:
                real(*given)
            raise RetryableError("died")

        setattr(owner, name, dying)
        try:
            run_once(ends.source, ends.target, 20)
        except RetryableError:
            self.close()
        else:
            setattr(owner, name, real)

    def close(self) -> None:
        """The process ends."""
        if self.ends is not None:
            self.ends.close()
            self.ends = None

    def spill(self) -> None:
        """Another process fills the outbox, all of the log or some; it may die, too, before it says so."""
        self.close()
        filler = Filler(self.pair.site.url, self.pair.topology)
        if self.chance.random() < 0.3:
            filler._flush = self._dead  # type: ignore[method-assign]
        with suppress(RetryableError):
            filler.fill(self.chance.choice((1, 10, 1000)))
        filler.close()

    @staticmethod
    def _dead(*given: object) -> int:
        raise RetryableError("died")

    def switch(self) -> None:
        """Another value of ``outbox`` in the YAML, and a new start."""
        self.close()
        place: Any = self.pair.site
        place.outbox = "keep" if place.outbox == "bypass" else "bypass"
        self.pair.configure("parent", "child")


SEEDS = int(os.environ.get("REPLICATOR_TEST_HISTORIES", "3"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_invariants_1_to_4_whichever_way_the_log_goes(pair: Pair, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost or doubled, every change was clean: it found the row as the site had it."""
    if seed % 2:
        monkeypatch.setattr(feed, "_MUCH_BYTES", 1000)
    changes = pair.centre.rows("select changes from replicator.link")[0][0]
    history = History(pair, seed)
    history.run(50)
    pair.assert_equal("parent", "child")
    assert (pair.conflicts(), pair.parked()) == ([], [])
    assert pair.centre.rows("select changes from replicator.link")[0][0] == changes + history.written  # type: ignore[operator]
