"""``replicator backfill``: bring the rows tables have already, beside the changes, in chunks that survive any crash."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from replicator.cli.check import config_flag
from replicator.cli.loading import (
    Interrupted,
    audit,
    bring,
    carry_out,
    chosen_tables,
    document,
    exit_code,
    failed_document,
    new_report,
    resync_hints,
    show_backfills,
    show_failed,
    show_left,
    show_reports,
)
from replicator.cli.options import Command, common, open_app
from replicator.cli.output import (
    EXIT_DIFFERENT,
    EXIT_ERROR,
    GOOD,
    WARN,
    count,
    errors_of,
    note,
    say,
    show_error,
    show_json,
)
from replicator.errors import SetupError
from replicator.model import Backfill, BackfillState, Direction, Prefer

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.app.backfills import Backfills
    from replicator.audit import AuditReport

_EPILOG = """\b
Without a word of these, TABLE… is meant, as with start; a table called "status": replicator backfill start status.

\b
Examples:
  replicator backfill                                 all tables of all sites
  replicator backfill 'devices_*' --site factory_a --rate 5000
  replicator backfill start --help                    all options
  replicator backfill status
  replicator backfill pause --site factory_a
  replicator backfill continue --site factory_a

README, “Existing rows: backfill and resync”, says what it does under traffic and after a crash.
"""
_START = """\b
Rows are read in key order, chunk by chunk, and go through the link in step with the changes: nothing is locked and no write
waits. A row that is equal at the target stays; if another is there, the table's policy decides as for any conflict, and it
is on record. Rows only the target has stay (replicator resync removes them).

Interrupted, killed, or the machine gone: run it again, it goes on behind the last chunk. Where `replicator run` works on a
link, the service brings the rows and this shows how far it is; else this command replicates the link until it is done.

\b
Examples:
  replicator backfill start devices_run
  replicator backfill start 'devices_*' --site factory_a --chunk-rows 2000 --rate 5000
  replicator backfill start patient --direction from_centre --prefer source --no-audit --json

Exit codes: 0 equal, 1 different, 2 not proven (rows in flight, paused, cancelled) or called wrongly, 3 error.
"""
_STATUS = """\b
Examples:
  replicator backfill status
  replicator backfill status --all --json

Exit codes: 0 shown (also when there is none), 3 a place did not answer (what the others know is shown), or error.
"""
_PAUSE = """\b
Examples:
  replicator backfill pause
  replicator backfill pause devices_run --site factory_a

Exit codes: 0 paused (after the chunk in hand), 1 there was nothing to pause, 3 error.
"""
_CONTINUE = """\b
Examples:
  replicator backfill continue
  replicator backfill continue devices_run --site factory_a --no-wait

Exit codes: 0 equal, 1 different, or there was nothing to go on with, 2 not proven, 3 error.
"""
_CANCEL = """\b
Examples:
  replicator backfill cancel devices_run --site factory_a

Exit codes: 0 cancelled (what was brought stays), 1 there was nothing to cancel, 3 error.
"""


class _Words(click.Group):
    """``backfill TABLE`` is what one types, so what is no word of the group are arguments of ``start``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``start`` before what is no word of ours."""
        words = (*self.commands, *self.get_help_option_names(ctx))
        return super().parse_args(ctx, args if args and args[0] in words else ["start", *args])


@click.group(cls=_Words, epilog=_EPILOG, short_help="Bring the rows that were there before, while everybody writes.")
def backfill() -> None:
    """Bring tables' existing rows over their links; look at it, pause it, go on, cancel it."""


def waiting_options(command: Command) -> Command:
    """What a command that sees backfills to their end can be spared."""
    command = click.option("--no-audit", is_flag=True, help="Do not compare both sides at the end.")(command)
    return click.option("--no-wait", is_flag=True, help="Leave the work to the running service, and return.")(command)


def loading_options(command: Command) -> Command:
    """How rows are brought."""
    for option in (
        click.option("--rate", metavar="N", type=click.IntRange(min=0), default=0, help="Rows per second and table at "
                     "most; 0, the default: no limit."),
        click.option("--chunk-rows", metavar="N", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True,
                     help="Rows of one chunk: one transaction at the target."),
        click.option("--direction", type=click.Choice([Direction.TO_CENTRE.value, Direction.FROM_CENTRE.value]), default=None,
                     help="Only this way, of tables that go both ways."),
    ):  # fmt: skip
        command = option(command)
    return command


@backfill.command(epilog=_START, short_help="Order backfills and see them to their end (the default).")
@common
@loading_options
@click.option("--prefer", type=click.Choice([each.value for each in Prefer]), default=Prefer.POLICY.value, show_default=True,
              help="Whose row stands where both sides have one and they differ.")  # fmt: skip
@waiting_options
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
def start(
    config: str, sites: Sequence[str], as_json: bool, tables: Sequence[str], direction: str | None, prefer: str,
    chunk_rows: int, rate: int, no_wait: bool, no_audit: bool,
) -> None:  # fmt: skip
    """Bring the rows TABLEs (names or globs; all when none) have already, parents first, several sites at a time."""
    from replicator.app.backfills import Backfills
    from replicator.backfill import choose, in_turns

    app = open_app(config)
    chosen = app.chosen(sites)
    require_centre(app)
    backfills, began = Backfills(app, chosen, note), time.monotonic()
    way = Direction(direction) if direction else None
    with Interrupted(backfills, config_flag(config)):
        plans = backfills.plans()
        wishes = choose(plans, tables, way, Prefer(prefer), reason="backfill") if plans else []
        if not wishes and not backfills.failed:
            raise SetupError("no table of these sites goes that way", hint="see the tables with: replicator plan")
        if no_wait:
            now, later = (*in_turns(wishes, backfills.unfinished()), [], [])[:2]
            if later:
                note("rows only the centre has come back when this is done: --direction from_centre")
            orders = [each.backfill for each in backfills.order(now, chunk_rows=chunk_rows, rate=rate)]
            _leave(orders, backfills, as_json)
        ended = bring(backfills, wishes, chunk_rows=chunk_rows, rate=rate, hidden=as_json)
        _conclude(app, backfills, ended, began, as_json, config, proof=None if no_audit else (tables, way))


@backfill.command("status", epilog=_STATUS, short_help="How far backfills are.")
@common
@click.option("--all", "everything", is_flag=True, help="Those that are done or cancelled, too.")
def status_(config: str, sites: Sequence[str], as_json: bool, everything: bool) -> None:
    """Show unfinished backfills: rows, about how many there are, and the rate since they began."""
    app = open_app(config)
    found, failed = app.backfills(app.chosen(sites))
    found = [each for each in found if everything or each.unfinished]
    now = int(time.time() * 1e6)
    if as_json:
        show_json({"backfills": [document(each, now) for each in found], "failed": errors_of(failed)})
    else:
        for place, error in failed.items():
            show_error(f"{place}: {error.message}", error.hint)
        if found:
            show_backfills(found, now)
        else:
            say("no backfill is on record" if everything else "no backfill is unfinished", WARN if failed else GOOD)
    raise SystemExit(EXIT_ERROR if failed else 0)


@backfill.command(epilog=_PAUSE, short_help="Stop after the chunk in hand, to go on later.")
@common
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
def pause(config: str, sites: Sequence[str], as_json: bool, tables: Sequence[str]) -> None:
    """Pause the unfinished backfills of TABLEs, of all tables when none is named. Changes go on."""
    _steer(config, sites, as_json, tables, BackfillState.PAUSED)


@backfill.command(epilog=_CANCEL, short_help="End backfills; what was brought stays.")
@common
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
def cancel(config: str, sites: Sequence[str], as_json: bool, tables: Sequence[str]) -> None:
    """Cancel the unfinished backfills of TABLEs, of all tables when none is named."""
    _steer(config, sites, as_json, tables, BackfillState.CANCELLED)


@backfill.command("continue", epilog=_CONTINUE, short_help="Go on with what is paused or was left.")
@common
@waiting_options
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
def continue_(
    config: str, sites: Sequence[str], as_json: bool, tables: Sequence[str], no_wait: bool, no_audit: bool
) -> None:
    """Go on with the unfinished backfills of TABLEs (all when none is named), and see them to their end."""
    from replicator.app.backfills import Backfills

    app = open_app(config)
    chosen = app.chosen(sites)
    require_centre(app)
    backfills, began = Backfills(app, chosen, note), time.monotonic()
    with Interrupted(backfills, config_flag(config)):
        backfills.steer(BackfillState.RUNNING, tables)
        orders = backfills.unfinished(tables)
        if not orders and not backfills.failed:
            _nothing("go on with", as_json)
        if no_wait:
            _leave(orders, backfills, as_json)
        names = sorted({str(each.table) for each in orders})
        ended = carry_out(backfills, orders, hidden=as_json)
        _conclude(app, backfills, ended, began, as_json, config, proof=None if no_audit else (names, None))


# --- parts ---


def require_centre(app: App) -> None:
    """Read all catalogues; a site that is away fails by itself later. Raises the centre's error."""
    from replicator.settings import CENTRE

    failed = app.read_catalogues()
    if CENTRE in failed:
        raise failed[CENTRE]


def _leave(orders: Sequence[Backfill], backfills: Backfills, as_json: bool) -> None:
    """End without waiting: what was ordered, and who will do it."""
    backfills.leave(orders)
    idle = sorted({str(each.link) for each in orders} - {str(link) for link in backfills.served})
    if as_json:
        now = int(time.time() * 1e6)
        show_json({
            "backfills": [document(each, now) for each in orders], "without_replicator": idle,
            "failed": failed_document(backfills.failed),
        })  # fmt: skip
    else:
        show_failed(backfills.failed)
        say(f"{count(len(orders), 'backfill')} ordered; see how far they are: replicator backfill status", GOOD)
        if idle:
            say(f"no replicator works on {', '.join(idle)}: start one with replicator run", WARN)
    raise SystemExit(EXIT_ERROR if backfills.failed else 0)


def _conclude(
    app: App, backfills: Backfills, ended: Sequence[Backfill], began: float, as_json: bool, config: str,
    *, proof: tuple[Sequence[str], Direction | None] | None,
) -> None:  # fmt: skip
    """Prove what was brought by an audit, show both, and end with the exit code that says so."""
    report: AuditReport | None = None
    if proof is not None:
        report = new_report(app)
        for site in dict.fromkeys(each.link.site for each in ended if each.link not in backfills.failed):
            report.tables += audit(app, site, chosen_tables(app, site, *proof))
    code = exit_code(ended, backfills.failed, report)
    now, passed = int(time.time() * 1e6), time.monotonic() - began
    if as_json:
        from replicator.audit import to_json

        show_json({
            "topology": app.settings.topology, "seconds": round(passed, 3), "backfills": [document(e, now) for e in ended],
            "audit": None if report is None else to_json(report), "failed": failed_document(backfills.failed),
        })  # fmt: skip
        raise SystemExit(code)
    flag = config_flag(config)
    show_backfills(ended, now)
    rows = sum(each.rows for each in ended)
    say(f"{count(rows, 'row')} brought, {count(sum(e.differing for e in ended), 'row')} differed; {passed:.1f} s")
    show_left(ended, flag)
    show_failed(backfills.failed)
    if report is not None and report.tables:
        show_reports(report)
        for hint in resync_hints(report, flag):
            say(hint)
    raise SystemExit(code)


def _steer(config: str, sites: Sequence[str], as_json: bool, tables: Sequence[str], state: BackfillState) -> None:
    from replicator.app.backfills import Backfills

    app = open_app(config)
    backfills = Backfills(app, app.chosen(sites), note)
    try:
        done = backfills.steer(state, tables)
    finally:
        backfills.close()
    if as_json:
        listed = [{"link": str(each.link), "table": str(each.table), "id": each.id} for each in done]
        show_json({str(state): listed, "failed": failed_document(backfills.failed)})
    else:
        show_failed(backfills.failed)
        for each in done:
            say(f"{each.link} {each.table}: {state} after {each.rows:,} rows")
        if not done:
            say(f"no backfill to be {state}", WARN)
    raise SystemExit(EXIT_ERROR if backfills.failed else 0 if done else EXIT_DIFFERENT)


def _nothing(what: str, as_json: bool) -> None:
    if as_json:
        show_json({"backfills": [], "audit": None, "failed": {}})
    else:
        say(f"there is no backfill to {what}", WARN)
    raise SystemExit(EXIT_DIFFERENT)
