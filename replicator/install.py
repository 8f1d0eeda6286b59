"""Puts our tables and triggers in and takes them out: what would be run, running it, and proving what is left."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from replicator.errors import SetupError
from replicator.model import DatabasePlan, Engine, TablePlan
from replicator.ports import Installable

_STEPS = 40
"""A plan is run in at most about so many parts, for the sake of progress."""

Open = Callable[[str], Installable]


@dataclass(frozen=True, slots=True)
class Removal:
    """What an uninstall left: ``left`` is ours and of this topology, ``shared`` is needed by other topologies."""

    statements: int
    left: tuple[str, ...]
    shared: tuple[str, ...]


def plan_database(database: Installable, topology: str, plans: Sequence[TablePlan], *, centre: bool) -> DatabasePlan:
    """What is to be run in one database. Read only."""
    return database.plan_centre(topology, plans) if centre else database.plan_site(topology, plans)


def run_plan(database: Installable, plan: DatabasePlan) -> Iterator[tuple[int, str]]:
    """Run a plan part by part; how many statements each part had, and the purpose of its last. Safe to repeat."""
    size = max(1, -(-len(plan.statements) // _STEPS))
    for start in range(0, len(plan.statements), size):
        part = plan.statements[start : start + size]
        database.install(replace(plan, statements=part))
        yield len(part), part[-1].purpose


def uninstall(opened: Open, place: str, topology: str, advance: Callable[[int, str], None]) -> Removal:
    """Remove a topology's objects from a place and look what is left. Users' tables and rows stay."""
    with closing(opened(place)) as database:
        plan = database.plan_uninstall(topology)
        for done, purpose in run_plan(database, plan):
            advance(done, purpose)
        left = tuple(database.list_objects())
        # Nothing more to remove for this topology, and still objects of ours: another topology lives here.
        shared = bool(left) and not database.plan_uninstall(topology).statements
    return Removal(len(plan.statements), () if shared else left, left if shared else ())


def write_files(folder: Path, plans: Sequence[tuple[str, DatabasePlan]], header: str) -> list[Path]:
    """One numbered .sql file per database with something to do, to be run by hand in that order."""
    folder.mkdir(parents=True, exist_ok=True)
    stale = sorted(folder.glob("[0-9][0-9][0-9]_*.sql"))
    foreign = [path for path in stale if header not in path.read_text(encoding="utf-8", errors="replace")[:200]]
    if foreign:
        raise SetupError(f"{foreign[0]} is not a file of replicator plan", hint="name an empty folder")
    for path in stale:
        path.unlink()
    written = []
    for number, (place, plan) in enumerate([each for each in plans if each[1].statements], 1):
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in place)
        path = folder / f"{number:03}_{name}.sql"
        path.write_text(_script(path, place, plan, header), encoding="utf-8")
        written.append(path)
    return written


def _script(path: Path, place: str, plan: DatabasePlan, header: str) -> str:
    database = shlex.quote(plan.place)
    postgres = plan.engine is Engine.POSTGRES
    by_hand = (
        f"psql -v ON_ERROR_STOP=1 -f {path.name} {database}" if postgres else f"sqlite3 -bail {database} < {path.name}"
    )
    lines = [
        f"-- {header} for {place}; fingerprint {plan.fingerprint}",
        f"-- {by_hand}",
        "-- When a statement fails: mend the cause and write the file anew, it will hold what is still to be done.",
    ]
    for number, step in enumerate(plan.statements, 1):
        sql = step.sql.strip()
        lines += ["", f"-- {number}. {step.purpose}", sql if sql.endswith(";") else f"{sql};"]
    return "\n".join(lines) + "\n"
