"""What ``backfill`` and ``resync`` have in common: watching orders to their end, the audit that proves them, the results."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from shlex import quote
from typing import TYPE_CHECKING

import click

from replicator.cli.output import (
    BAD,
    EXIT_ERROR,
    EXIT_NOT_PROVEN,
    GOOD,
    WARN,
    count,
    note,
    say,
    seconds,
    show_error,
    show_table,
)
from replicator.errors import ReplicatorError
from replicator.model import Backfill, BackfillState

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.app.backfills import Backfills
    from replicator.audit import Audited, AuditReport, OnUnequal, TableReport
    from replicator.backfill import Progress, Wish
    from replicator.model import Direction, LinkName

_LINE_SECONDS = 10.0
"""Between two lines about the same backfill, where nobody sees a bar."""


# --- watching ---


class Board:
    """Shows backfills as they go on, on standard error: a bar each on a terminal, else a line now and then, and at the end."""

    def __init__(self) -> None:
        self._told: dict[tuple[LinkName, int], tuple[float, BackfillState]] = {}

    @contextmanager
    def shown(self, *, hidden: bool) -> Iterator[Board]:
        """While they are watched."""
        if hidden or not sys.stderr.isatty():
            yield _Silent() if hidden else self
            return
        with _bars() as board:
            yield board

    def show(self, progress: Sequence[Progress]) -> None:
        """The state of all of them now."""
        now = time.monotonic()
        for each in progress:
            name = (each.backfill.link, each.backfill.id)
            at, state = self._told.get(name, (-_LINE_SECONDS, BackfillState.WAITING))
            if each.backfill.state is not state or (each.backfill.rows and now - at >= _LINE_SECONDS):
                self._told[name] = now, each.backfill.state
                note(f"{title(each.backfill)}: {each.backfill.state}, {told(each)}")


class _Silent(Board):
    def show(self, progress: Sequence[Progress]) -> None:
        """Nothing."""


@contextmanager
def _bars() -> Iterator[Board]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn
    from rich.progress import Progress as Bars

    from replicator.backfill import total

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[told]}"))
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

        class OnTerminal(Board):
            tasks: dict[str, TaskID] = {}  # noqa: RUF012 - one board a process

            def show(self, progress: Sequence[Progress]) -> None:
                whole = total(progress) if len(progress) > 1 else None
                rows = [(title(each.backfill), each) for each in progress]
                for name, each in [*rows, *([("total", whole)] if whole else ())]:
                    if name not in self.tasks:
                        self.tasks[name] = bars.add_task(name, total=None, told="")
                    known = each.expected or (1 if each.backfill.state is BackfillState.DONE else None)
                    done = known if each.backfill.state is BackfillState.DONE else each.backfill.rows
                    bars.update(self.tasks[name], completed=done, total=known, told=told(each))

        yield OnTerminal()


def title(backfill: Backfill) -> str:
    """A backfill by its link and table."""
    return f"{backfill.link} {backfill.table}{' (single rows)' if backfill.keyed else ''}"


def told(progress: Progress) -> str:
    """How far it is, how fast it goes, and how long it will take."""
    backfill = progress.backfill
    parts = [count(backfill.rows, "row")]
    if backfill.state is not BackfillState.DONE and progress.expected:
        share = min(100 * backfill.rows // progress.expected, 99)
        parts = [f"{backfill.rows:,} of about {progress.expected:,} rows ({share} %)"]
    if backfill.state is BackfillState.PAUSED:
        return f"{parts[0]}, paused"
    if progress.rate is not None:
        parts.append(f"{progress.rate:,.0f} rows/s")
    if progress.left is not None:
        parts.append(f"{seconds(progress.left)} left")
    return ", ".join(parts)


def bring(backfills: Backfills, wishes: Sequence[Wish], *, chunk_rows: int, rate: int, hidden: bool) -> list[Backfill]:
    """Order what is wished, in its turns, and see each to its end; how they ended."""
    from replicator.backfill import in_turns

    ended: list[Backfill] = []
    for turn in in_turns(wishes, backfills.unfinished()):
        placed = backfills.order(turn, chunk_rows=chunk_rows, rate=rate)
        for each in placed:
            if each.known:
                state = "is paused" if each.backfill.state is BackfillState.PAUSED else "goes on as ordered before"
                note(f"{title(each.backfill)}: {state}, {count(each.backfill.rows, 'row')} so far")
        ended += carry_out(backfills, [each.backfill for each in placed], hidden=hidden)
        if any(each.state is not BackfillState.DONE for each in ended):
            break
    return ended


def carry_out(backfills: Backfills, orders: Sequence[Backfill], *, hidden: bool) -> list[Backfill]:
    """Move the links and watch these orders to their end; how they ended. Ctrl-C leaves them as they are."""
    from replicator.backfill import Meter

    found: list[Backfill] = list(orders)
    meter = Meter()
    with Board().shown(hidden=hidden) as board:
        backfills.start()
        for found in backfills.watch((each.link, each.id) for each in orders):
            board.show(meter.look(found))
    return found


# --- proof ---


def chosen_tables(app: App, site: str, tables: Sequence[str], direction: Direction | None = None) -> list[Audited]:
    """What is to be audited of a site. Raises as ``App.audited``."""
    from replicator.backfill import means

    wanted = [each for each in app.audited(site) if means(tables, each.plan)]
    if direction is None:
        return wanted
    return [each for each in wanted if (each.rising if direction.rises else each.falling) is not None]


def audit(app: App, site: str, tables: Sequence[Audited], on_unequal: OnUnequal | None = None) -> Iterator[TableReport]:
    """Reports on a site's tables; a site that does not answer is one report that proves nothing."""
    from replicator.audit import Limits, TableReport

    try:
        yield from app.audit(site, tables, Limits(), on_unequal)
    except ReplicatorError as error:
        yield TableReport(site, "all tables", "centre", reason=str(error))


def new_report(app: App) -> AuditReport:
    """An audit's report with no table yet."""
    from replicator.audit import AuditReport
    from replicator.canonical import FORMS_VERSION

    return AuditReport(app.settings.topology, FORMS_VERSION)


def show_reports(report: AuditReport) -> None:
    """The tables, then the verdict."""
    from replicator.audit import table_lines, to_lines

    style = {"equal": GOOD, "different": BAD}
    for table in report.tables:
        first, *lines = table_lines(table)
        say(first, style.get(str(table.verdict), WARN))
        for line in lines:
            say(line)
    *_, verdict = to_lines(report)
    say(verdict, style.get(str(report.verdict), WARN))


def exit_code(ended: Sequence[Backfill], failed: Mapping[LinkName, ReplicatorError], report: AuditReport | None) -> int:
    """3 when a link failed, 2 when rows were left unbrought, else what the audit says (0 without one)."""
    if failed:
        return EXIT_ERROR
    if any(each.state is not BackfillState.DONE for each in ended):
        return max(EXIT_NOT_PROVEN, report.exit_code if report else 0)
    return report.exit_code if report else 0


# --- results ---


def show_backfills(found: Sequence[Backfill], now_us: int) -> None:
    """A table of backfills."""
    from replicator.backfill import Progress, average

    head = ("link", "table", "id", "state", "rows", "of about", "differed", "rate", "prefer")
    rows, styles = [], []
    for each in found:
        rate = average(each, now_us)
        known = Progress(each).expected
        rows.append((
            str(each.link), f"{each.table}{' (single rows)' if each.keyed else ''}", str(each.id), str(each.state),
            f"{each.rows:,}", f"{known:,}" if known else "–", f"{each.differing:,}",
            "–" if rate is None else f"{rate:,.0f}/s", str(each.prefer),
        ))  # fmt: skip
        styles.append(GOOD if each.state is BackfillState.DONE else WARN if each.state is BackfillState.PAUSED else "")
    show_table(head, rows, styles)


def document(backfill: Backfill, now_us: int) -> dict[str, object]:
    """A backfill for ``--json``."""
    from replicator.backfill import average

    known = asdict(backfill)
    del known["link"], known["behind"]
    known["table"] = str(backfill.table)
    rate = average(backfill, now_us)
    return {
        "link": str(backfill.link), "site": backfill.link.site, "direction": backfill.link.direction, **known,
        "rows_per_second": None if rate is None else round(rate, 1),
    }  # fmt: skip


def show_failed(failed: Mapping[LinkName, ReplicatorError]) -> None:
    """What failed, each with its next step."""
    for link, error in failed.items():
        show_error(f"{link}: {error.message}", error.hint)


def failed_document(failed: Mapping[LinkName, ReplicatorError]) -> dict[str, dict[str, str]]:
    """The same for ``--json``."""
    return {str(link): {"error": error.message, "hint": error.hint} for link, error in failed.items()}


def show_left(ended: Sequence[Backfill], flag: str) -> None:
    """What was not brought to its end, and the command that goes on with it."""
    paused = [each for each in ended if each.state is BackfillState.PAUSED]
    cancelled = [each for each in ended if each.state is BackfillState.CANCELLED]
    if paused:
        say(f"{count(len(paused), 'backfill')} paused; go on: replicator backfill continue{flag}", WARN)
    if cancelled:
        say(f"{count(len(cancelled), 'backfill')} cancelled: what was brought stays", WARN)


def resync_hints(report: AuditReport, flag: str, but: Collection[str] = ()) -> Iterator[str]:
    """The commands that mend what an audit found different, site by site; ``but``: sites it cannot be done at."""
    by_site: dict[str, list[str]] = {}
    for table in report.tables:
        if table.wrong and table.site not in but:
            by_site.setdefault(table.site, []).append(table.source)
    for site, tables in by_site.items():
        yield f"mend these rows: replicator resync {' '.join(map(quote, tables))} --site {quote(site)}{flag}"


def difference_lines(report: AuditReport) -> Iterator[str]:
    """The tables that differ, and how."""
    for table in report.tables:
        if table.wrong:
            parts = [
                f"{count(number, 'row')} {what}"
                for number, what in (
                    (table.only_centre, "only the centre has"), (table.only_site, "only the site has"),
                    (table.differing, "that differ" if table.differing != 1 else "that differs"),
                )
                if number
            ]  # fmt: skip
            yield f"{table.site} {table.source}: {', '.join(parts)}"


class Interrupted:
    """Ends a command on Ctrl-C or SIGTERM between two batches, and says that nothing is lost."""

    def __init__(self, backfills: Backfills, flag: str) -> None:
        self._backfills, self._flag = backfills, flag

    def __enter__(self) -> None:
        """From here on."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let the links go; the interruption goes on."""
        if kind is KeyboardInterrupt:
            click.echo("finishing the batch in hand (Ctrl-C again: stop at once, also safe)", err=True)
        self._backfills.close()
        if kind is KeyboardInterrupt:
            served = " (the service goes on with it now)" if self._backfills.served else ""
            note(
                f"the order stays{served}; go on: the same command again; end it: replicator backfill cancel{self._flag}"
            )
