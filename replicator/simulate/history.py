"""Makes random histories: a seed gives the same steps on every machine. Pure."""

from __future__ import annotations

from random import Random

from replicator.settings import CENTRE
from replicator.simulate.schema import Schema, Table
from replicator.simulate.steps import Action, Backfill, Backup, Cut, Heal, Jump, Move, Restart, Restore, Step, Write

_GAPS = 60
"""About how many gaps between two calls a batch has; a crash beyond the last does not happen."""
_BACKFILLS = 0.06
"""How often a backfill is ordered instead of what the step would have been."""
_HOT = 0.7
"""How often a history returns to its favourite table."""


class History:
    """One random history.

    Args:
        schema: the tables and places.
        seed: what the history is made from.
        restorable: places whose database may be replaced by a copy.
    """

    def __init__(self, schema: Schema, seed: int, restorable: frozenset[str] = frozenset()) -> None:
        self._random = Random(f"replicator history {seed}")
        self._orders = Random(f"replicator backfills {seed}")  # of its own: the rest of a history does not move with it
        self._schema, self._restorable = schema, sorted(restorable)
        self._written = {
            place: [table for table in schema.tables.values() if place in table.writers]
            for place in (CENTRE, *schema.sites)
        }
        self._rises = [site for site in schema.sites if any(site in table.up for table in schema.tables.values())]
        self._falls = [site for site in schema.sites if any(site in table.down for table in schema.tables.values())]
        shared = sorted(table.name for table in schema.tables.values() if len(table.writers) > 1)
        self._favourite = self._random.choice(shared) if shared else ""
        self._copied: list[str] = []
        self._moves = self._random.choice((0.3, 0.45, 0.6))

    def steps(self, count: int) -> list[Step]:
        """So many steps."""
        return [self._step(number) for number in range(1, count + 1)]

    def _step(self, number: int) -> Step:
        usual = self._usual_step(number)
        ordered = not isinstance(usual, Backup | Restore) and self._orders.random() < _BACKFILLS
        return (self._backfill(number) if ordered else None) or usual

    def _backfill(self, number: int) -> Backfill | None:
        """Whose rows stand is only said of tables that both sides write: else a site's row would stay another one."""
        pick = self._orders
        site, rises = pick.choice(
            [(site, True) for site in self._rises] + [(site, False) for site in self._falls] or [("", True)]
        )
        tables = [table for table in self._schema.tables.values() if site in (table.up if rises else table.down)]
        if not tables:
            return None
        table = pick.choice(tables)
        table = next((each for each in tables if each.name == self._favourite and pick.random() < _HOT), table)
        both = site in table.up and site in table.down
        prefer = pick.choices(("policy", "source", "target"), (6, 1, 1))[0] if both and rises else "policy"
        keyed = table.traced and pick.random() < 0.4
        rows = tuple(sorted(pick.sample(table.pool(site), 3))) if keyed else ()
        return Backfill(number, site, rises, table.name, rows, prefer, pick.choice((1, 2, 5, 1000)))

    def _usual_step(self, number: int) -> Step:
        pick = self._random
        chance = pick.random()
        if chance < self._moves:
            return self._move(number)
        if chance < 0.9:
            return self._write(number)
        return self._misfortune(number)

    def _link(self) -> tuple[str, bool]:
        links = [(site, True) for site in self._rises] + [(site, False) for site in self._falls]
        return self._random.choice(links)

    def _move(self, number: int) -> Move:
        pick = self._random
        site, rises = self._link()
        fault = pick.choices(("", "crash", "lost", "twice", "reread"), (60, 20, 8, 6, 6))[0]
        at = pick.randrange(_GAPS) if fault == "crash" else 0
        return Move(number, site, rises, pick.choice((1, 2, 5, 1000)), fault, at)

    def _write(self, number: int) -> Step:
        pick = self._random
        places = [place for place, tables in self._written.items() if tables]
        place = CENTRE if CENTRE in places and pick.random() < 0.25 else pick.choice(places)
        count = pick.choice((1, 1, 1, 2, 3))
        actions = tuple(self._action(place) for _ in range(count))
        return Write(number, place, actions, given_up=pick.random() < 0.04)

    def _action(self, place: str) -> Action:
        pick = self._random
        tables = self._written[place]
        table: Table = pick.choice(tables)
        if pick.random() < _HOT:
            table = next((each for each in tables if each.name == self._favourite), table)
        pool = table.pool(place)
        row = pool[0] if pick.random() < 0.4 else pick.choice(pool)
        what = pick.choices(("put", "set", "delete", "rekey"), (50, 20, 24, 6))[0]
        return Action(what, table.name, row, pick.randrange(2**32), pick.choice(pool) if what == "rekey" else 0)

    def _misfortune(self, number: int) -> Step:
        pick = self._random
        what = pick.choices(("cut", "jump", "restart", "heal", "copy"), (30, 20, 20, 15, 8))[0]
        if what == "jump":
            place = pick.choice((CENTRE, *self._schema.sites))
            return Jump(number, place, pick.choice((-30.0, -3.0, -0.5, 0.0, 0.0, 0.25, 3.0, 400.0)))
        site, rises = self._link()
        if what == "cut":
            return Cut(number, site, rises, pick.choice((3, 8, 20)))
        if what == "heal":
            return Heal(number, site, rises)
        if what == "copy" and self._restorable:
            return self._copy(number)
        return Restart(number, site)

    def _copy(self, number: int) -> Step:
        site = self._random.choice(self._restorable)
        if site in self._copied:
            self._copied.remove(site)
            return Restore(number, site)
        self._copied.append(site)
        return Backup(number, site)
