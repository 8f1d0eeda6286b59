"""More links than connections: links take turns at the centre, hold nothing there while idle, and still wake at once."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from replicator.app import topology
from replicator.service import Service
from replicator.worker import _Healing
from tests.fixtures.pairs import MakePair, Pair

SITES = tuple(f"site{n}" for n in range(12))


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


def connections(pair: Pair) -> int:
    """Connections of the replicator to the centre."""
    ours = "datname = current_database() and application_name like 'replicator%'"
    ((count,),) = pair.centre.rows(f"select count(*) from pg_stat_activity where {ours}")
    return int(str(count))


@pytest.mark.slow
def test_idle_links_hold_no_connection_to_the_centre(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "_CONNECTIONS", 4)
    pair = make_pair("sqlite", "postgres", sites=SITES)
    for place in pair.sites.values():
        place.run("create table item (id integer primary key, name text)")
    pair.install({"name": "item", "direction": "both"})
    crashed: list[Exception] = []
    service = Service(pair.app.workers(SITES), lambda report, error: crashed.append(error))
    service.start()
    try:
        pair.sites[SITES[0]].run("insert into item values (1, 'one')")
        pair.centre.run("insert into item values (2, 'two')")
        both = [(1, "one"), (2, "two")]
        query = "select id, name from item order by id"
        until(lambda: all(place.rows(query) == both for place in pair.sites.values()))
        until(lambda: connections(pair) <= 4)
        before = time.monotonic()
        pair.centre.run("insert into item values (3, 'three')")
        until(lambda: all(len(place.rows(query)) == 3 for place in pair.sites.values()), 10)
        assert time.monotonic() - before < 10
    finally:
        assert service.stop(30)
    assert crashed == []
    pair.assert_converged("item")


def test_what_does_not_heal_is_tried_ever_less_often() -> None:
    healing = _Healing()
    rests = []
    for _ in range(12):
        healing.tried(0, 3)
        rests.append(round(healing.rest()))
    assert rests[:4] == [2, 4, 8, 16]
    assert rests[-1] == 600
    assert not healing.due()
    healing.tried(1, 2)
    assert healing.stuck
    assert round(healing.rest()) == 1
    healing.tried(0, 0)
    assert not healing.stuck
    assert healing.rest() == 600
