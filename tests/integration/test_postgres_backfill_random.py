"""Random histories and kills while a PostgreSQL table is loaded in chunks: all ends equal, and nothing comes twice."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import suppress

import psycopg
import pytest

from replicator.model import Prefer, TableName
from replicator.pipeline import run_once
from tests.fixtures.pairs import MakePair, Pair
from tests.integration.test_crash import Work, crasher
from tests.integration.test_postgres_backfill import listed, order

TABLE = TableName("public", "lot")
STEPS = 40
SEEDS = int(os.environ.get("REPLICATOR_BACKFILL_SEEDS", "1"))


class Writer:
    """Writes what comes to its mind; some of it in a transaction that stays open for a while."""

    def __init__(self, pair: Pair, chance: random.Random) -> None:
        self._pair, self._chance = pair, chance
        self._slow: psycopg.Connection[tuple[object, ...]] | None = None

    def write(self) -> None:
        """One transaction, and now and then the beginning or the end of a slow one."""
        some = self._chance.sample(range(-20, 140), 3)
        keys, number = ", ".join(f"({key})" for key in some), self._chance.randrange(10_000)
        statement = self._chance.choices(
            [
                f"insert into lot select k, 'b', {number} from (values {keys}) v (k) on conflict do nothing",
                f"insert into lot (id) select k from (values {keys}) v (k) on conflict (id, part) do update set n = {number}",
                f"update lot set n = n + {number} where id in (select k from (values {keys}) v (k))",
                f"delete from lot where id in (select k from (values {keys}) v (k))",
                f"update lot set id = id + {self._chance.choice((-150, 1000, 2000, -1000))} where id = {some[0]}",
                f"delete from lot where id = {some[1]}; insert into lot values ({some[1]}, 'a', {number})",
                "truncate lot; insert into lot select k, 'c', k from generate_series(10, 60) k",
            ],
            weights=[8, 8, 8, 8, 5, 5, 1],
        )[0]
        if "truncate" in statement or (self._slow is not None and self._chance.random() < 0.5):
            self.finish()
        elif self._slow is None and self._chance.random() < 0.2:
            self._slow = psycopg.connect(self._pair.site.url)
            self._slow.execute(f"insert into lot values ({5000 + number}, 'slow', 1) on conflict do nothing".encode())
        with suppress(psycopg.errors.UniqueViolation), psycopg.connect(self._pair.site.url) as connection:
            connection.execute(statement.encode())

    def finish(self) -> None:
        """End the slow one, either way."""
        slow, self._slow = self._slow, None
        if slow is not None:
            (slow.commit if self._chance.random() < 0.7 else slow.rollback)()
            slow.close()


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("capture", ["postgres", "postgres-wal"])
def test_random_histories_end_equal(make_pair: MakePair, capture: str, seed: int) -> None:
    chance = random.Random(f"{capture} {seed}")
    pair = make_pair(capture, "postgres")
    pair.site.run(
        "create table lot (id bigint, part text default 'a' collate \"C\", n bigint default 0, primary key (part, id))",
        "insert into lot select k, case when k % 3 = 0 then 'a' else 'B ,\"(' end, k from generate_series(1, 120) k",
    )
    pair.install({"name": "lot", "policy": "centre_wins"})
    pair.sync()
    lost = [chance.randrange(120) for _ in range(chance.choice((0, 40, 400)))] or [0]
    pair.centre.run(f"delete from lot where id in ({', '.join(map(str, lost))})")
    pair.centre.run(f"update lot set n = -1 where id in ({', '.join(map(str, chance.sample(range(120), 20)))})")
    order(pair, TABLE, prefer=Prefer.SOURCE, chunk_rows=chance.choice((1, 7, 30)))
    writer = Writer(pair, chance)
    with pair.ends() as ends:
        for _ in range(STEPS):
            writer.write()
            if chance.random() < 0.7:
                run_once(ends.source, ends.target, chance.choice((1, 1000)), load=chance.random() < 0.8)
    writer.finish()
    pair.sync()
    # A change of a row that differed at the centre was decided by the table's policy: only then the centre's row stands.
    order(pair, TABLE, prefer=Prefer.SOURCE)
    pair.sync()
    gone = pair.centre.rows("select id, part from lot where n = -1")
    pair.assert_equal("lot") if not gone else _assert_equal_but(pair, gone)
    assert {state for state, *_ in listed(pair)} == {"done"}
    assert pair.parked() == []


def _assert_equal_but(pair: Pair, gone: list[tuple[object, ...]]) -> None:
    """Rows that a policy kept at the centre though the site deleted them: no range of the site's has them."""
    query = "select id, part, n from lot order by 1, 2"
    here = [row for row in pair.centre.rows(query) if row[:2] not in gone]
    assert here == [row for row in pair.site.rows(query) if row[:2] not in gone]
    assert [row for row in pair.site.rows(query) if row[:2] in gone] == []


def test_killed_at_every_gap_of_a_chunk(make_pair: MakePair) -> None:
    """The site writes on; every row came once, and every change at most once."""
    pair = make_pair("postgres", "postgres")
    work = Work(pair)
    pair.centre.run("delete from reading", "delete from log")
    order(pair, TableName("public", "reading"), chunk_rows=4)
    with crasher(pair) as process:
        work.write()
        around = ["target.transaction exit", "target.record_batch", "source.read_batch enter", "target.stage_batch"]
        steps = ["target.read_position", "target.next_chunk", "target.transaction enter", "source.acknowledge_batch"]
        gaps = [
            f"{when} {what}" for when in ("before", "after") for what in (*around, *steps, "source.read_batch exit")
        ]
        gaps += [
            "before batch.block",
            "after batch.blocks",
            "before target.apply_clean",
            "before target.check_constraints",
        ]
        for gap in gaps:
            work.write()
            assert process.ask(gap) == "killed", gap
        assert process.ask("none") == "passed"
    assert max(Counter(pair.centre.rows("select op, id from log")).values()) == 1
    pair.assert_equal("device", "reading")
    (found,) = listed(pair)
    assert found[0] == "done"
    assert pair.conflicts() == []
    assert pair.parked() == []
