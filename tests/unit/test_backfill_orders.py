"""What is ordered by a backfill and in which turn, how its progress is told, and keys on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from replicator.backfill import Meter, Spool, Wish, average, choose, find_lingering, in_turns, total
from replicator.errors import SetupError
from replicator.model import (
    Backfill,
    BackfillState,
    Direction,
    Engine,
    LinkName,
    Prefer,
    TableName,
    TablePlan,
    TableShape,
)

UP, DOWN = (LinkName("lab", "a", way) for way in (Direction.TO_CENTRE, Direction.FROM_CENTRE))
DAY = 86_400_000_000


def plan(name: str, direction: Direction, target: str = "") -> TablePlan:
    to = TableName("public", target or name)
    return TablePlan(
        TableShape(TableName("", name), ()), to, (), (), Engine.SQLITE, Engine.POSTGRES, TableShape(to, ()),
        direction=direction,
    )  # fmt: skip


LINKS = {
    UP: [plan("device", Direction.TO_CENTRE, "all_devices"), plan("patient", Direction.BOTH)],
    DOWN: [plan("patient", Direction.BOTH), plan("price", Direction.FROM_CENTRE)],
}


def names(wishes: list[Wish]) -> list[tuple[str, str, int]]:
    return [(str(wish.link), str(wish.table), wish.turn) for wish in wishes]


def test_everything_goes_its_own_way_and_both_ways_in_two_turns() -> None:
    wishes = choose(LINKS)
    assert names(wishes) == [
        ("a→centre", "device", 0), ("a→centre", "patient", 1), ("centre→a", "patient", 2), ("centre→a", "price", 0),
    ]  # fmt: skip
    first, second = in_turns(wishes, [])
    assert names(first) == [("a→centre", "device", 0), ("a→centre", "patient", 1), ("centre→a", "price", 0)]
    assert names(second) == [("centre→a", "patient", 2)]
    begun = Backfill(1, DOWN, TableName("", "patient"), BackfillState.PAUSED)
    assert ("a→centre", "patient", 1) not in names(in_turns(wishes, [begun])[0]), "its first turn was done before"


def test_names_of_either_side_and_globs_choose_and_a_wrong_one_is_said() -> None:
    assert names(choose(LINKS, ["all_*", "price"])) == [("a→centre", "device", 0), ("centre→a", "price", 0)]
    with pytest.raises(SetupError, match="no captured table is called 'prise'") as error:
        choose(LINKS, ["price", "prise"])
    assert "device, patient, price" in error.value.hint


def test_a_side_is_preferred_only_where_it_is_one() -> None:
    with pytest.raises(SetupError, match="patient goes both ways"):
        choose(LINKS, prefer=Prefer.SOURCE)
    found = choose(LINKS, ["patient"], Direction.FROM_CENTRE, Prefer.SOURCE)
    assert [(wish.link, wish.prefer, wish.turn) for wish in found] == [(DOWN, Prefer.SOURCE, 0)]


def test_progress_has_a_rate_of_late_and_the_time_left() -> None:
    times: Iterator[float] = iter([0.0, 10.0, 20.0, 100.0])
    meter = Meter(clock=lambda: next(times))
    running = Backfill(1, UP, TableName("", "device"), BackfillState.RUNNING, estimate=1_000)
    waiting = replace(running, id=2, state=BackfillState.WAITING)
    assert meter.look([running])[0].rate is None
    assert meter.look([replace(running, rows=100)])[0].rate == 10.0
    assert meter.look([replace(running, rows=500)])[0].left == 20.0
    late = meter.look([replace(running, rows=1_200), waiting])
    assert late[0].expected == 1_200, "an estimate is passed, never a share above all"
    whole = total(late)
    assert whole is not None
    assert (whole.backfill.rows, whole.expected) == (1_200, 2_200)
    assert whole.left == 1_000 / (700 / 80)
    assert total([]) is None
    assert average(replace(running, rows=50, started_at=DAY), DAY + 5_000_000) == 10.0
    assert average(waiting, DAY) is None


def test_backfills_nobody_carries_on_are_told_after_a_day() -> None:
    paused = Backfill(1, UP, TableName("", "device"), BackfillState.PAUSED, requested_at=DAY, started_at=DAY)
    found = [
        paused, replace(paused, state=BackfillState.WAITING), replace(paused, state=BackfillState.RUNNING),
        replace(paused, state=BackfillState.DONE),
    ]  # fmt: skip
    assert not list(find_lingering(found, 2 * DAY))
    told = list(find_lingering(found, 2 * DAY + 1))
    assert ["paused" in each.message for each in told] == [True, False]
    assert "replicator backfill continue --site a" in told[0].fix


def test_keys_come_back_from_disk_in_order_with_their_types() -> None:
    spool = Spool()
    keys = [(n, f"key {n}", b"\x00\xff", n / 7, None) for n in range(40_000)]
    for key in keys:
        spool.add(key)
    assert spool.count == len(keys)
    assert list(spool) == keys
    spool.add(("last",))
    assert [*spool][-2:] == [keys[-1], ("last",)]
    spool.close()
