"""Random histories at a PostgreSQL centre: whatever writers and readers do, every site ends with exactly its rows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import psycopg
import pytest

from tests.integration.postgres_centre import TOPOLOGY, Centre, MakeCentre, make_centre

__all__ = ["make_centre"]

EVERYTHING = ("truncate patient cascade", "truncate shot", "delete from drug", "update patient set clinic = 'A'")

WRITES: Mapping[str, Callable[[random.Random], str]] = {
    "patient": lambda r: f"insert into patient values ({r.randint(1, 9)}, {r.choice(['null', *'AABBC'])!r}, '{r.random()}')"
                         " on conflict (id) do update set clinic = nullif(excluded.clinic, 'null'), name = excluded.name",
    "patient key": lambda r: f"update patient set id = {r.randint(1, 9)} where id = {r.randint(1, 9)}",
    "no patient": lambda r: f"delete from patient where id = {r.randint(1, 9)}",
    "visit": lambda r: f"insert into visit select {r.randint(1, 15)}, id, '{r.random()}' from patient"
                       f" where id = {r.randint(1, 9)}"
                       " on conflict (id) do update set patient = excluded.patient, note = excluded.note",
    "visit key": lambda r: f"update visit set id = {r.randint(1, 15)} where id = {r.randint(1, 15)}",
    "no visit": lambda r: f"delete from visit where id = {r.randint(1, 15)}",
    "shot": lambda r: f"insert into shot values ({r.randint(1, 20)}, {r.randint(1, 15)}, 1)"
                      f" on conflict (id) do update set visit = {r.randint(1, 15)}, dose = shot.dose + 1",
    "shot key": lambda r: f"update shot set id = {r.randint(1, 20)} where id = {r.randint(1, 20)}",
    "drug": lambda r: f"insert into drug values ({r.randint(1, 3)}, '') on conflict do nothing",
    "everything": lambda r: r.choice(EVERYTHING),
}  # fmt: skip


def write(writer: psycopg.Connection[tuple[object, ...]], chance: random.Random) -> type[Exception] | None:
    """One random statement; why it was refused, and its transaction rolled back."""
    kind = chance.choice(list(WRITES))
    try:
        writer.execute(WRITES[kind](chance).encode())
        if kind == "everything":
            writer.commit()  # a TRUNCATE keeps readers out until then
    except psycopg.errors.Error as error:
        writer.rollback()
        return type(error)
    return None


def follow_all(centre: Centre) -> None:
    """Wait until the followers of all moved rows were announced again."""
    for _ in range(200):
        if centre.rows(f"select replicator.follow_moves('{TOPOLOGY}'), count(*) from replicator.moved")[0][1] == 0:
            return
        time.sleep(0.05)


@pytest.mark.parametrize("seed", range(6))
def test_random_histories_end_equal(make_centre: MakeCentre, seed: int) -> None:
    """Invariants 1, 2, 6: writers at once, rollbacks, late commits, moves of parents, reads at any time, restarts."""
    chance = random.Random(seed)
    centre = make_centre()
    copies = [centre.copy(site, keep_open=chance.random() < 0.5) for site in "ABC"]
    refused: list[type[Exception] | None] = []
    writers = [psycopg.connect(centre.url) for _ in range(4)]
    for writer in writers:
        writer.execute("set lock_timeout = '30ms'; set deadlock_timeout = '20ms'")
        writer.commit()
    for _ in range(250):
        writer = chance.choice(writers)
        act = chance.random()
        if act < 0.6:
            refused.append(write(writer, chance))
        elif act < 0.8:
            (writer.commit if chance.random() < 0.8 else writer.rollback)()
        elif act < 0.85:
            centre.run(f"select replicator.follow_moves('{TOPOLOGY}')")
        else:
            copy = chance.choice(copies)
            if chance.random() < 0.2:
                copy.source.close()
                copy.source = centre.source(copy.site)
            copy.read()
    for writer in writers:
        writer.commit()
        writer.close()
    follow_all(centre)
    assert psycopg.errors.SyntaxError not in refused
    for copy in copies:
        copy.check()
