"""Invariant 6 by ``replicator simulate``: random histories on throw-away databases end equal, for every policy.

``REPLICATOR_SIMULATE_SEEDS=1000`` plays so many for each case instead of the few of every run; histories that ever failed are
kept in tests/fixtures/histories and are played every time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from replicator.model import PolicyName
from replicator.simulate import POLICIES, Plan, Report, plan_replay, simulate
from tests.fixtures.servers import Server

SEEDS = int(os.environ.get("REPLICATOR_SIMULATE_SEEDS", "0"))
FIRST = int(os.environ.get("REPLICATOR_SIMULATE_FIRST", "0"))
FAILED_ONCE = sorted((Path(__file__).parents[1] / "fixtures" / "histories").glob("*.json"))


def _seeds(few: int) -> Sequence[int]:
    return range(FIRST, FIRST + (SEEDS or few))


def _told(report: Report) -> str:
    lines = [f"{report.histories} histories, {report.counts}"]
    for failed in report.failed:
        lines += [f"seed {failed.seed} ({failed.world}): {failed.kind}; {failed.again}"]
        lines += [f"{number:>3}. {step}" for number, step in enumerate(failed.steps, 1)]
        lines += [f"{finding.text}\n{finding.detail}" for finding in failed.findings]
    return "\n".join(lines)


def _converges(plan: Plan) -> Report:
    report = simulate(plan)
    assert not report.failed, _told(report)
    return report


@pytest.mark.parametrize("policy", POLICIES)
def test_invariant_6_histories_on_sqlite_end_equal(policy: PolicyName) -> None:
    report = _converges(Plan(seeds=_seeds(5), policies=[policy], shrink_seconds=30))
    assert report.counts.batches > 5 * report.histories
    assert report.counts.conflicts > 0
    assert report.counts.crashes > 0


@pytest.mark.parametrize("engines", ["postgres", "mixed", "crossed", "wal"])
def test_invariant_6_histories_with_postgresql_end_equal(server: Server, engines: str) -> None:
    plan = Plan(seeds=_seeds(3), policies=POLICIES, engines=engines, server=server.dsn, shrink_seconds=60, sites=(2, 3))
    report = _converges(plan)
    assert report.counts.batches > 5 * report.histories


@pytest.mark.parametrize("file", FAILED_ONCE, ids=lambda file: file.stem)
def test_a_history_that_failed_once_ends_equal(file: Path, server: Server) -> None:
    _converges(plan_replay(file, Plan(server=server.dsn, shrink_seconds=0)))


def test_a_plan_gives_the_same_report_each_time() -> None:
    plan = Plan(seeds=range(100, 104), policies=POLICIES[:2], sites=(2, 3))
    one, two = simulate(plan), simulate(plan)
    assert (one.histories, one.counts) == (two.histories, two.counts)
