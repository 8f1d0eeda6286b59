"""Invariant 3 of backfills: killed by SIGKILL at every gap of a chunk, rows come exactly once and the cursor tells the truth.

The centre's table has a trigger that notes every insert: a chunk that was applied twice, or skipped, would show there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicator.model import Direction
from tests.fixtures.backfills import ITEM, done, listed, order
from tests.fixtures.pairs import MakePair, Pair
from tests.fixtures.unseen import behind_our_back

ROOT = Path(__file__).resolve().parents[2]
LOG = (
    "create table log (id integer)",
    "create trigger note_i after insert on item begin insert into log values (new.id); end",
)
SQLITE = ("sqlite", "sqlite")
ROWS = 400


@contextmanager
def crasher(pair: Pair) -> Iterator[subprocess.Popen[str]]:
    """The process that is killed over and over; see tests.fixtures.crashing."""
    command = [sys.executable, "-m", "tests.fixtures.crashing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def ask(process: subprocess.Popen[str], pair: Pair, link: str, gap: str) -> str:
    """One run of a link, killed at a gap."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{pair.yaml} {link} {gap}\n")
    process.stdin.flush()
    answer = process.stdout.readline().rstrip("\n")
    assert answer, "the crashing process failed; see its traceback"
    return answer


def traced(process: subprocess.Popen[str], pair: Pair, link: str) -> list[str]:
    """The gaps of a run with a chunk in it."""
    gaps = ask(process, pair, link, "trace").split(",")
    assert {"before target.next_chunk", "before batch.block", "after target.transaction exit"} <= set(gaps)
    return gaps


def test_killed_at_every_gap_of_a_chunk(make_pair: MakePair) -> None:
    pair = make_pair(*SQLITE)
    pair.site.run(ITEM)
    pair.install("item")
    pair.site.commit(*(f"insert into item values ({n}, 'row {n}', {n})" for n in range(ROWS)))
    pair.sync()
    with crasher(pair) as process:
        pair.site.run("update item set name = 'traced' where id = 1")
        order(pair, rows=ROWS)
        gaps = traced(process, pair, pair.name)
        pair.centre.run("delete from item", *LOG)
        order(pair, rows=10)
        for turn, gap in enumerate(gaps):
            pair.site.run(f"update item set name = 'turn {turn}' where id in ({turn}, {ROWS - 1 - turn})")
            assert ask(process, pair, pair.name, gap) == "killed", gap
            (*_, backfill) = listed(pair)
            loaded = {number for (number,) in pair.centre.rows(f"select id from item where id < {ROWS - 1 - turn}")}
            assert set(range(backfill.rows)) <= loaded, f"{gap}: what the cursor says is there"
        assert ask(process, pair, pair.name, "none") == "passed"
    pair.assert_equal("item")
    assert done(pair).rows == ROWS
    assert pair.centre.rows("select count(*), count(distinct id) from log") == [(ROWS, ROWS)]
    assert pair.conflicts() == []
    assert pair.parked() == []


@pytest.mark.long
def test_killed_at_every_gap_of_a_chunk_on_its_way_down(make_pair: MakePair) -> None:
    pair = make_pair(*SQLITE, sites=("factory_a", "factory_b"))
    link, down = f"centre→{pair.name}", Direction.FROM_CENTRE
    for place in (pair.centre, *pair.sites.values()):
        place.run(ITEM)
    pair.install({"name": "item", "direction": "both", "policy": "centre_wins"})
    pair.centre.commit(*(f"insert into item values ({n}, 'row {n}', {n})" for n in range(ROWS)))
    pair.settle()
    with crasher(pair) as process:
        pair.centre.run("update item set name = 'traced' where id = 1")
        order(pair, rows=ROWS, direction=down)
        gaps = traced(process, pair, link)
        behind_our_back(pair, "delete from item where id > 2")
        order(pair, rows=10, direction=down)
        for turn, gap in enumerate(gaps):
            pair.centre.run(f"update item set name = 'c {turn}' where id in ({turn + 3}, {ROWS - 1 - turn})")
            pair.site.run(f"update item set qty = -{turn + 1} where id = {turn + 3}")
            assert ask(process, pair, link, gap) == "killed", gap
            ask(process, pair, pair.name, "none")
    pair.settle()
    pair.assert_converged("item")
    assert done(pair, direction=down).rows == ROWS
