"""Puts our tables and triggers in and takes them out: what would be run, running it, and proving what is left."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from replicator.errors import SetupError
from replicator.model import CentralTable, DatabasePlan, Engine, TableName, TablePlan
from replicator.ports import Installable


class Existing(StrEnum):
    """What becomes of the rows that a site's table has when its capture begins."""

    OUTBOX = "outbox"
    """They go through the outbox, ahead of later changes."""
    BACKFILL = "backfill"
    """A backfill brings them chunk by chunk, straight from the table; where a table goes both ways, the outbox."""
    NONE = "none"
    """Nothing: the centre has them."""


_STEPS = 40
"""A plan is run in at most about so many parts, for the sake of progress."""

Open = Callable[[str], Installable]


@dataclass(frozen=True, slots=True)
class Removal:
    """What an uninstall left: ``left`` is ours and of this topology, ``shared`` is needed by other topologies."""

    statements: int
    left: tuple[str, ...]
    shared: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Roles:
    """What one database is to a topology, as plans: what it sends and what it receives; None: nothing, by the rules.

    A site sends to the centre and receives from it. ``captured``: the centre's own tables whose changes go to sites.
    """

    sends: Sequence[TablePlan] | None = None
    receives: Sequence[TablePlan] | None = None
    captured: Sequence[CentralTable] = ()

    @property
    def tables(self) -> int:
        """Tables of the database that take part."""
        here = {plan.source.name for plan in self.sends or ()} | {plan.target for plan in self.receives or ()}
        return len(here | {each.table.name for each in self.captured})


def plan_receiving(database: Installable, topology: str, roles: Roles) -> DatabasePlan | None:
    """What a target needs: our tables, user tables it lacks, and at the centre the capture of its own changes."""
    if roles.receives is None:
        return None
    return database.plan_centre(topology, roles.receives, roles.captured)


def plan_sending(database: Installable, topology: str, roles: Roles) -> DatabasePlan | None:
    """What a site needs for its changes to be captured."""
    return None if roles.sends is None else database.plan_site(topology, roles.sends)


def plan_database(
    database: Installable, topology: str, roles: Roles, existing: Existing = Existing.OUTBOX
) -> DatabasePlan:
    """All that is to be run in one database: what receiving needs, then capture. Read only."""
    receiving, sending = plan_receiving(database, topology, roles), plan_sending(database, topology, roles)
    if sending is not None and (spared := spare(existing, sending, roles)):
        sending = database.plan_site(topology, roles.sends or (), unqueued=spared)
    first, *others = [plan for plan in (receiving, sending) if plan is not None]
    for other in others:
        first = _joined(first, other)
    return first


def spare(existing: Existing, plan: DatabasePlan, roles: Roles) -> list[TableName]:
    """The tables, parents first at the target, whose rows a plan would queue and that are not to be queued."""
    if existing is Existing.OUTBOX:
        return []
    wanted = [each for each in roles.sends or () if each.source.name in plan.queued]
    return [each.source.name for each in wanted if existing is Existing.NONE or not each.direction.falls]


def install_database(
    opened: Callable[[], Installable], topology: str, roles: Callable[[], Roles], advance: Callable[[int, str], None],
    existing: Existing = Existing.OUTBOX, hold: Callable[[Sequence[TableName]], None] = lambda tables: None,
) -> tuple[DatabasePlan, Roles]:  # fmt: skip
    """Run what is to be run in one database, and give back what that was. Safe to repeat.

    ``roles`` is asked again after tables were created: only then can their changes be captured. ``hold``: called with the
    tables whose rows a backfill is to bring, before capture of them begins.
    """
    done: DatabasePlan | None = None
    known = roles()
    for part in (plan_receiving, plan_sending):
        if done is not None and done.statements:
            known = roles()
        with closing(opened()) as database:
            plan = part(database, topology, known)
            if plan is None:
                continue
            if part is plan_sending and (spared := spare(existing, plan, known)):
                if existing is Existing.BACKFILL:
                    hold(spared)
                plan = database.plan_site(topology, known.sends or (), unqueued=spared)
            for count, purpose in run_plan(database, plan):
                advance(count, purpose)
        done = plan if done is None else _joined(done, plan)
    if done is None:
        raise SetupError("the topology's rules give this database nothing to do", hint="run: replicator check")
    return done, known


def _joined(first: DatabasePlan, second: DatabasePlan) -> DatabasePlan:
    """Two plans of one database as one; what both want, our own tables, is run once."""
    wanted = {(step.object, step.sql) for step in first.statements}
    statements = (*first.statements, *(step for step in second.statements if (step.object, step.sql) not in wanted))
    fingerprint = hashlib.sha256(f"{first.fingerprint} {second.fingerprint}".encode()).hexdigest()
    leftovers = tuple(dict.fromkeys((*first.leftovers, *second.leftovers)))
    return replace(
        second, statements=statements, fingerprint=fingerprint[: len(second.fingerprint)], leftovers=leftovers
    )


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
    if plan.unqueued:
        tables = " ".join(shlex.quote(str(table)) for table in plan.unqueued)
        lines.append("-- The rows that are there are not queued. What brings them, once this has been run:")
        lines.append(f"-- replicator backfill {tables} --site {shlex.quote(place)}")
    for number, step in enumerate(plan.statements, 1):
        sql = step.sql.strip()
        lines += ["", f"-- {number}. {step.purpose}", sql if sql.endswith(";") else f"{sql};"]
    return "\n".join(lines) + "\n"
