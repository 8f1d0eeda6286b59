"""``replicator plan``, ``install`` and ``uninstall``: our tables and triggers, shown, put in, taken out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicator.cli.check import config_flag
from replicator.cli.options import Command, common, open_app
from replicator.cli.output import (
    BAD,
    DIM,
    EXIT_DIFFERENT,
    EXIT_ERROR,
    GOOD,
    WARN,
    can_ask,
    count,
    progress,
    say,
    show_error,
    show_json,
    show_table,
)
from replicator.errors import ReplicatorError
from replicator.model import DatabasePlan

if TYPE_CHECKING:
    from replicator.app import App

_HEADER = "written by replicator plan"

_PLAN_EPILOG = """\b
Examples:
  replicator plan                         what would be run, statement by statement
  replicator plan -v                      with the SQL text
  replicator plan --sql install_by_hand   one numbered .sql file per database, for psql and sqlite3
  replicator plan --existing backfill     what install --existing backfill would run

Equal plans have equal fingerprints. Exit codes: 0 planned, 3 a database could not be planned.
"""
_INSTALL_EPILOG = """\b
Examples:
  replicator install -c topology.yaml
  replicator install --site factory_b -v
  replicator install --existing backfill  rows that sites have already come chunk by chunk, not through the outbox

--existing backfill is for large tables: their rows are not written a second time, into the outbox. Each gets an order, and the
next sync, run or backfill brings them while everybody writes; tables that go both ways go through the outbox all the same.
--existing none: the centre has the rows already (prove it with: replicator audit).

Safe to repeat: what is in place is left alone, what is missing or drifted is put right.
Exit codes: 0 all in place, 3 some database could not be done (the others are).
"""
_UNINSTALL_EPILOG = """\b
Examples:
  replicator uninstall --yes
  replicator uninstall --site factory_b --yes

Your tables and rows stay. Exit codes: 0 nothing of ours is left, 1 something is left, 3 error.
"""


@dataclass(frozen=True, slots=True)
class _Done:
    """What one database got."""

    place: str
    statements: int
    seconds: float
    owed: str = ""
    """What the database missed and has yet to be looked at."""
    hint: str = ""


def _existing_option(command: Command) -> Command:
    """What becomes of rows that sites have when capture begins."""
    return click.option(
        "--existing", type=click.Choice(["outbox", "backfill", "none"]), default="outbox", show_default=True,
        help="How rows get to the centre that a site's table has when its capture begins.",
    )(command)  # fmt: skip


@click.command(epilog=_PLAN_EPILOG, short_help="Show the exact SQL install would run.")
@common
@_existing_option
@click.option("--sql", "folder", metavar="DIR", help="Write one numbered .sql file per database, to be run by hand.")
@click.option("-v", "--verbose", is_flag=True, help="Show the SQL text of every statement.")
def plan(config: str, sites: Sequence[str], as_json: bool, existing: str, folder: str | None, verbose: bool) -> None:
    """Show the exact SQL that install would run in every database. Changes nothing."""
    from replicator.install import write_files

    app = open_app(config)
    plans, failed = _read_plans(app, sites, existing)
    files = write_files(Path(folder), list(plans.items()), _HEADER) if folder else []
    if as_json:
        errors = {place: {"error": error.message, "hint": error.hint} for place, error in failed.items()}
        documents = {place: asdict(each) for place, each in plans.items()}
        show_json({"plans": documents, "files": [str(path) for path in files], "failed": errors})
    else:
        for place, each in plans.items():
            _show_plan(place, each, verbose)
        _show_failed(failed)
        _conclude_plan(plans, files, failed, config, folder)
    raise SystemExit(EXIT_ERROR if failed else 0)


@click.command(epilog=_INSTALL_EPILOG, short_help="Put our tables and triggers in.")
@common
@_existing_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask before creating tables at the centre.")
@click.option("-v", "--verbose", is_flag=True, help="Show the SQL text of every statement.")
def install(config: str, sites: Sequence[str], as_json: bool, existing: str, yes: bool, verbose: bool) -> None:
    """Put our tables and triggers in: the centre first, then the sites. Creates tables the centre lacks.

    Rows that sites have already are queued for the centre, so that the next sync brings them, or ordered, or left alone (see
    --existing); rows that the centre has already go to the sites that get them.
    """
    from replicator.settings import CENTRE

    app = open_app(config)
    failed = dict(app.read_catalogues())
    if CENTRE in failed:
        raise failed[CENTRE]
    missing = [str(shape.name) for shape in app.topology().missing]
    if missing and not yes and not as_json and can_ask():
        say(f"the centre gets {count(len(missing), 'table')}: {', '.join(missing)}")
        click.confirm("go on?", default=True, abort=True)
    done: list[_Done] = []
    for place in (CENTRE, *app.chosen(sites)):
        if place in failed:
            continue
        try:
            done.append(_install_place(app, place, existing, verbose=verbose and not as_json, quiet=as_json))
        except ReplicatorError as error:
            if place == CENTRE:
                raise
            failed[place] = error
        if place == CENTRE:
            app.forget(CENTRE)  # the tables are there now, spelled as the database spells them
    if as_json:
        errors = {place: {"error": error.message, "hint": error.hint} for place, error in failed.items()}
        show_json({"installed": done, "created": missing, "failed": errors})
    else:
        _show_failed(failed)
        if not failed:
            say(
                f"next: replicator sync{config_flag(config)}   (once), or: replicator run{config_flag(config)}   (for ever)"
            )
    raise SystemExit(EXIT_ERROR if failed else 0)


@click.command(epilog=_UNINSTALL_EPILOG, short_help="Remove all of ours, and prove it.")
@common
@click.option("-y", "--yes", is_flag=True, help="Go ahead without asking; needed without a terminal.")
@click.option("-v", "--verbose", is_flag=True, help="Show the SQL text of every statement.")
def uninstall(config: str, sites: Sequence[str], as_json: bool, yes: bool, verbose: bool) -> None:
    """Remove all of ours: triggers first, then our tables; and prove by catalogue query that nothing is left.

    Changes that are not at the centre yet are dropped with the outbox: look at replicator status first. With --site only
    those sites are done, and the centre keeps its record of them.
    """
    from replicator import install as operation
    from replicator.settings import CENTRE

    app = open_app(config)
    chosen = app.chosen(sites)
    places = chosen if sites else (*chosen, CENTRE)
    removals, failed = _read_removals(app, places)
    if not as_json:
        for place, each in removals.items() if verbose or not yes else ():
            _show_plan(place, each, verbose)
        _show_failed(failed)
    if any(each.statements for each in removals.values()) and not yes:
        if not can_ask() or as_json:
            raise click.UsageError("nothing is removed without --yes")
        click.confirm(
            "remove all this? (your tables and rows stay; captured changes not at the centre yet are dropped)",
            abort=True,
        )
    left = {}
    for place, each in removals.items():
        try:
            with progress(place, len(each.statements), "statements", hidden=as_json) as advance:
                left[place] = operation.uninstall(app.installable, place, app.settings.topology, advance)
        except ReplicatorError as error:
            failed[place] = error
            if not as_json:
                show_error(f"{place}: {error.message}", error.hint)
    if as_json:
        errors = {place: {"error": error.message, "hint": error.hint} for place, error in failed.items()}
        show_json({"removed": left, "failed": errors})
    else:
        for place, removal in left.items():
            _show_removal(place, removal.statements, removal.left, removal.shared)
    something = any(removal.left for removal in left.values())
    raise SystemExit(EXIT_ERROR if failed else EXIT_DIFFERENT if something else 0)


# --- plans ---


def _read_plans(
    app: App, sites: Sequence[str], existing: str
) -> tuple[dict[str, DatabasePlan], dict[str, ReplicatorError]]:
    """A plan per database, centre first; those that could not be planned, with their error."""
    from replicator.install import Existing, plan_database
    from replicator.settings import CENTRE

    failed = dict(app.read_catalogues())
    if CENTRE in failed:
        raise failed[CENTRE]
    app.topology()

    def read(place: str) -> DatabasePlan:
        with closing(app.installable(place)) as database:
            return plan_database(database, app.settings.topology, app.roles(place), Existing(existing))

    chosen = app.chosen(sites)
    plans = _each((CENTRE, *chosen), read, failed)
    return plans, {place: error for place, error in failed.items() if place in (CENTRE, *chosen)}


def _read_removals(app: App, places: Sequence[str]) -> tuple[dict[str, DatabasePlan], dict[str, ReplicatorError]]:
    failed: dict[str, ReplicatorError] = {}

    def read(place: str) -> DatabasePlan:
        with closing(app.installable(place)) as database:
            return database.plan_uninstall(app.settings.topology)

    return _each(places, read, failed), failed


def _each(
    places: Sequence[str], read: Callable[[str], DatabasePlan], failed: dict[str, ReplicatorError]
) -> dict[str, DatabasePlan]:
    plans = {}
    for place in places:
        if place not in failed:
            try:
                plans[place] = read(place)
            except ReplicatorError as error:
                failed[place] = error
    return plans


def _install_place(app: App, place: str, existing: str, *, verbose: bool, quiet: bool) -> _Done:
    from replicator.app.twins import find_twin
    from replicator.install import Existing
    from replicator.settings import CENTRE

    if place != CENTRE and (twin := find_twin(app, place)) is not None:
        raise twin
    began = time.monotonic()
    with progress(place, 1, "statements", hidden=quiet) as advance:
        planned, roles = app.install(place, advance, Existing(existing))
    took = time.monotonic() - began
    if verbose:
        _show_plan(place, planned, verbose=True)
    if not quiet:
        _show_done(place, planned, took, tables=roles.tables)
        if planned.unqueued and existing == Existing.BACKFILL:
            names = ", ".join(map(str, planned.unqueued))
            say(f"{place}: ordered, for the next sync or run to bring: the rows of {names}")
    owed, hint = _show_owed(app, place, quiet=quiet)
    return _Done(place, len(planned.statements), round(took, 3), owed, hint)


def _show_owed(app: App, place: str, *, quiet: bool) -> tuple[str, str]:
    """What install ordered because changes were missed, and what is still to be run; empty where nothing was missed."""
    from replicator.app.gaps import list_ordered
    from replicator.app.outboxes import capacities
    from replicator.capacity import Room
    from replicator.settings import CENTRE

    if place == CENTRE:
        return "", ""
    owed = next((each for each in capacities(app, [place]) if each.room is Room.GAP), None)
    if owed is None:
        return "", ""
    ordered = ", ".join(str(each.table) for each in list_ordered(app, place))
    if not quiet:
        if ordered:
            say(f"{place}: ordered, for the next sync or run to bring: all rows of {ordered}", WARN)
        say(f"{place}: {owed.problem}", WARN)
        say(f"{place}: still to do: {owed.hint}", WARN)
    return owed.problem, owed.hint


# --- what is shown ---


def _show_plan(place: str, plan: DatabasePlan, verbose: bool) -> None:
    if not plan.statements:
        say(f"{place}: nothing to do", GOOD)
    else:
        say(f"{place}: {count(len(plan.statements), 'statement')}, fingerprint {plan.fingerprint}  ({plan.place})")
        if verbose:
            for number, step in enumerate(plan.statements, 1):
                say(f"-- {number}. {step.purpose}", DIM)
                say(step.sql if step.sql.rstrip().endswith(";") else f"{step.sql};")
        else:
            rows = [(f"  {n}.", step.purpose, step.object) for n, step in enumerate(plan.statements, 1)]
            show_table(("", "what", "object"), rows)
    for table in plan.unqueued:
        say(f"  rows not queued: {table}", DIM)
    for leftover in plan.leftovers:
        say(f"  left over (the YAML no longer names it; nothing is dropped): {leftover}", WARN)


def _conclude_plan(
    plans: Mapping[str, DatabasePlan],
    files: Sequence[Path],
    failed: Mapping[str, object],
    config: str,
    folder: str | None,
) -> None:
    for path in files:
        say(f"wrote {path}")
    if not any(each.statements for each in plans.values()):
        if not failed:
            say("nothing to do: everything is in place", GOOD)
    elif not folder:
        say(
            f"next: replicator install{config_flag(config)}   (or by hand: replicator plan{config_flag(config)} --sql DIR)"
        )


def _show_done(place: str, plan: DatabasePlan, took: float, *, tables: int) -> None:
    if plan.statements:
        say(f"{place}: {count(len(plan.statements), 'statement')} run in {took:.1f} s, {count(tables, 'table')}", GOOD)
    else:
        say(f"{place}: in place already, {count(tables, 'table')}", GOOD)


def _show_failed(failed: Mapping[str, ReplicatorError]) -> None:
    for place, error in failed.items():
        show_error(f"{place}: {error.message}", error.hint)


def _show_removal(place: str, statements: int, left: Sequence[str], shared: Sequence[str]) -> None:
    ran = f"{count(statements, 'statement')} run" if statements else "nothing to remove"
    if left:
        say(f"{place}: {ran}; STILL THERE: {', '.join(left)}", BAD)
    elif shared:
        say(
            f"{place}: {ran}; nothing of this topology is left ({count(len(shared), 'object')} stay for other topologies)"
        )
    else:
        say(f"{place}: {ran}; nothing of ours is left", GOOD)


__all__ = ["install", "plan", "uninstall"]
