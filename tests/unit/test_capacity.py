"""What an outbox's figures mean: rates that were measured, days that follow from them, limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from replicator.capacity import Capacity, Room, check_outboxes, judge, size
from replicator.errors import SettingsError
from replicator.model import Cap, OutboxFacts, WhenFull
from replicator.settings import load

HOUR, DAY = 3_600_000_000, 86_400_000_000
NOW = 1_800_000_000_000_000
FACTS = OutboxFacts(bytes=200_000_000, top=5_000_000, clock=NOW, rows=1_000_000, oldest_changed_at=NOW - DAY)
ROOMY = Cap(max_size=1_000_000_000)


def judged(cap: Cap = ROOMY, **changed: object) -> Capacity:
    return judge("far", replace(FACTS, **changed), cap)  # type: ignore[arg-type]


def test_the_rate_is_that_of_the_numbers_since_the_sample() -> None:
    found = judged(sampled_at=NOW - 12 * HOUR, sampled=4_568_000)
    assert found.per_second == pytest.approx(10)
    assert found.days == pytest.approx(800_000_000 / (200 * 10) / 86_400)


def test_without_a_sample_it_is_that_of_the_rows_that_wait() -> None:
    assert judged().per_second == pytest.approx(1_000_000 / 86_400)


@pytest.mark.parametrize(
    "changed",
    [
        {"sampled_at": NOW - 60_000_000, "sampled": 1, "rows": 10},
        {"rows": 10},
        {"oldest_changed_at": NOW - 1_000_000},
        {"rows": None},
    ],
)
def test_what_was_not_measured_is_unknown(changed: dict[str, object]) -> None:
    found = judged(**changed)
    assert found.per_second is None
    assert found.days is None


def test_without_a_limit_and_a_known_disk_nothing_is_said_of_days() -> None:
    assert judged(Cap()).days is None
    assert judged(Cap(keep_free=50), free=1_000_000_050).days is not None


def test_an_outbox_that_is_not_written_to_lasts_for_ever() -> None:
    found = judged(sampled_at=NOW - DAY, sampled=5_000_000)
    assert (found.per_second, found.days, found.room) == (0, None, Room.ENOUGH)


def test_rooms_from_enough_to_stopped() -> None:
    assert judged(Cap(max_size=10_000_000_000)).room is Room.ENOUGH
    assert judged(Cap(max_size=1_500_000_000)).room is Room.SOON
    full = judged(Cap(max_size=100_000_000))
    assert (full.room, full.healthy, full.days) == (Room.FULL, False, 0)
    assert "more than max_size 95.4 MB" in full.problem
    assert "less than keep_free" in judged(Cap(keep_free=100), free=99).problem
    stopped = judged(stopped_at=NOW - HOUR, stop_reason="too much")
    assert (stopped.room, stopped.healthy) == (Room.STOPPED, False)
    gap = judged(stopped_at=NOW - HOUR, resumed_at=NOW)
    assert (gap.room, gap.healthy) == (Room.GAP, False)
    assert "replicator resync --site far" in gap.hint


def test_what_is_delivered_does_not_count() -> None:
    small = Cap(max_size=1_500_000)
    assert judged(small, waiting=0).room is not Room.FULL
    assert "takes 1.9 MB, more than max_size 1.4 MB" in judged(small, waiting=2_000_000).problem


@pytest.mark.parametrize(
    ("heard_at", "waiting", "away"), [(NOW - HOUR, 2_000_000, True), (NOW, 2_000_000, False), (NOW - HOUR, 0, False)]
)
def test_links_are_to_be_brought_back_only_where_one_is_away(heard_at: int, waiting: int, away: bool) -> None:
    for cap, room in ((Cap(max_size=1), "raise max_size"), (Cap(keep_free=100), "make room on its disk")):
        found = judged(cap, heard_at=heard_at, waiting=waiting, free=99 if cap.keep_free else None)
        assert ("bring back the links that are away" in found.hint) is away
        assert room in found.hint or found.room is Room.ENOUGH


def test_check_warns_of_what_is_about_to_happen_and_calls_a_stopped_capture_a_problem() -> None:
    found = [judged(Cap(max_size=10_000_000_000)), judged(Cap(max_size=1)), judged(stopped_at=1)]
    assert [(each.ok, each.warning) for each in check_outboxes(found)] == [(True, False), (False, True), (False, False)]


def test_sizes_are_said_in_units_of_1024() -> None:
    assert [size(n) for n in (0, 1023, 1024, 5 << 20, 3 << 30, 5 << 40)] == [
        "0 bytes", "1023 bytes", "1.0 KB", "5.0 MB", "3.0 GB", "5120.0 GB",
    ]  # fmt: skip


def _load(folder: Path, outbox: str) -> Cap:
    file = folder / "t.yaml"
    file.write_text(
        f"topology: t\ncentre: {{url: 'sqlite:///c.db'}}\nsites: {{a: {{url: 'sqlite:///a.db'}}}}\n"
        f"tables: [{{name: x}}]\ndefaults:\n  outbox: {outbox}\n"
    )
    return load(file).defaults.outbox.cap


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{}", Cap(0, 512 << 20, WhenFull.WARN)),
        ("{max_size: 2GB, keep_free: 1.5 gb, when_full: stop}", Cap(2 << 30, 3 << 29, WhenFull.STOP)),
        ("{max_size: 2000000, keep_free: 0}", Cap(2_000_000, 0)),
        ("{max_size: 1024k}", Cap(1 << 20, 512 << 20)),
    ],
)
def test_limits_are_read_from_the_yaml(tmp_path: Path, written: str, expected: Cap) -> None:
    assert _load(tmp_path, written) == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{max_size: much}", "not a size: write 2GB"), ("{max_size: -1}", "not a size"),
        ("{max_size: 1023KB}", "max_size is at least 1MB"), ("{max_size: yes}", "not a size"),
        ("{when_full: panic}", "not one of the allowed words"), ("{maximum: 1}", "unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_line(tmp_path: Path, written: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        _load(tmp_path, written)
    assert caught.value.line == 6
