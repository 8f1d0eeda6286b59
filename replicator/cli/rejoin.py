"""``replicator rejoin``: a site, or the centre, that was put back, copied, made anew or away too long comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from replicator.cli.check import config_flag
from replicator.cli.loading import difference_lines
from replicator.cli.options import common, open_app
from replicator.cli.output import (
    BAD,
    EXIT_DIFFERENT,
    EXIT_ERROR,
    GOOD,
    WARN,
    can_ask,
    count,
    say,
    show_error,
    show_json,
)
from replicator.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.audit import AuditReport
    from replicator.rejoin import PreferPlace

_EPILOG = """\b
When:
  restored     a site's database was put back from a backup           replicator rejoin --site S
  made anew    dropped and created again under the same name          replicator rejoin --site S
  away         for longer than retention_days                         replicator rejoin --site S
  copied       a copy of a site's database becomes another site       replicator rejoin --site S --new-identity
  centre       the centre's database was put back from a backup       replicator rejoin --centre

\b
What is done: the database begins a new epoch; changes not acknowledged are kept; all rows of the site are looked at by a
backfill and decided at the centre as conflicts are, on record (--prefer overrules the policies); then the site reads its
part anew, and the audit says what still differs. Rows that only one side has go to the other where the direction allows
it: one that was deleted since the backup was taken comes back, unless the centre has its deletion on record.

\b
Examples:
  replicator rejoin --site factory_a --dry-run
  replicator rejoin --site factory_a --prefer centre --yes
  replicator rejoin --centre --yes

\b
A running service may go on running. Safe to repeat.
Exit codes: 0 done and equal, 1 done, and the audit finds differences, 2 not confirmed or not proven, 3 error.
"""


@click.command(epilog=_EPILOG, short_help="Bring back a restored, copied, re-created or expired site, or centre.")
@common
@click.option("--centre", is_flag=True, help="The centre was put back: all sites rejoin.")
@click.option("--prefer", type=click.Choice(["policy", "site", "centre"]), default="policy", show_default=True,
              help="Whose row stands where they differ.")  # fmt: skip
@click.option("--new-identity", is_flag=True, help="The database is a copy and becomes a site of its own.")
@click.option("--dry-run", is_flag=True, help="Only say what happened and what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rejoin(
    config: str, sites: Sequence[str], as_json: bool, centre: bool, prefer: str, new_identity: bool, dry_run: bool, yes: bool
) -> None:  # fmt: skip
    """Bring back a site, or the centre, whose history is not the one its links know."""
    from replicator.rejoin import PreferPlace

    if bool(sites) == centre:
        raise click.UsageError("say which: --site NAME, or --centre")
    if new_identity and len(sites) != 1:
        raise click.UsageError("--new-identity is for one --site")
    app = open_app(config)
    chosen = app.chosen(sites)
    told: Callable[[str], None] = (lambda text: None) if as_json else say
    problems = _explain(app, chosen, told)
    _announce(chosen, told, centre=centre, prefer=prefer, copy=new_identity)
    if dry_run:
        if as_json:
            show_json({"sites": list(chosen), "problems": problems, "done": False})
        return
    if not yes and not (can_ask() and click.confirm("do it now?")):
        raise click.UsageError("nothing was done; run it with --yes")
    failed = _bring_back(app, chosen, PreferPlace(prefer), told, centre=centre, copy=new_identity)
    _finish(app, [site for site in chosen if site not in failed], failed, problems, config, as_json=as_json)


def _explain(app: App, sites: Sequence[str], told: Callable[[str], None]) -> dict[str, str]:
    """What is wrong with each link."""
    from replicator.cli.status import read

    problems = {str(each.link): each.problem for each in read(app, sites) if each.problem}
    for link, problem in problems.items():
        told(f"{link}: {problem}")
    if not problems:
        told("nothing is wrong with the links: rejoining is not needed, and does no harm")
    return problems


def _announce(sites: Sequence[str], told: Callable[[str], None], *, centre: bool, prefer: str, copy: bool) -> None:
    named = ", ".join(sites)
    if centre:
        told("the centre begins a new epoch")
    told(f"new epoch{', and new identity,' if copy else ''} of {named}; what was believed of its rows is forgotten")
    whose = "each table's policy decides" if prefer == "policy" else f"the {prefer}'s row stands"
    told(f"all rows are looked at; where site and centre differ, {whose}; every decision is on record")


def _bring_back(
    app: App, sites: Sequence[str], prefer: PreferPlace, told: Callable[[str], None], *, centre: bool, copy: bool
) -> dict[str, ReplicatorError]:
    """Rejoin the sites one by one; those that could not, with their error."""
    from replicator.app.rejoins import begin_centre, rejoining
    from replicator.rejoin import list_parked
    from replicator.rejoin import rejoin as bring_back

    if centre:
        begin_centre(app)
    failed: dict[str, ReplicatorError] = {}
    for site in sites:
        try:
            one = rejoining(app, site, told)
            bring_back(one, prefer, copy=copy)
            for change in list_parked(one):
                told(f"{change.table} {change.key} is parked since before: replicator parked show {change.id}")
        except ReplicatorError as error:
            failed[site] = error
            show_error(f"{site}: {error.message}", error.hint)
    return failed


def _finish(
    app: App, sites: Sequence[str], failed: dict[str, ReplicatorError], problems: dict[str, str], config: str, *,
    as_json: bool,
) -> None:  # fmt: skip
    """Move all links till they rest, and audit."""
    from replicator.audit import AuditReport, Limits, to_json
    from replicator.canonical import FORMS_VERSION
    from replicator.errors import LeaseError
    from replicator.service import drain_all

    for worker, error in drain_all(app.workers(sites), 4):
        if error is not None and not isinstance(error, LeaseError):
            raise error
        del worker
    report = AuditReport(app.settings.topology, FORMS_VERSION)
    for site in sites:
        report.tables.extend(app.audit(site, app.audited(site), Limits()))
    if as_json:
        show_json({
            "sites": list(sites), "problems": problems, "done": not failed, "audit": to_json(report),
            "failed": {site: error.message for site, error in failed.items()},
        })  # fmt: skip
    else:
        _show_audit(report, config)
        say(f"{count(len(sites), 'site')} back")
    raise SystemExit(EXIT_ERROR if failed else report.exit_code)


def _show_audit(report: AuditReport, config: str) -> None:
    """Which tables differ, and how; and what a resync would do to the rows that only its target has."""
    from replicator.audit import to_lines

    flag = config_flag(config)
    style = GOOD if report.exit_code == 0 else BAD if report.exit_code == EXIT_DIFFERENT else WARN
    differing = [table for table in report.tables if table.wrong]
    if not differing:
        *_, verdict = to_lines(report)
        say(verdict, style)
        if report.exit_code:
            say(f"see why: replicator audit{flag}")
        return
    say(f"{report.verdict}: {len(differing)} of {count(len(report.tables), 'table')}", style)
    for line in difference_lines(report):
        say(f"  {line}")
    say(f"see these rows: replicator audit{flag}")
    for site in dict.fromkeys(table.site for table in differing):
        lost = sum(table.only_target for table in differing if table.site == site)
        warning = f"would DELETE the {count(lost, 'row')} only the target has" if lost else "mends them"
        say(f"replicator resync --site {site}{flag} {warning}; look first, with --dry-run", WARN if lost else "")
