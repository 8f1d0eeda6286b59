"""Carries backfills out for a command: orders them at their links' targets, and replicates the links nobody else does.

Where a service holds a link's lease, it does the work and this only looks on; when it dies, the link is taken over. The links
are kept moving until ``close``, so that changes in flight do not keep the audit at the end from a verdict.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from replicator.backfill import CHUNK_ROWS, Ordered, Wish, is_named, is_served, order, steer
from replicator.errors import LeaseError, ReplicatorError, RetryableError, SetupError
from replicator.model import Backfill, BackfillState, LinkName, TablePlan
from replicator.settings import CENTRE

if TYPE_CHECKING:
    from replicator.app.topology import App
    from replicator.ports import Orders
    from replicator.worker import Worker

_AT_ONCE = 8
_LOOK_SECONDS = 0.25
_WAKE_SECONDS, _BEGIN_SECONDS = 1.0, 5.0
"""An order that has not begun is called out again: whoever was just about to fall asleep may have missed the first call."""
_GAP_SECONDS, _SERVED_SECONDS = 0.2, 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_GRACE_SECONDS = 30.0

Say = Callable[[str], None]
_Found = TypeVar("_Found")


class Backfills:
    """The backfills of one command.

    Args:
        app: the topology.
        sites: whose links are kept moving, both ways: what the centre decides has to come back.
        say: told of what goes wrong and is tried again.
    """

    def __init__(self, app: App, sites: Sequence[str], say: Say = lambda text: None) -> None:
        self._app, self._sites, self._say = app, tuple(sites), say
        self._links = tuple(link for site in sites for link in app.links(site))
        self._book = _Book(app, self._links)
        self._movers: list[_Mover] = []
        self._said: set[str] = set()
        self._woken = 0.0
        self.failed: dict[LinkName, ReplicatorError] = {}
        """Links that cannot go on until a person mends something."""
        self.served: set[LinkName] = set()
        """Links that another replicator worked on when they were looked at last."""

    # --- orders ---

    def plans(self) -> dict[LinkName, Sequence[TablePlan]]:
        """The links' plans, parents first; a link whose site is away or does not fit is put to the failed."""
        return self._on_each(self._links, lambda link: self._app.link_plans(link.site, link.direction))

    def order(self, wishes: Sequence[Wish], *, chunk_rows: int = CHUNK_ROWS, rate: int = 0) -> list[Ordered]:
        """Put the wishes on record, those of a link in their order, several links at a time."""
        by_link: dict[LinkName, list[Wish]] = {}
        for wish in wishes:
            by_link.setdefault(wish.link, []).append(wish)

        def put(link: LinkName) -> list[Ordered]:
            with closing(self._app.connect(link.site, link.direction)) as ends:
                found = order(ends.source, ends.target, by_link[link], chunk_rows=chunk_rows, rate=rate)
                if not self._movers:
                    self._note_others(link, is_served(ends.target))
                return found

        done = self._on_each(by_link, put)
        self._woken = time.monotonic()
        return [each for link in by_link for each in done.get(link, ())]

    def steer(self, state: BackfillState, tables: Sequence[str] = ()) -> list[Backfill]:
        """Pause, continue (RUNNING) or cancel unfinished backfills; those it was done to."""

        def put(link: LinkName) -> list[Backfill]:
            plans = self._app.link_plans(link.site, link.direction) if tables else ()
            with closing(self._app.target(link, plans)) as target:
                return steer(target, state, tables, plans)

        done = self._on_each(self._links, put)
        if state is BackfillState.RUNNING:
            self._wake(link for link, found in done.items() if found)
        return [each for link in self._links for each in done.get(link, ())]

    def unfinished(self, tables: Sequence[str] = ()) -> list[Backfill]:
        """The unfinished backfills of tables (names or globs as the links' sources have them; all when none)."""
        return [each for each in self.read() if each.unfinished and is_named(tables, each.table)]

    def read(self) -> list[Backfill]:
        """All backfills on record of the links, oldest first per link; a place that does not answer as it was last."""
        found, away = self._book.read()
        for place, error in away.items():
            self._tell(f"{place}: {error.message}")
        return found

    # --- carrying out ---

    def start(self) -> None:
        """Begin to move the links that nobody else replicates. Repeatable."""
        if not self._movers:
            workers = self._app.workers([site for site in self._sites if not self._is_lost(site)])
            self._movers = [_Mover(worker, self) for worker in workers]
            for mover in self._movers:
                mover.start()

    def _is_lost(self, site: str) -> bool:
        return all(link in self.failed for link in self._links if link.site == site)

    def watch(self, numbers: Iterable[tuple[LinkName, int]]) -> Iterator[list[Backfill]]:
        """These backfills again and again until none is left that goes on: done, cancelled, paused, or their link failed."""
        wanted = set(numbers)
        while True:
            found = [each for each in self.read() if (each.link, each.id) in wanted]
            yield found
            open_ones = [
                each
                for each in found
                if each.unfinished and each.state is not BackfillState.PAUSED and each.link not in self.failed
            ]
            if not open_ones:
                return
            self._wake_idle(found)
            time.sleep(_LOOK_SECONDS)

    def leave(self, orders: Iterable[Backfill]) -> None:
        """Let others do it: returns once they have begun, or did not in spite of calling out again."""
        links, deadline = {each.link for each in orders} & self.served, time.monotonic() + _BEGIN_SECONDS
        while time.monotonic() < deadline and self._wake_idle([each for each in self.read() if each.link in links]):
            time.sleep(_LOOK_SECONDS)

    def _wake_idle(self, found: Iterable[Backfill]) -> bool:
        """Call out again where somebody works on the link and has not begun; whether there are such links."""
        states: dict[LinkName, set[BackfillState]] = {}
        for each in found:
            if each.unfinished and each.link in self.served:
                states.setdefault(each.link, set()).add(each.state)
        idle = [link for link, known in states.items() if known == {BackfillState.WAITING}]
        if idle and time.monotonic() - self._woken >= _WAKE_SECONDS:
            self._wake(idle)
        return bool(idle)

    def drain(self) -> None:
        """Move everything there is over the links once, where nobody else does, so that little is in flight."""
        self.start()
        for mover in self._movers:
            mover.first.wait()

    def _wake(self, links: Iterable[LinkName]) -> None:
        def call(link: LinkName) -> None:
            with closing(self._app.source(link, self._app.link_plans(link.site, link.direction))) as source:
                source.wake_others()

        for link in links:
            try:
                call(link)
            except RetryableError as error:
                self._tell(f"{link}: {error.message}")  # it looks by itself at its next contact
        self._woken = time.monotonic()

    def close(self) -> bool:
        """Finish the batches in hand and let the links go; false when one outlived its time. Repeatable."""
        for mover in self._movers:
            mover.stop()
        deadline = time.monotonic() + _GRACE_SECONDS
        late = [mover for mover in self._movers if not mover.join(max(deadline - time.monotonic(), 0.0))]
        self._movers = []
        self._book.close()
        return not late

    # --- what movers tell ---

    def _note_others(self, link: LinkName, served: bool) -> None:
        (self.served.add if served else self.served.discard)(link)

    def _fail(self, link: LinkName, error: ReplicatorError) -> None:
        self.failed[link] = error

    def _again(self, link: LinkName, error: RetryableError) -> None:
        """It will be tried again; tables may have changed meanwhile."""
        self._tell(f"{link}: {error.message}")
        for place in (link.site, CENTRE):
            self._app.forget(place)

    def _tell(self, text: str) -> None:
        """Once: what is tried again fails again in the same words."""
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _on_each(self, links: Iterable[LinkName], work: Callable[[LinkName], _Found]) -> dict[LinkName, _Found]:
        """What the work gives for each link, several at a time; a link whose work fails is put to the failed."""
        done: dict[LinkName, _Found] = {}

        def one(link: LinkName) -> None:
            try:
                done[link] = work(link)
            except ReplicatorError as error:
                self._fail(link, error)

        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            list(pool.map(one, [link for link in links if link not in self.failed]))
        return done


class _Mover:
    """Drains one link again and again, whenever nobody else holds its lease."""

    def __init__(self, worker: Worker, owner: Backfills) -> None:
        self._worker, self._owner, self._link = worker, owner, worker.report.link
        self._ending = threading.Event()
        self.first = threading.Event()
        """The link has been drained once, is somebody else's, or cannot be."""
        self._thread = threading.Thread(target=self._work, name=f"backfill {self._link}", daemon=True)
        self.start, self.is_alive = self._thread.start, self._thread.is_alive

    def _work(self) -> None:
        pause = _FIRST_PAUSE
        while not self._ending.is_set():
            try:
                self._worker.drain()
                self._owner._note_others(self._link, False)
                pause, rest = _FIRST_PAUSE, _GAP_SECONDS
            except LeaseError:
                self._owner._note_others(self._link, True)
                rest = _SERVED_SECONDS
            except RetryableError as error:
                self._owner._again(self._link, error)
                rest, pause = pause, min(2 * pause, _LONGEST_PAUSE)
            except ReplicatorError as error:
                self._owner._fail(self._link, error)
                return
            except Exception as error:
                bug = SetupError(f"{self._link}: unexpected {type(error).__name__}: {error}", hint="this is a bug")
                self._owner._fail(self._link, bug)
                raise
            finally:
                self.first.set()
            self._ending.wait(rest)

    def stop(self) -> None:
        """Ask it to end after the batch in hand."""
        self._ending.set()
        self._worker.stop()

    def join(self, seconds: float) -> bool:
        """Wait for its end; false when it is still at work."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()


class _Book:
    """What the links' targets have on record: one connection a place, kept open."""

    def __init__(self, app: App, links: Sequence[LinkName]) -> None:
        self._app, self._links = app, set(links)
        self._places = dict.fromkeys(CENTRE if link.direction.rises else link.site for link in links)
        self._opened: dict[str, Orders] = {}
        self._known: dict[str, list[Backfill]] = {}

    def read(self) -> tuple[list[Backfill], dict[str, ReplicatorError]]:
        """All backfills of the links, and the places that do not answer; of those, what they said last."""
        away: dict[str, ReplicatorError] = {}

        def one(place: str) -> None:
            orders = self._opened.setdefault(place, self._app.orders(place))
            try:
                found = orders.list_backfills(self._app.settings.topology)
                self._known[place] = [each for each in found if each.link in self._links]
            except ReplicatorError as error:
                away[place] = error
                self._opened.pop(place).close()

        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            list(pool.map(one, self._places))
        return [each for place in self._places for each in self._known.get(place, ())], away

    def close(self) -> None:
        """Release the connections. Repeatable."""
        for orders in self._opened.values():
            orders.close()
        self._opened = {}


def read_backfills(app: App, sites: Sequence[str]) -> tuple[list[Backfill], dict[str, ReplicatorError]]:
    """All backfills on record of the sites' links, and the places that did not answer."""
    with closing(_Book(app, [link for site in sites for link in app.links(site)])) as book:
        return book.read()
