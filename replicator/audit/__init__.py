"""The checksum audit: are the rows of a site and the centre equal, and if not, which rows and columns are not.

Both databases digest their rows by themselves; only unequal buckets are looked into, only unequal rows are fetched. What
``equal`` claims: every row that nobody wrote while the audit ran is the same on both sides, in every compared column; a row
written meanwhile was compared in one of its states or is left to the next audit. ``different`` is said of a row only when
it differs at one position of the stream (see ``settle``). A form is trusted only after its test vector gave the same hashes
on both sides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from replicator.audit.compare import Digests, Finder
from replicator.audit.report import (
    EXIT_CODES,
    EXIT_ERROR,
    SCHEMA,
    AuditReport,
    AuditVerdict,
    ColumnDifference,
    Kind,
    RowDifference,
    TableReport,
    table_lines,
    to_json,
    to_lines,
)
from replicator.audit.settle import LOT, Judged, ParkedKeys, Settler, Watch, Watches
from replicator.audit.sides import Audited, Sides, difference, not_compared, sides_of
from replicator.errors import ReplicatorError
from replicator.model import Key, TableName, TablePlan
from replicator.ports import Auditable

__all__ = [
    "EXIT_CODES", "EXIT_ERROR", "SCHEMA", "Audit", "AuditReport", "AuditVerdict", "Audited", "ColumnDifference", "Kind",
    "Limits", "OnUnequal", "ParkedKeys", "RowDifference", "TableReport", "Unequal", "Watch", "table_lines", "to_json",
    "to_lines",
]  # fmt: skip

OnDifference = Callable[[TableReport, RowDifference], None]


@dataclass(frozen=True, slots=True)
class Unequal:
    """A row that differs for good, as it can be asked for again: its key as the source of each of the table's links spells it.

    ``rising``: the link to the centre; ``falling``: the one from it. ``None`` where the table has no such link.
    """

    kind: Kind
    parked: bool
    rising: Key | None
    falling: Key | None


OnUnequal = Callable[[Audited, Unequal], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one audit.

    ``listed``: differing rows kept in a table's report (their count stays exact). ``rounds`` and ``seconds``: how often, and
    until when, keys in flight are looked at again, per table. ``waiting``: keys kept for that; more are in flight at once.
    """

    listed: int = 100
    rounds: int = 6
    seconds: float = 10.0
    waiting: int = 20_000
    first_pause: float = 0.05


class Audit:
    """Audits the tables of one site. Read only on both sides.

    Args:
        site: the site's name, for the report.
        source: the site's database.
        target: the centre's database.
        watch: what is in flight to the centre, and parked there; needed for tables whose changes go there.
        limits: bounds.
        shared: target tables that other sites write too without key constants: their extra rows are not judged.
        falling: what is in flight from the centre, and parked at the site; needed for tables whose changes come from there.
        on_difference: called with every differing row, listed or not.
        on_unequal: the same, with what is needed to bring the row anew.
        pause: waits between two looks at keys in flight.
        clock: seconds, growing.
    """

    def __init__(
        self,
        site: str,
        source: Auditable,
        target: Auditable,
        watch: Watch | None,
        *,
        falling: Watch | None = None,
        limits: Limits | None = None,
        shared: Collection[TableName] = (),
        on_difference: OnDifference | None = None,
        on_unequal: OnUnequal | None = None,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site, self._source, self._target, self._rising, self._falling = site, source, target, watch, falling
        self._limits = limits or Limits()
        self._shared, self._on_difference, self._pause, self._clock = shared, on_difference, pause, clock
        self._on_unequal = on_unequal
        self._proven: dict[str, str] = {}

    def run(self, plans: Iterable[TablePlan | Audited]) -> Iterator[TableReport]:
        """A report per table, as each is done. A table that cannot be audited is not proven, and the next goes on."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"audit-{self._site}") as threads:
            for plan in plans:
                yield self._audit(plan if isinstance(plan, Audited) else Audited(plan), threads)

    def _audit(self, audited: Audited, threads: Executor) -> TableReport:
        plan = audited.plan
        report = TableReport(
            self._site,
            str(plan.source.name),
            str(plan.target),
            not_compared=not_compared(plan),
            direction=plan.direction,
        )
        report.began_at = datetime.now(UTC).isoformat(timespec="seconds")
        began = self._clock()
        try:
            watches = self._watches(audited)
            report.position_before = watches.position_text()
            self._compare(audited, watches, report, threads)
            report.position_after = watches.position_text()
        except (ReplicatorError, ValueError) as error:
            report.verdict, report.reason = AuditVerdict.NOT_PROVEN, str(error)
        report.seconds = round(self._clock() - began, 3)
        return report

    def _watches(self, audited: Audited) -> Watches:
        links = ((audited.rising, self._rising), (audited.falling, self._falling))
        for plan, watch in links:
            if plan is not None and watch is None:
                raise ValueError(f"nothing tells what is in flight for {plan.source.name}")
        return Watches(*(watch if plan is not None else None for plan, watch in links))

    def _compare(self, audited: Audited, watches: Watches, report: TableReport, threads: Executor) -> None:
        sides = sides_of(audited)
        plan = sides.plan
        if reason := self._distrust(sides):
            report.reason = reason
            return
        finder = Finder(sides, self._source, self._target, threads)
        digests = finder.digest()
        _count(report, digests)
        shared = plan.target in self._shared and not plan.constants and audited.falling is None
        if shared:
            report.notes.append("rows that only the centre has are not judged: other sites write this table too")
        settler = Settler(sides, self._source, self._target, watches, shared=shared)
        waiting: list[str] = []
        for keys in finder.candidates(digests):
            self._note(report, sides, settler, settler.look(keys), waiting)
        self._settle(report, sides, settler, waiting)
        _conclude(report)

    def _settle(self, report: TableReport, sides: Sides, settler: Settler, waiting: list[str]) -> None:
        """Look at waiting keys again, in ever smaller lots, until none is left or time is up."""
        deadline = self._clock() + self._limits.seconds
        pause = self._limits.first_pause
        lot = LOT
        for _ in range(self._limits.rounds):
            if not waiting or self._clock() >= deadline:
                break
            self._pause(pause)
            pause, lot = min(2 * pause, 1.0), max(lot // 8, 1)
            keys, waiting = waiting, []
            while keys and self._clock() < deadline:
                part, keys = keys[:LOT], keys[LOT:]
                self._note(report, sides, settler, settler.look(part, lot=lot), waiting)
            waiting += keys
        report.in_flight += len(waiting)

    def _note(
        self, report: TableReport, sides: Sides, settler: Settler, found: Iterable[Judged | str], waiting: list[str]
    ) -> None:
        for each in found:
            if isinstance(each, Judged):
                row = difference(sides, each.key, each.source, each.target, parked=each.parked)
                _add(report, row, self._limits.listed)
                if self._on_difference:
                    self._on_difference(report, row)
                if self._on_unequal:
                    rising, falling = (
                        None if plan is None else settler.key_for(each, rises=rises)
                        for rises, plan in ((True, sides.audited.rising), (False, sides.audited.falling))
                    )
                    self._on_unequal(sides.audited, Unequal(row.kind, row.parked, rising, falling))
            elif len(waiting) < self._limits.waiting:
                waiting.append(each)
            else:
                report.in_flight += 1

    def _distrust(self, sides: Sides) -> str:
        """Why the two sides' hashes cannot be compared; empty when every form's test vector is hashed alike."""
        for form in dict.fromkeys(sides.forms):
            if form not in self._proven:
                self._proven[form] = _tell(form, self._source.prove_form(form), self._target.prove_form(form))
        return next((self._proven[form] for form in sides.forms if self._proven[form]), "")


def _tell(form: str, source: Sequence[int], target: Sequence[int]) -> str:
    if list(source) != list(target):
        return f"self-test failed: both sides must hash the test values of form {form} alike, and do not"
    if len(set(source)) != len(source):
        return f"self-test failed: two different test values of form {form} have one hash"
    return ""


def _count(report: TableReport, digests: Digests) -> None:
    report.rows_source, report.rows_target = digests.rows
    report.buckets, report.unequal_buckets = digests.buckets, len(digests.unequal)


def _add(report: TableReport, row: RowDifference, listed: int) -> None:
    if row.parked:
        report.parked += 1
    elif row.kind in (Kind.MISSING, Kind.MISSING_AT_SITE):
        report.missing += 1
    elif row.kind in (Kind.EXTRA, Kind.EXTRA_AT_SITE):
        report.extra += 1
    else:
        report.differing += 1
    if len(report.differences) < listed:
        report.differences.append(row)
    else:
        report.cut = True


def _conclude(report: TableReport) -> None:
    report.compared = max(report.rows_source - report.in_flight, 0)
    if report.wrong or report.parked:
        report.verdict = AuditVerdict.DIFFERENT
        if not report.wrong:
            report.reason = "rows differ only where changes are parked: replicator parked list"
    elif report.in_flight:
        report.reason = "rows still in flight: audit again when the link has caught up"
    else:
        report.verdict = AuditVerdict.EQUAL
