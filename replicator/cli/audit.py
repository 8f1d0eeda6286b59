"""``replicator audit``: are the sites and the centre equal, and if not, which rows and columns are not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from replicator.cli.check import config_flag
from replicator.cli.loading import resync_hints
from replicator.cli.options import common, open_app
from replicator.cli.output import BAD, EXIT_ERROR, GOOD, WARN, progress, say, show_json
from replicator.errors import ReplicatorError, SettingsError, SetupError

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.audit import Audited, Limits, TableReport

_EPILOG = """\b
Examples:
  replicator audit
  replicator audit --site factory_a --table 'devices_*' --json

Rows still on their way are told apart from rows that differ; the replicator may go on working meanwhile.
Exit codes: 0 equal, 1 different, 2 not proven (rows in flight, a site away), 3 nothing could be audited.
"""


@click.command(epilog=_EPILOG, short_help="Compare sites and centre row by row, by checksum.")
@common
@click.option(
    "--table", "tables", metavar="NAME", multiple=True, help="Only this table, or glob of tables; repeatable."
)
@click.option("--list", "listed", metavar="N", type=click.IntRange(min=0), default=100, show_default=True,
              help="Differing rows to list per table; all are counted.")  # fmt: skip
@click.option("--wait", metavar="SECONDS", type=click.FloatRange(min=0), default=10.0, show_default=True,
              help="How long to wait per table for rows in flight.")  # fmt: skip
def audit(config: str, sites: Sequence[str], as_json: bool, tables: Sequence[str], listed: int, wait: float) -> None:
    """Compare every row of every table of every site with the centre, by checksums made inside the databases."""
    from replicator.audit import AuditReport, AuditVerdict, Limits, table_lines, to_json, to_lines
    from replicator.canonical import FORMS_VERSION
    from replicator.settings import CENTRE

    app = open_app(config)
    chosen = app.chosen(sites)
    failed = dict(app.read_catalogues())
    if CENTRE in failed:
        raise failed[CENTRE]
    wanted = _wanted(app, chosen, failed, tables)
    report = AuditReport(app.settings.topology, FORMS_VERSION)
    with progress("audit", sum(map(len, wanted.values())), "tables", hidden=as_json) as advance:
        for site in chosen:
            for table in _audit_site(app, site, wanted, failed, Limits(listed=listed, seconds=wait)):
                report.tables.append(table)
                advance(1, f"{table.site}: {table.source}")
                if not as_json:
                    _show(list(table_lines(table)), str(table.verdict))
    held = [line for site in chosen if site not in failed for line in app.mender.held(site)]
    if as_json:
        show_json({**to_json(report), "held": held})
    else:
        for line in held:
            say(f"not compared: {line}", WARN)
        *_, verdict = to_lines(report)
        _show([verdict], str(report.verdict))
        cut = _cut(app, {table.site for table in report.tables if table.verdict is not AuditVerdict.EQUAL})
        for site, way_back in cut.items():
            say(f"the history of {site} is cut, a resync cannot mend it: {way_back}", WARN)
        for hint in resync_hints(report, config_flag(config), cut):
            say(hint)
    dead = [site for site in chosen if site in failed]
    raise SystemExit(EXIT_ERROR if len(dead) == len(chosen) else report.exit_code)


def _cut(app: App, sites: Collection[str]) -> dict[str, str]:
    """Of these sites those whose links cannot go on, and the command that brings them back."""
    from replicator.cli.status import read

    return {each.link.site: each.hint for each in (read(app, sorted(sites)) if sites else ()) if each.must_rejoin}


def _wanted(
    app: App, sites: Sequence[str], failed: dict[str, ReplicatorError], tables: Sequence[str]
) -> dict[str, list[Audited]]:
    """The plans to audit by site; a site whose tables do not fit is put to the failed. Raises for an unknown table."""
    plans: dict[str, list[Audited]] = {}
    for site in sites:
        if site not in failed:
            try:
                plans[site] = app.audited(site)
            except SettingsError:
                raise
            except SetupError as error:
                failed[site] = error
    for pattern in tables:
        if plans and not any(_means(pattern, plan) for found in plans.values() for plan in found):
            raise click.BadParameter(f"no captured table is called {pattern!r}", param_hint="--table")
    if not tables:
        return plans
    return {site: [p for p in found if any(_means(pattern, p) for pattern in tables)] for site, found in plans.items()}


def _means(pattern: str, audited: Audited) -> bool:
    plan = audited.plan
    return any(fnmatchcase(str(name), pattern) for name in (plan.source.name, plan.target))


def _audit_site(
    app: App, site: str, wanted: dict[str, list[Audited]], failed: dict[str, ReplicatorError], limits: Limits
) -> Iterator[TableReport]:
    """A site's reports; a site that is away is one report that proves nothing."""
    from replicator.audit import TableReport

    try:
        if site in failed:
            raise failed[site]
        yield from app.audit(site, wanted[site], limits)
    except ReplicatorError as error:
        failed[site] = error
        yield TableReport(site, "all tables", "centre", reason=str(error))


def _show(lines: Sequence[str], verdict: str) -> None:
    style = {"equal": GOOD, "different": BAD}.get(verdict, WARN)
    say(lines[0], style)
    for line in lines[1:]:
        say(line)
