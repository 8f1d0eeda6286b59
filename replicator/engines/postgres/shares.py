"""What a centre has on record of a site's shares of its tables, against what its rules say now. Pure: no connection."""

from __future__ import annotations

import json
from collections.abc import Sequence

from replicator.model import TableName, TablePlan


class Shares:
    """The shares of one link from the centre: which rows and columns of which table its site gets.

    A table whose share is another than on record has to be read whole; that is put on record once the site has it.
    ``changed``: those tables. ``former``: further routes the site was read by until now. ``due``: the present shares are to
    be put on record.

    Args:
        plans: the link's tables.
        routes: its routes.
    """

    def __init__(self, plans: Sequence[TablePlan], routes: Sequence[str]) -> None:
        self._marks = {str(plan.source.name): plan.share_mark for plan in plans}
        self._names = {str(plan.source.name): plan.source.name for plan in plans}
        self._routes = list(routes)
        self._settled = False
        self.changed: frozenset[TableName] = frozenset()
        self.former: tuple[str, ...] = ()
        self.due = False

    @property
    def text(self) -> str:
        """The present shares, as they are put on record."""
        return json.dumps({"tables": self._marks, "routes": self._routes}, ensure_ascii=False)

    def compare(self, recorded: object) -> None:
        """Compare with what is on record, once."""
        if self._settled:
            return
        known = json.loads(str(recorded)) if recorded else {"tables": {}, "routes": []}
        names = [name for name, mark in self._marks.items() if known["tables"].get(name) != mark]
        self.changed = frozenset(self._names[name] for name in names)
        self.former = tuple(route for route in known["routes"] if names and route not in self._routes)
        self._settled = not names

    def delivered(self) -> None:
        """What was read is durable at the site."""
        self.due = self.due or bool(self.changed)
        self._settled = self._settled or self.due
        self.changed, self.former = frozenset(), ()

    def recorded(self) -> None:
        """The present shares are on record."""
        self.due, self._settled = False, True
        self.changed, self.former = frozenset(), ()
