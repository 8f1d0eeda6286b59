"""Looks at the factories and the centre from outside, as their users could: how far is the centre behind?

The numbers owe nothing to the replicator: the newest test run at the factory, and the newest of that factory at the
centre, asked several times a second.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from replicator.demo.application import Database, open_database
from replicator.errors import RetryableError

_EVERY_SECONDS = 0.05


@dataclass(slots=True)
class View:
    """One factory, as last seen. ``lag``: seconds, at most, since the oldest run that the centre lacks was written.

    ``applying``: whether the centre is in the middle of a large transaction of this factory's link.
    """

    newest: int = 0
    arrived: int = 0
    lag: float = 0.0
    worst: float = 0.0
    applying: bool = False
    missing: deque[tuple[int, float]] = field(default_factory=deque)

    @property
    def behind(self) -> int:
        """Test runs that the centre lacks."""
        return max(self.newest - self.arrived, 0)

    def see(self, newest: int, arrived: int, before: float, now: float) -> None:
        """Take note of both sides; ``before``: when they were last seen, so that no lag is told too small."""
        if newest > self.newest:
            self.missing.append((newest, before))
        self.newest, self.arrived = newest, arrived
        if self.missing:
            self.worst = max(self.worst, now - self.missing[0][1])
        while self.missing and self.missing[0][0] <= arrived:
            self.missing.popleft()
        self.lag = now - self.missing[0][1] if self.missing else 0.0


class Lookout:
    """Watches in a thread of its own.

    Args:
        sites: factory → URL that leads to its database, whatever happens to the line.
        centre: the centre's URL.
    """

    def __init__(self, sites: Mapping[str, str], centre: str) -> None:
        self._sites, self._centre = sites, centre
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._error: Exception | None = None
        self.views = {site: View() for site in sites}
        self._looks = 0
        self._thread = threading.Thread(target=self._watch, name="lookout", daemon=True)

    def start(self) -> None:
        """Begin; the centre's tables must be there."""
        self._thread.start()

    def stop(self) -> None:
        """End. Repeatable."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def forget_worst(self) -> None:
        """Let the worst lags begin anew."""
        for view in self.views.values():
            view.worst = view.lag

    def worst(self, *but: str) -> float:
        """The worst lag of any factory, those named left out; seconds."""
        return max(view.worst for site, view in self.views.items() if site not in but)

    def wait(self, holds: Callable[[], bool], seconds: float, what: str) -> float:
        """Wait until ``holds``, of what is seen from now on; how long it took. Raises RetryableError when time is up."""
        began = time.monotonic()
        with self._news:
            fresh = self._looks + 2  # a look may be under way that began before
            came = self._news.wait_for(lambda: self._error is not None or (self._looks >= fresh and holds()), seconds)
        if self._error is not None:
            raise self._error
        if not came:
            raise RetryableError(f"after {seconds:.0f} s still not so: {what}")
        return time.monotonic() - began

    def _watch(self) -> None:
        try:
            before = time.monotonic()
            centre = open_database(self._centre)
            databases = {site: open_database(url) for site, url in self._sites.items()}
            while not self._stop.wait(_EVERY_SECONDS):
                before = self._look(centre, databases, before)
            for database in (centre, *databases.values()):
                database.close()
        except Exception as error:
            # Told to whoever waits: a blind lookout must not look like a healthy one.
            self._error = error
            with self._news:
                self._news.notify_all()

    def _look(self, centre: Database, databases: Mapping[str, Database], before: float) -> float:
        began = time.monotonic()
        newest = {site: _ask(database, "newest_run") for site, database in databases.items()}
        arrived = {site: centre.ask("newest_run_at_centre", site) for site in databases}
        applying = {site: bool(centre.ask("is_applying", site)) for site in databases}
        centre.rollback()
        now = time.monotonic()
        with self._news:
            for site, view in self.views.items():
                view.see(newest[site], arrived[site], before, now)
                view.applying = applying[site]
            self._looks += 1
            self._news.notify_all()
        return began


def _ask(database: Database, name: str) -> int:
    answer = database.ask(name)
    database.rollback()
    return answer
