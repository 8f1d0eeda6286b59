"""Wakes the links from one centre: one connection and one thread per process and centre, whatever the number of sites.

The dispatcher sleeps as a single source does (see ``waiting``). When something was committed it asks once which routes
got rows and wakes the sources that wait for one of them. A source that hears nothing looks by itself now and then, so a
dispatcher whose connection is lost costs time, never changes.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterable

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection, connect, describe, translated
from replicator.engines.postgres.reading import run
from replicator.engines.postgres.waiting import Waiter
from replicator.errors import ReplicatorError
from replicator.model import Position

_log = logging.getLogger(__name__)

_SLEEP_SECONDS = 60.0
_BREATH = 0.005
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_PRUNE_SECONDS = 5.0

_shared: dict[tuple[str, str], Dispatcher] = {}
_guard = threading.Lock()


class Subscription:
    """One source's place with the dispatcher."""

    def __init__(self, dispatcher: Dispatcher, routes: Iterable[str]) -> None:
        self.dispatcher = dispatcher
        self.routes = frozenset(routes)
        self._news = threading.Event()
        self._news.set()  # what came before the subscription is not known

    def clear(self) -> None:
        """Forget the news: called before a look, so that whatever comes during it wakes the next wait."""
        self._news.clear()

    def wait(self, timeout: float) -> bool:
        """Sleep until there may be something for the source."""
        self.dispatcher.keep_running()
        return self._news.wait(timeout)

    def wake(self) -> None:
        """End the wait. Thread-safe."""
        self._news.set()

    def close(self) -> None:
        """Leave; the last one out ends the dispatcher. Repeatable."""
        self.dispatcher.remove(self)


def subscribe(url: str, topology: str, routes: Iterable[str]) -> Subscription:
    """A place with the process's dispatcher for a centre and topology, which is started when there is none."""
    with _guard:
        dispatcher = _shared.setdefault((url, topology), Dispatcher(url, topology))
        subscription = Subscription(dispatcher, routes)
        dispatcher.add(subscription)
    return subscription


class Dispatcher:
    """See the module. Use ``subscribe``."""

    def __init__(self, url: str, topology: str) -> None:
        self._url = url
        self._topology = topology
        self._place = describe(url)
        self._horizon: Position | None = None
        self._found: frozenset[str] = frozenset()
        self._waiter = Waiter(topology, self._look)
        self._subscriptions: set[Subscription] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pruned_at = 0.0
        self.started_at = time.monotonic()
        self.cleared = 0
        """Below this transaction id the outbox was pruned."""
        self.looks = 0
        """How often the database was asked."""

    @property
    def sources(self) -> int:
        """How many sources wait here."""
        return len(self._subscriptions)

    def add(self, subscription: Subscription) -> None:
        """Take a source in."""
        with self._lock:
            self._subscriptions.add(subscription)
        self.keep_running()

    def remove(self, subscription: Subscription) -> None:
        """Let a source go."""
        with _guard:
            with self._lock:
                self._subscriptions.discard(subscription)
                last = not self._subscriptions
            if last and _shared.get((self._url, self._topology)) is self:
                del _shared[self._url, self._topology]
        if last:
            self._waiter.wake()

    def keep_running(self) -> None:
        """Start the thread unless it runs."""
        with self._lock:
            if self._subscriptions and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._work, name="replicator dispatch", daemon=True)
                self._thread.start()

    def claim_pruning(self) -> bool:
        """Whether it is the caller's turn to prune: one source in five seconds, whatever their number."""
        with self._lock:
            now = time.monotonic()
            mine = now - self._pruned_at >= _PRUNE_SECONDS
            self._pruned_at = now if mine else self._pruned_at
            return mine

    # --- the thread ---

    def _work(self) -> None:
        pause = _FIRST_PAUSE
        while self._subscriptions:
            connection: PostgresConnection | None = None
            try:
                connection = connect(self._url, application_name=f"replicator wait {self._topology}")
                with translated(self._place):
                    run(connection, "plan_by_index")
                    while self._subscriptions:
                        if self._waiter.wait(connection, _SLEEP_SECONDS):
                            self._found |= self._waiter.calls  # a call names a route
                            self._waiter.calls.clear()
                            self._tell()
                            time.sleep(_BREATH)  # under steady traffic, one look for many commits
                        pause = _FIRST_PAUSE
            except ReplicatorError as error:
                _log.warning("waking the links from the centre: %s", error)
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE)
            finally:
                if connection is not None:
                    connection.close()

    def _look(self, connection: PostgresConnection) -> bool:
        """Which routes got rows since the last look; at the first, and after a restore, everybody looks for himself."""
        self.looks += 1
        ((now, past, routes),) = rows(connection, "routed", "touched_routes", self._horizon, self._topology)
        if self._horizon is None or not past:
            self._wake_all()
        else:
            self._found |= frozenset(map(str, routes)) if isinstance(routes, list) else frozenset()
        self._horizon = Position(str(now))
        return bool(self._found)

    def _wake_all(self) -> None:
        with self._lock:
            everybody = list(self._subscriptions)
        for subscription in everybody:
            subscription.wake()

    def _tell(self) -> None:
        found, self._found = self._found, frozenset()
        with self._lock:
            concerned = [each for each in self._subscriptions if each.routes & found]
        for subscription in concerned:
            subscription.wake()
