"""``replicator resync``: audit, bring just the rows that differ, audit again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import click

from replicator.cli.backfill import loading_options, require_centre
from replicator.cli.check import config_flag
from replicator.cli.loading import (
    Interrupted,
    audit,
    bring,
    carry_out,
    chosen_tables,
    difference_lines,
    document,
    exit_code,
    failed_document,
    new_report,
    show_backfills,
    show_failed,
    show_left,
    show_reports,
)
from replicator.cli.options import common, open_app
from replicator.cli.output import BAD, GOOD, WARN, can_ask, count, note, say, show_json
from replicator.errors import SetupError
from replicator.model import Backfill, BackfillState, Direction, Prefer

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.app.backfills import Backfills
    from replicator.app.resyncs import Mending, Resync
    from replicator.audit import Audited, AuditReport, OnUnequal
    from replicator.backfill import Wish

_ROUNDS = 3
"""Audits at most: rows that were written to while they were mended are mended once more."""

_EPILOG = """\b
Which side's row stands: of a table that goes one way, its source's (rows only the target has are removed there); of one that
goes both ways, the site's where the centre has what it sent last, else its policy decides, and a row only one side has comes
to the other. --direction makes it the source of that link: to_centre the site, from_centre the centre. How many rows are
removed where is said first, and asked for. Each row is decided as a conflict is, and is on record (replicator conflicts list).
Rows with parked changes are left to replicator parked.

\b
Examples:
  replicator resync --dry-run                         what differs at all sites, and what would be done
  replicator resync --site factory_a --yes            without asking before rows are removed
  replicator resync devices_run --site factory_a
  replicator resync patient --site clinic1 --direction from_centre      the centre's rows stand
  replicator resync --site factory_a --full --rate 5000                 every row anew

Exit codes: 0 equal, 1 different (also with --dry-run), 2 not proven, not confirmed or called wrongly, 3 error.
"""


@click.command(epilog=_EPILOG, short_help="Bring the rows an audit finds different, then prove it.")
@common
@loading_options
@click.option("--prefer", type=click.Choice([each.value for each in Prefer]), default=None,
              help="Whose row stands: the link's source or target, what the policy says, or (own) the site's where the centre "
                   "has what it sent last; default: see below.")  # fmt: skip
@click.option("--full", is_flag=True, help="Bring every row first, not only those that differ.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done; nothing is moved.")
@click.option("-y", "--yes", is_flag=True, help="Remove rows without asking; needed for that without a terminal.")
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
def resync(
    config: str, sites: Sequence[str], as_json: bool, tables: Sequence[str], direction: str | None, prefer: str | None,
    chunk_rows: int, rate: int, full: bool, dry_run: bool, yes: bool,
) -> None:  # fmt: skip
    """Compare TABLEs (names or globs; all when none) of the sites with the centre, and mend the rows that differ."""
    from replicator.app.backfills import Backfills
    from replicator.app.outboxes import forget_gaps, read_gaps

    app = open_app(config)
    chosen = app.chosen(sites)
    require_centre(app)
    work = _Work(
        app, Backfills(app, chosen, note), Direction(direction) if direction else None, Prefer(prefer) if prefer else None,
        chunk_rows, rate, as_json, yes,
    )  # fmt: skip
    with Interrupted(work.backfills, config_flag(config)):
        work.find(chosen, tables)
        if not dry_run:
            work.settle()
        whole = not (dry_run or tables or direction)
        gaps = read_gaps(app, work.answering) if whole else {}
        if full and not dry_run:
            if not yes:
                work.confirm(work.look())
            work.bring_all()
        report = work.mend(only_look=dry_run)
        if whole:
            proven = work.proven(report)
            forget_gaps(app, {site: gap for site, gap in gaps.items() if site in proven})
        _conclude(work, report, dry_run, config)


class _Work:
    """One resync."""

    def __init__(
        self, app: App, backfills: Backfills, direction: Direction | None, prefer: Prefer | None, chunk_rows: int, rate: int,
        quiet: bool, yes: bool,
    ) -> None:  # fmt: skip
        self.app, self.backfills = app, backfills
        self._direction, self._prefer, self._chunk_rows, self._rate = direction, prefer, chunk_rows, rate
        self.quiet, self._agreed = quiet, yes
        self._tables: dict[str, list[Audited]] = {}
        self.began = time.monotonic()
        self.ended: list[Backfill] = []
        self.mendings: list[Mending] = []

    def find(self, sites: Sequence[str], names: Sequence[str]) -> None:
        """The tables to compare. Raises SetupError for a name no site has, and for a preference that could mean either side."""
        from replicator.app.resyncs import Resync

        known = self.backfills.plans()
        for site in sites:
            if any(link.site == site for link in self.backfills.failed):
                continue
            self._tables[site] = chosen_tables(self.app, site, names, self._direction)
        resync = Resync(self.app, self._direction, self._prefer)
        for found in self._tables.values():
            for audited in found:
                resync.check(audited)
        if self._tables and not any(self._tables.values()):
            named = ", ".join(sorted({str(plan.source.name) for plans in known.values() for plan in plans}))
            raise SetupError(
                f"no table of these sites is meant by {' '.join(names) or 'that'}", hint=f"tables are: {named}"
            )

    def settle(self) -> None:
        """Finish what was ordered before, and let what is in flight arrive: else it would count as different."""
        names = sorted({str(a.plan.source.name) for found in self._tables.values() for a in found})
        left = self.backfills.unfinished(names)
        if left:
            note(f"{count(len(left), 'backfill')} ordered before come first")
            self.ended += carry_out(self.backfills, left, hidden=self.quiet)
        self.backfills.drain()

    def bring_all(self) -> None:
        """Every row of the tables, from whose source stands."""
        from replicator.app.resyncs import Resync

        resync = Resync(self.app, self._direction, self._prefer)
        wishes = [wish for site, found in self._tables.items() for table in found for wish in resync.whole(site, table)]
        self._carry_out([wish for wish in wishes if wish.link not in self.backfills.failed])

    def mend(self, *, only_look: bool) -> AuditReport:
        """Audit and mend in turns until nothing differs, or it does not get better; the last audit."""
        from replicator.app.resyncs import Resync

        report = new_report(self.app)
        for last in [False] * (_ROUNDS - 1) + [True]:
            report = new_report(self.app)
            with closing(Resync(self.app, self._direction, self._prefer)) as resync:
                for site, found in self._tables.items():
                    report.tables += audit(self.app, site, found, _noting(resync, site))
                if resync.mendings and not self.mendings:
                    self.mendings = resync.mendings
                    if not self.quiet:
                        show_mendings(self.mendings)
                if only_look or last or not resync.rows:
                    break
                self.confirm(resync.mendings)
                self._carry_out(list(resync.wishes()))
        return report

    @property
    def answering(self) -> list[str]:
        """The sites that are compared, and whose links work."""
        away = {link.site for link in self.backfills.failed}
        return [site for site in self._tables if site not in away]

    def look(self) -> list[Mending]:
        """What differs, and was shown."""
        self.mend(only_look=True)
        return self.mendings

    def confirm(self, mendings: Sequence[Mending]) -> None:
        """Rows are removed on a person's word only, given once. Raises UsageError without it."""
        removed = _removals(mendings)
        if self._agreed or not removed:
            return
        if self.quiet or not can_ask():
            raise click.UsageError(
                f"rows that only the target has would be REMOVED: {removed}. Nothing was done: look with --dry-run, go ahead "
                "with --yes"
            )
        say(f"rows that only the target has will be REMOVED: {removed}", BAD)
        if not click.confirm("remove them, and bring the rest?"):
            raise click.UsageError("nothing was done")
        self._agreed = True

    def proven(self, report: AuditReport) -> list[str]:
        """The sites whose tables are all equal, and nothing was left on the way."""
        from replicator.audit import AuditVerdict

        bad = {each.site for each in report.tables if each.verdict is not AuditVerdict.EQUAL}
        bad |= {link.site for link in self.backfills.failed}
        bad |= {each.link.site for each in self.ended if each.state is not BackfillState.DONE}
        return sorted({each.site for each in report.tables} - bad)

    def _carry_out(self, wishes: Sequence[Wish]) -> None:
        self.ended += bring(self.backfills, wishes, chunk_rows=self._chunk_rows, rate=self._rate, hidden=self.quiet)


def _noting(resync: Resync, site: str) -> OnUnequal:
    return lambda audited, row: resync.note(site, audited, row)


def show_mendings(mendings: Sequence[Mending]) -> None:
    """What differs, table by table, and what is decided about it."""
    for each in mendings:
        parts = [f"{count(each.brought, 'row')} to bring"] if each.brought else []
        parts += [f"{count(each.removed, 'row')} to remove at {each.target}"] if each.removed else []
        parts += [f"{count(each.kept, 'row')} only {each.target} has to stay there"] if each.kept else []
        parts += (
            [f"{count(each.stays, 'row')} left: a parked change, or a key that is not unique"] if each.stays else []
        )
        say(f"{each.site} {each.table}: {', '.join(parts)}; {each.decision}", WARN)


def _removals(mendings: Sequence[Mending]) -> str:
    """How many rows go where; empty when none does."""
    return "; ".join(
        f"{count(each.removed, 'row')} of {each.table} ({each.site}) at {each.target}"
        for each in mendings
        if each.removed
    )


def _show_intent(mendings: Sequence[Mending], report: AuditReport) -> None:
    """The end of a dry run: how the tables differ, and what the command would do about it."""
    for line in difference_lines(report):
        say(line, WARN)
    brought, removed = sum(each.brought for each in mendings), _removals(mendings)
    also = f" and DELETE {removed}" if removed else "; it would delete none"
    say(f"nothing was changed; the same command without --dry-run would bring {count(brought, 'row')}{also}")


def _conclude(work: _Work, report: AuditReport, dry_run: bool, config: str) -> None:
    ended, failed = work.ended, work.backfills.failed
    code = exit_code(ended, failed, report)
    now, passed = int(time.time() * 1e6), time.monotonic() - work.began
    if work.quiet:
        from replicator.audit import to_json

        listed = [
            {"site": each.site, "table": each.table, "decision": each.decision, "brought": each.brought,
             "removed": each.removed, "removed_at": each.target if each.removed else "", "kept": each.kept,
             "left": each.stays}
            for each in work.mendings
        ]  # fmt: skip
        show_json({
            "topology": work.app.settings.topology, "dry_run": dry_run, "seconds": round(passed, 3), "mended": listed,
            "backfills": [document(each, now) for each in ended], "audit": to_json(report), "failed": failed_document(failed),
        })  # fmt: skip
        raise SystemExit(code)
    if ended:
        show_backfills(ended, now)
    show_left(ended, config_flag(config))
    show_failed(failed)
    show_reports(report)
    if dry_run and work.mendings:
        _show_intent(work.mendings, report)
    if not work.mendings and not failed:
        say("nothing to mend", GOOD)
    raise SystemExit(code)
