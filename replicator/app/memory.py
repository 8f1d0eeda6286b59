"""What the centre remembers of its sites: their tables as they were when they answered last."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

from replicator.model import Catalogue, kept
from replicator.ports import Installable


class Memory:
    """The sites of one topology as the centre knows them; read once, written where a site is not as remembered.

    Args:
        topology: its name.
        opened: opens the centre.
    """

    def __init__(self, topology: str, opened: Callable[[], Installable]) -> None:
        self._topology, self._opened = topology, opened
        self._known: dict[str, Catalogue] | None = None
        self._lock = threading.Lock()

    def keep(self, site: str, catalogue: Catalogue) -> Catalogue | None:
        """Remember a site as it is now; as it was remembered until now, where that is different."""
        seen = kept(catalogue)
        with self._lock:
            known = self._read()
            before = known.get(site)
            if before == seen:
                return None
            with closing(self._opened()) as centre:
                centre.remember_site(self._topology, site, seen)
            known[site] = seen
            return before

    def recall(self, site: str) -> Catalogue | None:
        """The site as it was when it answered last; None where it never did."""
        with self._lock:
            return self._read().get(site)

    def forget(self) -> None:
        """Ask the centre again when next needed."""
        with self._lock:
            self._known = None

    def _read(self) -> dict[str, Catalogue]:
        if self._known is None:
            with closing(self._opened()) as centre:
                self._known = dict(centre.recall_sites(self._topology))
        return self._known
