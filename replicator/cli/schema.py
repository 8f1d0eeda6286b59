"""``replicator schema diff`` and ``schema apply``: how the tables of sites and centre differ, and changes carried over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicator.cli.check import config_flag
from replicator.cli.options import common, open_app
from replicator.cli.output import (
    BAD,
    DIM,
    EXIT_DIFFERENT,
    EXIT_ERROR,
    GOOD,
    WARN,
    can_ask,
    count,
    errors_of,
    say,
    show_error,
    show_json,
)
from replicator.errors import ReplicatorError, SetupError

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.ddl import Alteration
    from replicator.differences import Difference
    from replicator.model import TablePlan
    from replicator.schema import Step

_EPILOG = """\b
Examples:
  replicator schema diff
  replicator schema apply --dry-run
  replicator schema apply --file change.sql --yes
"""
_DIFF_EPILOG = """\b
Examples:
  replicator schema diff
  replicator schema diff --site factory_a --json

A column that one side lacks, or cannot take, is held: the rest of its table goes on, and its values follow once both sides
have it. A table whose key differs waits, its changes parked at the centre. Either statement that is shown mends it.
Exit codes: 0 nothing is held, 1 something is, 3 a place did not answer (the others are shown).
"""
_APPLY_EPILOG = """\b
Examples:
  replicator schema apply --dry-run                columns that only the centre has, as they would be added at the sites
  replicator schema apply --table patient --yes    of one table
  replicator schema apply --file change.sql        ALTER TABLE statements, made at the centre and at every site

Each place is altered in its own dialect, and its capture made anew in the same step. Safe to repeat: what is in place is
left alone, and a site that is away is done when the command is given again.
Exit codes: 0 all in place, 1 something was refused or is left to do, 3 a place did not answer or failed.
"""


@click.group(epilog=_EPILOG, short_help="How tables differ between sites and centre; carry changes over.")
def schema() -> None:
    """See how the tables of sites and centre differ, and carry changes of tables over."""


@schema.command(
    epilog=_DIFF_EPILOG, short_help="Differences of columns, types and keys, with the statements that mend them."
)
@common
def diff(config: str, sites: Sequence[str], as_json: bool) -> None:
    """Show per table how columns, types, keys and NOT NULL differ between a site and the centre. Changes nothing."""
    from replicator import schema as operation
    from replicator.settings import CENTRE

    app = open_app(config)
    chosen = app.chosen(sites)
    failed = dict(app.read_catalogues((CENTRE, *chosen)))
    if CENTRE in failed:
        raise failed[CENTRE]
    found: list[Difference] = []
    for site in chosen:
        try:
            if site not in failed:
                found += operation.diff(site, app.mender.plans(site), app.catalogue(CENTRE))
                found += operation.gone(site, app.mender.gone(site))
        except ReplicatorError as error:
            failed[site] = error
    if as_json:
        show_json({"differences": [asdict(each) for each in found], "failed": errors_of(failed)})
    else:
        _show_differences(found)
        for place, problem in failed.items():
            show_error(f"{place}: {problem.message}", problem.hint)
        if not found and not failed:
            say("all tables are alike as far as they are replicated", GOOD)
    matters = any(each.matters for each in found)
    raise SystemExit(EXIT_ERROR if failed else EXIT_DIFFERENT if matters else 0)


@schema.command(epilog=_APPLY_EPILOG, short_help="Carry changes of tables from the centre to the sites.")
@common
@click.option("--from", "origin", type=click.Choice(["centre"]), default="centre", show_default=True,
              help="Whose tables are the model.")  # fmt: skip
@click.option("--file", "file", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
              help="Changes of tables in SQL, PostgreSQL's dialect and the centre's names, to be made everywhere.")  # fmt: skip
@click.option("--table", "tables", metavar="NAME", multiple=True, help="Only this table; repeatable.")
@click.option("--drop", is_flag=True, help="Drop columns at the sites that the centre has not: their values are gone.")
@click.option("--dry-run", is_flag=True, help="Only show what would be run.")
@click.option("-y", "--yes", is_flag=True, help="Go ahead without asking; needed without a terminal.")
def apply(
    config: str, sites: Sequence[str], as_json: bool, origin: str, file: str | None, tables: Sequence[str], drop: bool,
    dry_run: bool, yes: bool,
) -> None:  # fmt: skip
    """Give the sites' tables the columns and types of the centre's, or make the changes of a file everywhere."""
    from replicator.ddl import parse_changes
    from replicator.settings import CENTRE

    app = open_app(config)
    chosen = app.chosen(sites)
    failed = dict(app.read_catalogues((CENTRE, *chosen)))
    if CENTRE in failed:
        raise failed[CENTRE]
    changes = parse_changes(Path(file).read_text(encoding="utf-8"), file) if file else []
    steps = _plan(app, [site for site in chosen if site not in failed], changes, tables, drop, failed)
    wanted = [step for found in steps.values() for step in found if step.sql]
    if not as_json:
        _show_steps([step for found in steps.values() for step in found])
    if wanted and not dry_run and not yes:
        if as_json or not can_ask():
            raise click.UsageError("nothing is altered without --yes")
        click.confirm(f"run {count(len(wanted), 'statement')}?", abort=True)
    done: dict[str, int] = {} if dry_run else _run(app, steps, failed, quiet=as_json)
    left = dry_run and bool(wanted)
    refused = [step for found in steps.values() for step in found if step.refused]
    if as_json:
        document = [asdict(step) for found in steps.values() for step in found]
        show_json({"steps": document, "done": done, "failed": errors_of(failed)})
    else:
        _conclude(steps, failed, config, dry_run=dry_run)
    raise SystemExit(EXIT_ERROR if failed else EXIT_DIFFERENT if left or refused else 0)


def _plan(
    app: App, sites: Sequence[str], changes: Sequence[Alteration], tables: Sequence[str], drop: bool,
    failed: dict[str, ReplicatorError],
) -> dict[str, list[Step]]:  # fmt: skip
    """What is to be run, by place, the centre first where a file changes it."""
    from replicator import schema as operation
    from replicator.model import Engine
    from replicator.settings import CENTRE

    centre = app.catalogue(CENTRE)
    known: dict[str, Sequence[TablePlan]] = {}
    for site in sites:
        try:
            known[site] = app.mender.plans(site)
        except ReplicatorError as error:
            failed[site] = error
    known = operation.named(known, tables)
    if not changes:
        return {site: list(operation.carry(site, plans, drop=drop)) for site, plans in known.items()}
    targets = {str(plan.target) for plans in known.values() for plan in plans}
    strange = [str(change.table) for change in changes if known and str(change.table) not in targets]
    if strange:
        raise SetupError(
            f"no site's table goes to {strange[0]}",
            hint="name tables as the centre calls them, and only replicated ones",
        )
    found = {CENTRE: operation.plan_centre(changes, centre)}
    for site, plans in known.items():
        found[site] = operation.plan_site(site, changes, plans, Engine.POSTGRES)
    return found


def _run(app: App, steps: dict[str, list[Step]], failed: dict[str, ReplicatorError], *, quiet: bool) -> dict[str, int]:
    """Run what is planned, place by place; an error at one does not keep the others from being done."""
    from replicator import schema as operation
    from replicator.settings import CENTRE

    done: dict[str, int] = {}
    for place, found in steps.items():
        if any(step.sql for step in found):
            try:
                done[place] = operation.run_steps(app.installable, place, app.database(place).engine, found)
            except ReplicatorError as error:
                failed[place] = error
                continue
        app.forget(place)
    for site in steps.keys() - {CENTRE} - failed.keys():
        try:
            news = app.mender.mend(site)
        except ReplicatorError as error:
            failed[site] = error
            continue
        for line in () if quiet else news:
            say(line, DIM)
    return done


def _show_differences(found: Sequence[Difference]) -> None:
    heading = ""
    for each in found:
        if heading != f"{each.site} {each.table}":
            heading = f"{each.site} {each.table}"
            say(f"{each.site}: {each.table}" + (f" → {each.target}" if each.target != each.table else ""))
        what = f"{each.column}: " if each.column else ""
        say(f"  {what}{each.message}{'   [held]' if each.matters else ''}", BAD if each.matters else WARN)
        for fix in each.fixes:
            when = "   (if it was renamed)" if fix.renames else "   (its values are gone then)" if fix.loses else ""
            say(f"    at {fix.place}: {fix.sql};{when}", DIM)


def _show_steps(steps: Sequence[Step]) -> None:
    for step in steps:
        if step.refused:
            say(f"{step.place}: {step.change}: not done: {step.refused}", WARN)
        elif step.sql:
            say(f"{step.place}: {step.change}: {step.sql};")
        else:
            say(f"{step.place}: {step.change}: is so already", DIM)


def _conclude(steps: dict[str, list[Step]], failed: dict[str, ReplicatorError], config: str, *, dry_run: bool) -> None:
    for place, error in failed.items():
        show_error(f"{place}: {error.message}", error.hint)
    wanted = any(step.sql for found in steps.values() for step in found)
    if failed:
        say(f"later: replicator schema apply{config_flag(config)} as now, for: {', '.join(failed)}", WARN)
    elif not wanted:
        say("nothing to do", GOOD)
    elif not dry_run:
        say(f"done; next: replicator schema diff{config_flag(config)}", GOOD)
