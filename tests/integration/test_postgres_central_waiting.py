"""Waking the links from one centre with one connection, pruning what every link has passed, and what is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from replicator.engines.postgres import dispatch
from replicator.errors import BatchError, SetupError
from replicator.model import Position
from tests.integration.postgres_centre import TOPOLOGY, Centre, Copy, MakeCentre, make_centre

__all__ = ["make_centre"]

_DAY = 86_400.0


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def rows_left(centre: Centre) -> int:
    """Rows in the outbox."""
    return int(str(centre.rows("select count(*) from replicator.outbox")[0][0]))


@pytest.fixture
def centre(make_centre: MakeCentre) -> Centre:
    """A clinic without rows."""
    return make_centre()


def settled(copy: Copy) -> None:
    """Read until the copy has nothing to hear."""
    while copy.read() is not None or copy.source.wait(0.3):
        continue


def test_only_the_sites_concerned_wake(centre: Centre) -> None:
    copies = {site: centre.copy(site) for site in "ABC"}
    for copy in copies.values():
        settled(copy)
    centre.run("insert into patient values (1, 'B', '')")
    began = time.monotonic()
    assert copies["B"].source.wait(10)
    assert time.monotonic() - began < 2
    assert not copies["A"].source.wait(0.3)
    centre.run("insert into drug values (1, '')")
    assert all(copy.source.wait(10) for copy in copies.values())
    copies["A"].read()
    copies["C"].read()
    centre.apply("A", "insert into patient values (2, 'A', '')", "1:5:")
    assert copies["A"].source.wait(10)
    assert not copies["C"].source.wait(0.3)


def test_any_number_of_idle_sites_takes_one_connection_and_hardly_a_question(centre: Centre) -> None:
    copies = [centre.copy(f"S{n}", keep_open=False) for n in range(40)]
    for copy in copies:
        copy.source.wait(0)
    ours = "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'replicator %'"
    until(lambda: centre.rows(ours + " and application_name not like '%install'") == [(1,)])
    dispatcher = dispatch.subscribe(centre.url, TOPOLOGY, ["none"])
    until(lambda: dispatcher.dispatcher.sources == 41)
    before = dispatcher.dispatcher.looks
    time.sleep(3)
    assert dispatcher.dispatcher.looks - before < 40, "fewer than one a source, however long it takes"
    dispatcher.close()


def test_a_wait_ends_when_woken_and_the_last_source_ends_the_dispatcher(centre: Centre) -> None:
    others = {thread for thread in threading.enumerate() if thread.name == "replicator dispatch"}
    copy = centre.copy("A")
    settled(copy)
    timer = threading.Timer(0.2, copy.source.wake)
    timer.start()
    assert copy.source.wait(10)
    copy.source.close()
    assert not [key for key in dispatch._shared if key[0] == centre.url]
    until(lambda: not [t for t in threading.enumerate() if t.name == "replicator dispatch" and t not in others])


def test_a_lost_connection_is_made_again(centre: Centre) -> None:
    """Invariant 9."""
    copy = centre.copy("A")
    settled(copy)
    centre.run("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
               " and application_name like 'replicator wait%'")  # fmt: skip
    centre.run("insert into patient values (1, 'A', '')")
    assert copy.source.wait(20)
    copy.check()


def test_the_outbox_is_pruned_to_the_slowest_link(centre: Centre) -> None:
    fast, slow = centre.copy("A"), centre.copy("B")
    centre.run("insert into drug select n, '' from generate_series(1, 50) n")
    for _ in range(2):
        fast.read()
        time.sleep(1.1)
        fast.source._subscription.dispatcher._pruned_at = 0.0
        fast.source.tidy()
    assert rows_left(centre) == 50
    slow.read()

    def pruned() -> bool:
        for copy in (fast, slow):
            copy.read()
            copy.source._subscription.dispatcher._pruned_at = 0.0
            copy.source.tidy()
        return rows_left(centre) == 0

    until(pruned)
    slow.check()


def test_a_new_link_is_waited_for_from_its_first_read(centre: Centre) -> None:
    fast = centre.copy("A")
    new = Copy(centre, "B", centre.source("B"), acknowledges=False)
    new.read()
    centre.run("insert into drug values (1, '')")
    for _ in range(3):
        fast.read()
        fast.source._subscription.dispatcher._pruned_at = 0.0
        fast.source.tidy()
    assert new.read() == [("drug", "s", ("1", ""))]


def test_a_link_away_longer_than_the_retention_is_told_and_holds_up_nobody(centre: Centre) -> None:
    fast, away = centre.copy("A", retention_days=1 / _DAY), centre.copy("B")
    centre.run("insert into drug values (1, '')")
    time.sleep(1.2)

    def pruned() -> bool:
        fast.read()
        fast.source._subscription.dispatcher._pruned_at = 0.0
        fast.source.tidy()
        centre.run("insert into shot values (1, null, 1); delete from shot")
        return centre.rows("select count(*) from replicator.outbox o join replicator.relation r on r.id = o.relation"
                           " where r.table_name = 'drug'") == [(0,)]  # fmt: skip

    until(pruned)
    with pytest.raises(BatchError, match="away longer than the retention") as caught:
        away.read()
    assert "must resync" in str(caught.value)
    anew = Copy(centre, "B", centre.source("B"))
    anew.check()
    assert fast.tables["drug"] == anew.tables["drug"]


def test_tombstones_go_when_they_are_old_and_every_link_has_passed_them(centre: Centre) -> None:
    copy = centre.copy("A", retention_days=0.5 / _DAY)
    centre.run("insert into drug values (1, ''), (2, ''); delete from drug where id = 1")
    assert centre.rows("select count(*) from replicator.ledger where deleted") == [(1,)]

    def gone() -> bool:
        copy.read()
        copy.source._subscription.dispatcher._pruned_at = 0.0
        copy.source.tidy()
        centre.run("update drug set name = name || 'x'")
        return centre.rows("select count(*) from replicator.ledger where deleted") == [(0,)]

    until(gone)
    assert centre.rows("select count(*) from replicator.ledger") == [(1,)]


def test_a_table_that_is_not_captured_is_said(centre: Centre) -> None:
    centre.run("create table other (id int primary key)")
    source = centre.source("A")
    with pytest.raises(SetupError, match="other"), source.read_batch(None, 1):
        pass


def test_a_position_of_the_future_is_refused(centre: Centre) -> None:
    copy = centre.copy("A")
    copy.position = Position("99999999999:99999999999:")
    with pytest.raises(BatchError, match="future"):
        copy.read()
