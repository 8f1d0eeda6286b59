"""Plays one history on a world: applications write, links move batches, and things go wrong; then everything is let run out."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from replicator.app.rejoins import begin_centre, rejoining
from replicator.errors import BatchError, ReplicatorError, RetryableError
from replicator.model import Direction, Prefer
from replicator.pipeline import heal, run_once
from replicator.rejoin import PreferPlace, rejoin
from replicator.settings import CENTRE
from replicator.simulate.application import Application
from replicator.simulate.checks import Checks, Finding, note_parked
from replicator.simulate.faults import CrashError, Gaps, faulty_source, faulty_target
from replicator.simulate.steps import (
    DAY,
    SECOND,
    Backfill,
    Backup,
    Cut,
    Heal,
    Jump,
    Move,
    Restart,
    Restore,
    Step,
    Write,
)
from replicator.simulate.trace import Trace
from replicator.simulate.world import World
from replicator.worker import Ends

_BEGIN = 2_208_988_800 * SECOND
"""2040: later than any wall clock, so that the machine's own time never shows in a history."""
_ROUNDS = 60
_QUEUES = 1_000
_TRIES = 5
_LATE = 1_000_000

Link = tuple[str, bool]


@dataclass(slots=True)
class Counts:
    """What happened in a history, so that one sees that it was about something."""

    writes: int = 0
    refused: int = 0
    batches: int = 0
    crashes: int = 0
    conflicts: int = 0
    parked: int = 0
    backfills: int = 0
    restores: int = 0
    noticed: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A history that did not end as it must. ``kind`` is compared when a history is shrunk; ``step`` 0: at the end."""

    kind: str
    step: int
    findings: tuple[Finding, ...]


class FailedError(Exception):
    """A history went wrong."""

    def __init__(self, kind: str, findings: Sequence[Finding]) -> None:
        super().__init__(kind)
        self.kind, self.findings = kind, tuple(findings)


@dataclass(slots=True)
class _State:
    """What a history remembers of its misfortunes."""

    offsets: dict[str, float] = field(default_factory=dict)
    cut: dict[Link, int] = field(default_factory=dict)
    tried: dict[Link, int] = field(default_factory=dict)
    copied: dict[str, int] = field(default_factory=dict)
    restored: set[str] = field(default_factory=set)


class Player:
    """Plays histories on one world, each on fresh databases.

    Args:
        world: where.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.counts = Counts()

    def play(self, steps: Sequence[Step]) -> Failure | None:
        """One history from the start; what went wrong, or None."""
        self._world.reset()
        self._state, self._trace, self._ends = _State(), Trace(), dict[Link, Ends]()
        self._application = Application(self._world.schema, self._world.places, self._trace)
        self._step = 0
        try:
            for step in steps:
                self._step = step.number
                self._do(step)
            self._step = 0
            self._run_out()
            self._check()
        except FailedError as failed:
            return Failure(failed.kind, self._step, failed.findings)
        except ReplicatorError as error:
            return Failure(f"unexpected {type(error).__name__}", self._step, (_told(error),))
        except Exception as error:
            return Failure(f"bug: {type(error).__name__}", self._step, (_told(error),))
        finally:
            self.counts.refused += self._application.refused
            self._close()
        return None

    def _close(self) -> None:
        for link in list(self._ends):
            self._hang_up(link)
        for place in self._world.places.values():
            place.close()

    # --- steps ---

    def _do(self, step: Step) -> None:
        match step:
            case Write():
                self._write(step)
            case Move():
                self._move(step)
            case Cut():
                self._state.cut[step.site, step.rises] = step.number + step.steps
            case Jump():
                self._state.offsets[step.place] = step.days
            case Restart():
                self._hang_up((step.site, True))
                self._hang_up((step.site, False))
            case Heal():
                self._heal((step.site, step.rises))
            case Backfill():
                self._order(step)
            case Backup() | Restore():
                self._replace(step)

    def _write(self, step: Write) -> None:
        offset = int(self._state.offsets.get(step.place, 0.0) * DAY)
        self.counts.writes += 1
        self._application.write(step, _BEGIN + 1_000 * DAY + step.number * SECOND + offset)

    def _move(self, step: Move) -> None:
        link = (step.site, step.rises)
        if self._is_away(link, step.number):
            return
        if step.fault == "reread":
            self._read(link, step.limit)
        crash_at = step.at + 1 if step.fault == "crash" else 0
        acknowledgements = {"lost": 0, "twice": 2}.get(step.fault, 1)
        self._move_batch(link, step.limit, Gaps(crash_at), acknowledgements)

    def _is_away(self, link: Link, number: int) -> bool:
        return number < self._state.cut.get(link, 0)

    def _move_batch(self, link: Link, limit: int, gaps: Gaps, acknowledgements: int = 1) -> bool:
        """One batch; whether there was one."""
        try:
            ends = self._connected(link)
            source = faulty_source(ends.source, gaps, acknowledgements)
            outcome = run_once(source, faulty_target(ends.target, gaps), limit)
        except CrashError:
            self.counts.crashes += 1
            self._hang_up(link)
            return True
        except RetryableError as error:
            self._hang_up(link)
            self._try_again(link, error)
            return True
        except BatchError as error:
            self._notice(link, error)
            return True
        if outcome is None:
            return False
        self._state.tried.pop(link, None)
        self.counts.batches += 1
        self.counts.conflicts += outcome.conflicts
        self.counts.parked += outcome.parked
        if outcome.parked:
            note_parked(self._trace, self._world.schema, *link, ends.target.list_parked())
        return True

    def _try_again(self, link: Link, error: RetryableError) -> None:
        """Trying again is the answer, but not for ever."""
        self._state.tried[link] = self._state.tried.get(link, 0) + 1
        if self._state.tried[link] > _TRIES:
            raise error

    def _read(self, link: Link, limit: int) -> None:
        """Read a batch and drop it."""
        try:
            ends = self._connected(link)
            with ends.source.read_batch(ends.target.read_position(), limit) as batch:
                if batch is not None:
                    for block in batch.blocks():
                        list(getattr(block, "chunks", ()))
        except BatchError as error:
            self._notice(link, error)

    def _notice(self, link: Link, error: BatchError) -> None:
        """A link refuses to go on: right where a database was replaced, wrong for all others. Then it is mended."""
        centre = CENTRE in self._state.restored
        sites = self._world.sites if centre else (link[0],)
        if not centre and link[0] not in self._state.restored:
            raise error
        self.counts.noticed += 1
        self._state.restored -= {CENTRE, *sites}
        if centre:
            begin_centre(self._world.app)
        for site in sites:
            self._rejoin(site)

    def _rejoin(self, site: str) -> None:
        """As ``replicator rejoin`` does it."""
        self._hang_up((site, True))
        self._hang_up((site, False))
        joining = rejoining(self._world.app, site, lambda text: None)
        rejoin(
            replace(joining, drain=lambda link: self._drain((site, link.direction.rises))),
            PreferPlace.POLICY,
            copy=False,
        )
        self._hang_up((site, True))
        self._hang_up((site, False))

    def _heal(self, link: Link) -> int:
        if self._is_away(link, self._step or _LATE):
            return 0
        try:
            return heal(self._connected(link).target, _QUEUES).healed
        except RetryableError as error:
            self._hang_up(link)
            self._try_again(link, error)
            return 1
        except BatchError as error:
            self._notice(link, error)
            return 1

    def _order(self, step: Backfill) -> None:
        """Order a backfill at its link's target; what is away cannot be asked."""
        link, table = (step.site, step.rises), self._world.schema.tables[step.table]
        if self._is_away(link, step.number):
            return
        plan = (table.up if step.rises else table.down)[step.site]
        place = step.site if step.rises else CENTRE
        keys = [self._application.source_key(table, place, row) for row in step.rows] or None
        try:
            self._connected(link).target.order_backfill(
                plan.source.name, keys=keys, prefer=Prefer(step.prefer), chunk_rows=step.chunk, reason="simulated"
            )
        except RetryableError as error:
            self._hang_up(link)
            self._try_again(link, error)
        except BatchError as error:
            self._notice(link, error)
        else:
            self.counts.backfills += 1
            self._trace.preferred |= {step.table} if step.prefer == Prefer.SOURCE else set()

    def _replace(self, step: Backup | Restore) -> None:
        """Copy a place's database, or put the copy in its place: with the application and the replicator stopped."""
        place = self._world.places[step.site]
        for site in self._world.sites if step.site == CENTRE else (step.site,):
            self._hang_up((site, True))
            self._hang_up((site, False))
        if isinstance(step, Backup):
            place.back_up()
            self._state.copied[step.site] = step.number
            return
        if step.site not in self._state.copied:
            return
        place.restore()
        self.counts.restores += 1
        self._state.restored.add(step.site)
        for lost in (CENTRE, *self._world.sites) if step.site == CENTRE else (step.site,):
            self._trace.excused.setdefault(lost, self._state.copied[step.site])

    # --- links ---

    def _connected(self, link: Link) -> Ends:
        found = self._ends.get(link)
        if found is None:
            site, rises = link
            found = self._world.app.connect(site, Direction.TO_CENTRE if rises else Direction.FROM_CENTRE)
            self._ends[link] = found
            skew = (self._state.offsets.get(site, 0.0) - self._state.offsets.get(CENTRE, 0.0)) * (1 if rises else -1)
            identity = found.source.read_identity()
            found.target.take_lease()
            position, stamp = found.target.read_position(), found.target.read_stamp()
            proven = found.source.prove_history(position, stamp, found.target.read_identity())
            found.target.record_contact(identity, int(skew * DAY), proven=proven)
        return found

    def _hang_up(self, link: Link) -> None:
        """Close both ends. What a crash leaves open is closed here as the system would close it: nothing commits any more."""
        ends = self._ends.pop(link, None)
        if ends is not None:
            ends.close()

    def _links(self) -> list[Link]:
        return [(site, known.direction.rises) for site in self._world.sites for known in self._world.app.links(site)]

    def _run_out(self) -> None:
        """All links up, nobody writes, until nothing moves."""
        self._state.cut.clear()
        for _ in range(_ROUNDS):
            moved = 0
            for link in self._links():
                moved += self._drain(link)
                moved += self._heal(link)
            if not moved:
                return
        raise FailedError("does not come to rest", [Finding(f"after {_ROUNDS} rounds over all links rows still move")])

    def _drain(self, link: Link) -> int:
        moved = 0
        while self._move_batch(link, 1000, Gaps()):
            moved += 1
            if moved > _ROUNDS:
                raise FailedError(
                    "does not come to rest", [Finding(f"link of {link[0]}: {moved} batches and more to come")]
                )
        return moved

    # --- the end ---

    def _check(self) -> None:
        sites = self._world.sites
        targets = {link: self._connected(link).target for link in self._links()}
        checks = Checks(self._world, sites, targets, self._trace, self._application)
        findings = checks.differences(allow_parked=True)
        if findings:
            raise FailedError("replicas differ", findings)
        for round_ in range(checks.mending_rounds):
            if not checks.mend(round_, _BEGIN + 2_000 * DAY):
                break
            self._run_out()
        if findings := checks.still_parked():
            raise FailedError("parked without a cause", findings)
        if findings := checks.differences(allow_parked=False):
            raise FailedError("replicas differ after what was parked is mended", findings)
        if findings := checks.vanished():
            raise FailedError("a write vanished", findings)
        if findings := checks.undone():
            raise FailedError("a write was undone", findings)


def _told(error: Exception) -> Finding:
    """An error with the end of where it came from."""
    lines = traceback.format_exception(error)
    return Finding(str(error), "".join(lines[-6:]))
