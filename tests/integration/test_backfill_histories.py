"""Invariant 6 while tables are brought: random histories of a few rows of one table, which both sides write, delete and load.

At the end all is equal, and no write is undone by a row that had not seen it (``replicator.simulate.trace``).
``REPLICATOR_SIMULATE_SEEDS=100`` plays so many for each case.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from replicator.model import PolicyName
from replicator.simulate.play import Player
from replicator.simulate.steps import Action, Backfill, Move, Step, Write
from replicator.simulate.world import World
from tests.fixtures.servers import Server

SEEDS = int(os.environ.get("REPLICATOR_SIMULATE_SEEDS", "0"))
SITES = ("alpha", "beta")
ROWS = (0, 2)
STEPS = 28


def history(seed: int) -> Iterator[Step]:
    """Writes, batches and backfills by table or by key, in both directions, at random moments."""
    pick = Random(f"loaded {seed}")
    for number in range(1, STEPS + 1):
        site, rises, chance = pick.choice(SITES), pick.random() < 0.5, pick.random()
        if chance < 0.35:
            place, what = pick.choice(("centre", "centre", site)), pick.choice(("put", "put", "set", "delete"))
            yield Write(number, place, (Action(what, "price", pick.choice(ROWS), pick.randrange(2**32)),))
        elif chance < 0.8:
            yield Move(number, site, rises, pick.choice((1, 1000)), pick.choice(("", "", "", "lost")))
        else:
            rows = ROWS if pick.random() < 0.5 else ()
            yield Backfill(number, site, rises or pick.random() < 0.5, "price", rows, "policy", pick.choice((1, 1000)))


@pytest.mark.parametrize("engines", ["sqlite", "postgres"])
@pytest.mark.parametrize("policy", [PolicyName.SOURCE_WINS, PolicyName.CENTRE_WINS])
def test_invariant_6_nothing_is_undone_by_a_row_that_is_brought(
    tmp_path: Path, server: Server, engines: str, policy: PolicyName
) -> None:
    few = 12 if engines == "sqlite" else 4
    dsn = server.dsn if engines == "postgres" else ""
    with closing(World(tmp_path, sites=2, policy=policy, engines=engines, server=dsn)) as world:
        player = Player(world)
        for seed in range(SEEDS or few):
            steps = list(history(seed))
            failure = player.play(steps)
            assert failure is None, f"seed {seed}: {failure}\n" + "\n".join(map(str, steps))
        assert player.counts.backfills > 2 * (SEEDS or few)
