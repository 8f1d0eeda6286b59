"""Looks at every database before anything is changed: connections, rights, versions, settings, keys, types, clocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from replicator.errors import ReplicatorError, RetryableError, SettingsError
from replicator.model import CentralTable, Finding, TablePlan
from replicator.ports import Installable
from replicator.reasons import moment, span

_AT_ONCE = 8
_SKEW_SECONDS = 1.0
FAR_AHEAD_US = 60_000_000
"""From where on a hybrid clock is told to be ahead; less comes of clocks that are merely not set."""

Open = Callable[[str], Installable]


@dataclass(slots=True)
class Report:
    """Findings by place, in the order of the places; rules that do not fit their tables under their own place."""

    findings: dict[str, list[Finding]] = field(default_factory=dict)

    @property
    def problems(self) -> int:
        """Findings that keep the replicator from working."""
        return sum(is_problem(each) for found in self.findings.values() for each in found)

    @property
    def warnings(self) -> int:
        """Findings worth knowing."""
        return sum(not each.ok and each.warning for found in self.findings.values() for each in found)

    def in_order(self, places: Sequence[str]) -> dict[str, list[Finding]]:
        """The findings, ``places`` first and in their order; of a place the problems first, what follows from them behind."""
        wanted = (*(place for place in places if place in self.findings), *self.findings)
        return {place: sorted(self.findings[place], key=lambda each: not is_problem(each)) for place in wanted}

    def add(self, place: str, findings: Sequence[Finding]) -> None:
        """Put findings under a place."""
        if findings:
            self.findings.setdefault(place, []).extend(findings)


def is_problem(finding: Finding) -> bool:
    """Whether the finding has to be mended first."""
    return not finding.ok and not finding.warning


def lacks_rights(found: Iterable[Finding]) -> bool:
    """Whether what is installed cannot be read; then the finding says which rights are missing."""
    return any(is_problem(each) and each.subject == "rights" for each in found)


def finding_of(place: str, subject: str, error: ReplicatorError) -> Finding:
    """An error as a finding. ``subject``: what was looked at; a database that is away is one of connection."""
    if isinstance(error, RetryableError):
        return Finding(place, "connection", False, error.message, error.hint or "start the server, or correct the url")
    return Finding(place, subject, False, error.message, error.hint)


@dataclass(frozen=True, slots=True)
class Looks:
    """What one place is looked at for: the plans of what it sends, and of what it receives. None: it does neither."""

    sends: Sequence[TablePlan] | None
    receives: Sequence[TablePlan] | None
    captured: Sequence[CentralTable] = ()
    """The centre's own tables whose changes go to sites."""
    topology: str = ""


def check_places(places: Mapping[str, Looks], opened: Open) -> Report:
    """Check every place in its roles, several at a time. A dead one is a finding, not the end."""

    def check(place: str) -> list[Finding]:
        looks = places[place]
        found: list[Finding] = []
        try:
            with closing(opened(place)) as database:
                if looks.sends is not None:
                    found += database.check(looks.sends, as_source=True)
                if looks.receives is not None:
                    found += database.check(looks.receives, as_source=False)
                if looks.captured and not lacks_rights(found):
                    found += database.check_central(looks.topology, looks.receives or (), looks.captured)
                if looks.captured and not any(is_problem(each) for each in found):
                    found += database.check_captured(looks.captured)
            return list(dict.fromkeys(found))
        except ReplicatorError as error:
            return [finding_of(place, "access", error)]

    report = Report()
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for place, findings in zip(places, pool.map(check, places), strict=True):
            report.add(place, findings)
    return report


def check_rules(compile_rules: Callable[[], Sequence[str]]) -> list[Finding]:
    """Whether rules and tables fit: the error as a problem with its fix, what was passed over as notes."""
    try:
        notes = compile_rules()
    except SettingsError as error:
        return [finding_of("topology", "rules", error)]
    except ReplicatorError as error:
        return [finding_of("topology", "tables", error)]
    return [Finding("topology", "note", True, text) for text in notes]


def check_clocks(places: Sequence[str], centre: str, opened: Open) -> Iterator[Finding]:
    """How far each site's clock is from the centre's. Places that do not answer are left out: they have their finding."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        offsets = dict(zip(places, pool.map(lambda place: _offset(opened, place), places), strict=True))
    base = offsets.get(centre)
    if base is None:
        return
    for place, offset in offsets.items():
        if place == centre or offset is None:
            continue
        skew = offset - base
        good = abs(skew) < _SKEW_SECONDS
        message = f"{skew:+.3f} s from the centre's"
        fix = (
            "" if good else "let both machines follow a time server (NTP); changes keep their order per row regardless"
        )
        yield Finding(place, "clock", good, message, fix, warning=not good)


def check_hybrids(places: Sequence[str], opened: Open) -> Iterator[Finding]:
    """Places whose hybrid clock is far ahead of their wall clock. Those that do not answer are left out, as above."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        found = dict(zip(places, pool.map(lambda place: _ahead(opened, place), places), strict=True))
    for place, (ahead, until) in found.items():
        if ahead > FAR_AHEAD_US:
            yield Finding(
                place, "hybrid clock", False,
                f"{span(ahead)} ahead of the wall clock, at {moment(until)}: a change came from a clock that ran ahead; until "
                "then all that is written here counts as equally late, and as later than what places with right clocks write",
                "set that clock right (NTP); this heals by itself when the wall clock catches up", warning=True,
            )  # fmt: skip


def _ahead(opened: Open, place: str) -> tuple[int, int]:
    """How far the place's hybrid clock is ahead of its wall clock, and where it stands, in microseconds."""
    try:
        with closing(opened(place)) as database:
            seen = database.read_seen()
            return seen - database.read_clock(), seen
    except ReplicatorError:
        return 0, 0


def _offset(opened: Open, place: str) -> float | None:
    """Seconds the place's clock is ahead of this machine's, half the round trip taken off."""
    try:
        with closing(opened(place)) as database:
            database.read_clock()  # the first call pays for the connection
            before = time.time()
            clock = database.read_clock()
            after = time.time()
    except ReplicatorError:
        return None
    return clock / 1e6 - (before + after) / 2
