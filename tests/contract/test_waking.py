"""Whoever waits for changes is woken by another process that has news for it, on every engine and link."""

from __future__ import annotations

import threading
import time

import pytest

from replicator.app import App
from replicator.model import Direction
from replicator.pipeline import run_once
from tests.fixtures.pairs import PAIRS, MakePair


@pytest.mark.parametrize("engines", PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_a_waiting_source_is_woken_by_another_and_writes_nothing_for_it(
    engines: tuple[str, str], make_pair: MakePair
) -> None:
    pair = make_pair(*engines)
    pair.site.run("create table item (id integer primary key, name text)")
    pair.install({"name": "item", "direction": "both"})
    pair.settle()
    for direction in (Direction.TO_CENTRE, Direction.FROM_CENTRE):
        with pair.ends(direction=direction) as ends:
            while run_once(ends.source, ends.target, 100) is not None or ends.source.wait(0.2):
                continue
            for _ in range(2):
                woken: list[float] = []
                waiting = threading.Thread(
                    target=lambda woken=woken, ends=ends: woken.append(
                        time.monotonic() if ends.source.wait(20) else 0.0
                    )
                )
                waiting.start()
                waiting.join(0.4)
                assert waiting.is_alive(), "nothing has called yet"
                caller = App.open(pair.yaml).connect(pair.name, direction)
                called = time.monotonic()
                caller.source.wake_others()
                waiting.join(10)
                caller.close()
                assert 0 < woken[0] - called < 2
                assert run_once(ends.source, ends.target, 100) is None, "a call is no change"
