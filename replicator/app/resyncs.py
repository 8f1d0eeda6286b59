"""Mends what an audit found different: the keys of those rows, kept on disk, become backfills of just these rows.

Whose row stands: of a table that goes one way, its source's; of one that goes both ways, the site's where the centre's was last
written by this very site (it missed a change), else what its policy says, and a row only one side has comes to the other. A
direction makes that link's source the one that stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.audit import Audited, Kind, Unequal
from replicator.backfill import Spool, Wish, require_side
from replicator.model import Direction, LinkName, Prefer, TablePlan
from replicator.settings import CENTRE

if TYPE_CHECKING:
    from replicator.app.topology import App

_NOT_AT_SITE = (Kind.EXTRA, Kind.MISSING_AT_SITE)
_NOT_AT_CENTRE = (Kind.MISSING, Kind.EXTRA_AT_SITE)


@dataclass(slots=True)
class Mending:
    """What is to be done about one table. ``stays``: rows no backfill can mend, because of parked changes or a key twice.

    ``brought``: rows of the source that come (again); ``removed``: rows that only the target has and that go there, ``kept``:
    those that stay there because its rows are the ones that stand. ``target``: where that is.
    """

    site: str
    audited: Audited
    decision: str
    brought: int = 0
    removed: int = 0
    kept: int = 0
    stays: int = 0
    target: str = ""

    @property
    def table(self) -> str:
        """As the site calls it."""
        return str(self.audited.plan.source.name)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Keys that become one backfill."""

    link: LinkName
    plan: TablePlan
    prefer: Prefer
    gone: bool
    keys: Spool = field(default_factory=Spool)


class Resync:
    """What the audits of a resync found, site by site, and the orders that mend it.

    Args:
        app: the topology.
        direction: whose source stands, where a table goes both ways.
        prefer: instead of the rule above.
    """

    def __init__(self, app: App, direction: Direction | None = None, prefer: Prefer | None = None) -> None:
        self._app, self._direction, self._prefer = app, direction, prefer
        self._stretches: dict[tuple[LinkName, object, bool], _Stretch] = {}
        self._mendings: dict[tuple[str, object], Mending] = {}

    def check(self, audited: Audited) -> None:
        """Raises SetupError where the preference could mean either side."""
        if self._both(audited):
            require_side(audited.plan.source.name, self._prefer or Prefer.OWN)

    def whole(self, site: str, audited: Audited) -> Iterator[Wish]:
        """Orders for every row of a table."""
        for plan, way in ((audited.rising, Direction.TO_CENTRE), (audited.falling, Direction.FROM_CENTRE)):
            if plan is not None and (self._both(audited) or self._rises(audited, Kind.DIFFERS) is way.rises):
                turn = (1 if way.rises else 2) if self._both(audited) else 0
                yield Wish(
                    self._app.link(site, way),
                    plan.source.name,
                    self._standing(audited),
                    reason="resync --full",
                    turn=turn,
                )

    def note(self, site: str, audited: Audited, row: Unequal) -> None:
        """A row that differs: its key goes to the backfill that will mend it."""
        name = audited.plan.source.name
        mending = self._mendings.setdefault((site, name), Mending(site, audited, self.decision(audited)))
        if row.parked or row.kind is Kind.REPEATED:
            mending.stays += 1
            return
        rises = self._rises(audited, row.kind)
        key, plan = (row.rising, audited.rising) if rises else (row.falling, audited.falling)
        assert key is not None
        assert plan is not None
        gone = row.kind in (_NOT_AT_SITE if rises else _NOT_AT_CENTRE)
        link = self._app.link(site, Direction.TO_CENTRE if rises else Direction.FROM_CENTRE)
        place = link, plan.source.name, gone
        if place not in self._stretches:
            self._stretches[place] = _Stretch(link, plan, self._standing(audited), gone)
        self._stretches[place].keys.add(key)
        if not gone:
            mending.brought += 1
            return
        mending.target = CENTRE if rises else site
        if self._standing(audited) is Prefer.TARGET:
            mending.kept += 1
        else:
            mending.removed += 1

    def _both(self, audited: Audited) -> bool:
        return self._direction is None and audited.rising is not None and audited.falling is not None

    def _rises(self, audited: Audited, kind: Kind) -> bool:
        if self._both(audited):
            return kind is not Kind.EXTRA  # only the centre has it: it comes to the site
        return audited.rising is not None and self._direction is not Direction.FROM_CENTRE

    def _standing(self, audited: Audited) -> Prefer:
        return self._prefer or (Prefer.OWN if self._both(audited) else Prefer.SOURCE)

    def decision(self, audited: Audited) -> str:
        """Whose row stands, in words."""
        rises = self._rises(audited, Kind.DIFFERS)
        prefer = self._standing(audited)
        if prefer.asks:
            plan = audited.rising or audited.falling
            assert plan is not None
            own = "the site's row stands where the centre has what it sent last, else " if prefer is Prefer.OWN else ""
            also = "; a row only one side has comes to the other" if self._both(audited) else ""
            return f"{own}the table's policy decides ({plan.policy.name}){also}"
        return "the site's row stands" if rises is (prefer is Prefer.SOURCE) else "the centre's row stands"

    @property
    def mendings(self) -> list[Mending]:
        """By site and table, in the order of the audit."""
        return list(self._mendings.values())

    @property
    def rows(self) -> int:
        """Rows there are keys of."""
        return sum(each.keys.count for each in self._stretches.values())

    def wishes(self) -> Iterator[Wish]:
        """The orders: what comes, parents first, then what goes, children first."""
        known = list(self._stretches.values())
        for each in [*(s for s in known if not s.gone), *reversed([s for s in known if s.gone])]:
            yield Wish(each.link, each.plan.source.name, each.prefer, each.keys, "resync")

    def close(self) -> None:
        """Forget the keys. Repeatable."""
        for each in self._stretches.values():
            each.keys.close()
        self._stretches.clear()
