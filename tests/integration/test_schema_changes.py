"""Tables that change under the replicator: what a change does to the links, and what mends it.

Every change is made to a table of its own, all of them at once, so that each shows too that it does not stop the others: rows
are in step; changes wait in the outbox (or none); one side is altered; the application goes on writing as its new schema lets
it; a sync says what is amiss; then the other side is altered as well (the fix), and after one more sync both sides are equal,
nothing is parked, and no value stands in a wrong column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from replicator.app import App
from replicator.model import Direction, Engine
from replicator.service import drain_all
from tests.fixtures.pairs import MakePair, Pair, Place, exact

TABLE = "create table {t} (id integer primary key, name text, n integer, note text)"
FIRST = ("insert into {t} values (1, 'a', 1, 'x'), (2, 'b', 2, null), (3, 'c', 3, 'z')",)
BACKLOG = (
    "insert into {t} values (4, 'waits', 4, 'w')",
    "update {t} set name = 'waits too', n = 20 where id = 2",
    "delete from {t} where id = 3",
)
WRITES = ("update {t} set n = n + 100 where id = 1", "insert into {t} (id, name, n) values (9, 'new', 9)")


@dataclass(frozen=True)
class Change:
    """One change of a table, ``{t}``.

    ``after``: written at the site then, before the fix, when the change is there; ``late``: after the fix.
    ``columns``: what is compared in the end. ``fix``: at the other side, what ``alter`` is where it is None. ``undo``: the
    fix is at the side that was changed. ``held``: a word the first sync must say of the table. ``leaves``: rows stay at the
    centre that the site has no more, as nobody deleted them; the audit names them.
    """

    alter: tuple[str, ...]
    columns: str = "id, name, n, note"
    after: tuple[str, ...] = WRITES
    late: tuple[str, ...] = ("update {t} set n = n + 1 where id = 9",)
    fix: tuple[str, ...] | None = None
    undo: tuple[str, ...] = ()
    engines: tuple[str, ...] = ("sqlite", "postgres")
    sides: tuple[str, ...] = ("site", "centre")
    held: str = ""
    leaves: bool = False
    directions: tuple[str, ...] = ("to_centre", "both")


def rebuild(columns: str, copied: str, taken: str = "") -> tuple[str, ...]:
    """What Django and sqlite-utils do where ALTER TABLE cannot: a new table, filled, takes the old one's name."""
    return (
        f"create table {{t}}_new ({columns})",
        f"insert into {{t}}_new ({copied}) select {taken or copied} from {{t}}",
        "drop table {t}",
        "alter table {t}_new rename to {t}",
    )


CHANGES = {
    "added": Change(
        ("alter table {t} add column c text",), "id, name, n, note, c",
        after=("update {t} set n = 100, c = 'early' where id = 1", WRITES[1]), held="add column",
    ),
    "defaulted": Change(
        ("alter table {t} add column c integer not null default 7",), "id, name, n, note, c", held="add column"
    ),
    "dropped": Change(("alter table {t} drop column note",), "id, name, n", held="note"),
    "renamed": Change(
        ("alter table {t} rename column note to remark",), "id, name, n, remark",
        after=("update {t} set remark = 'early' where id = 1", "insert into {t} (id, name, remark) values (9, 'new', 'r')"),
        held="add column",
    ),
    "widened": Change(("alter table {t} alter column n type bigint",), engines=("postgres",)),
    "texted": Change(("alter table {t} alter column n type text using n::text",), engines=("postgres",),
                     after=("update {t} set n = '100' where id = 1", WRITES[1]),
                     late=("update {t} set n = '10' where id = 9",)),
    "blobbed": Change(
        ("alter table {t} alter column note type bytea using note::bytea",), engines=("postgres",),
        after=("update {t} set note = '\\x00ff' where id = 1", WRITES[1]), held="type",
    ),
    "rekeyed": Change(
        ("alter table {t} rename column id to pk",), "pk, name, n, note",
        after=("update {t} set n = 100 where name = 'a'", "insert into {t} (pk, name, n) values (9, 'new', 9)"),
        late=("update {t} set n = n + 1 where name = 'a'",), sides=("site",), held="pk", directions=("to_centre",),
    ),
    "unkeyed": Change(
        ("alter table {t} rename column id to pk",), undo=("alter table {t} rename column pk to id",), sides=("centre",),
        held="id", directions=("to_centre",),
    ),
    "needing": Change(
        ("alter table {t} add column must integer not null default 1", "alter table {t} alter column must drop default"),
        engines=("postgres",), sides=("centre",), held="drop not null",
        undo=("alter table {t} alter column must drop not null",),
    ),
    "moved": Change(
        ("alter table {t} rename to {t}_elsewhere",), undo=("alter table {t}_elsewhere rename to {t}",), sides=("centre",),
        held="rename it back", directions=("to_centre",),
    ),
    "called_else": Change(
        ("alter table {t} rename to {t}_else",), undo=("alter table {t}_else rename to {t}",), sides=("site",),
        after=("update {t}_else set n = n + 100 where id = 1", "insert into {t}_else (id, name, n) values (9, 'new', 9)"),
        held="is called called_else_else now", directions=("to_centre",),
    ),
    "gone": Change(
        ("drop table {t}",), fix=(), after=(), late=(TABLE, FIRST[0], *BACKLOG), sides=("site",),
        held="gone is gone", directions=("to_centre",), leaves=True,
    ),
    "away_and_back": Change(("alter table {t} rename to thing", "alter table thing rename to {t}"), fix=()),
    "made_unique": Change(("create unique index {t}_n on {t} (n)",), fix=()),
    "generated": Change(("alter table {t} add column g integer generated always as (n * 2) {kind}",), fix=()),
    "rebuilt": Change(rebuild("id integer primary key, name text, n integer, note text", "id, name, n, note"), fix=()),
    "reordered": Change(rebuild("note text, n integer, id integer primary key, name text", "id, name, n, note"), fix=()),
    "rebuilt_wider": Change(
        rebuild("id integer primary key, name text, n integer, note text, c text", "id, name, n, note"),
        "id, name, n, note, c", fix=("alter table {t} add column c text",), held="add column",
    ),
    "recreated": Change(
        ("drop table {t}", TABLE, "insert into {t} values (1, 'a', 1, 'x'), (2, 'waits too', 20, 'again')"), fix=(),
        sides=("site",), leaves=True,
    ),
    "other": Change((), fix=()),
}  # fmt: skip


@dataclass
class Told:
    """What one sync said: by link the error, and what changed and is held."""

    errors: dict[str, str] = field(default_factory=dict)
    news: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join([*self.errors.values(), *self.news])


def sync(pair: Pair) -> Told:
    """A ``replicator sync`` of its own: nothing is remembered from the one before."""
    told = Told()
    for worker, failure in drain_all(App.open(pair.yaml).workers(tuple(pair.sites)), 4):
        told.news += worker.report.news
        if failure is not None:
            told.errors[str(worker.report.link)] = str(failure)
    return told


def filled(place: Place, table: str, statements: Sequence[str]) -> list[str]:
    kind = "virtual" if place.engine is Engine.SQLITE else "stored"
    return [each.replace("{t}", table).replace("{kind}", kind) for each in statements]


@dataclass
class Play:
    """All changes, each with its table, at one side of a pair."""

    pair: Pair
    side: str
    changes: dict[str, Change]

    @property
    def here(self) -> Place:
        return self.pair.site if self.side == "site" else self.pair.centre

    @property
    def there(self) -> Place:
        return self.pair.centre if self.side == "site" else self.pair.site

    def begin(self, direction: str) -> None:
        made = (each for table in self.changes for each in filled(self.pair.site, table, (TABLE, *FIRST)))
        self.pair.site.commit(*made)
        self.pair.install(*({"name": table, "direction": direction} for table in self.changes))
        assert sync(self.pair).text == ""

    def change(self, *, backlog: bool) -> None:
        site, here = self.pair.site, self.here
        waiting, altered, after = list[str](), list[str](), list[str]()
        for table, change in self.changes.items():
            waiting += filled(site, table, BACKLOG if backlog else ())
            altered += filled(here, table, ("begin", *change.alter, "commit"))
            after += filled(site, table, change.after if self.side == "site" else WRITES)
        site.run(*waiting)
        here.run(*altered)
        site.run(*after)

    def fix(self) -> None:
        undone, done, late = list[str](), list[str](), list[str]()
        for table, change in self.changes.items():
            undone += filled(self.here, table, change.undo)
            fix = () if change.undo else change.alter if change.fix is None else change.fix
            done += filled(self.there, table, ("begin", *fix, "commit"))
            late += filled(self.pair.site, table, change.late)
        self.here.run(*undone)
        self.there.run(*done)
        self.pair.site.run(*late)

    def unequal(self, *tables: str) -> dict[str, tuple[object, object]]:
        """Tables whose rows are not the same on both sides: those of the site alone, those of the centre alone."""
        found = {}
        for table in tables or self.changes:
            change = self.changes[table]
            query = f"select {change.columns} from {table}"
            sides = [exact(place.rows(query)) for place in (self.pair.site, self.pair.centre)]
            missing, extra = ([row for row in one if row not in other] for one, other in (sides, sides[::-1]))
            if missing or (extra and not change.leaves):
                found[table] = (missing, extra)
        return found


CASES = [
    (site, centre, side, backlog, direction)
    for site, centre in (("sqlite", "postgres"), ("postgres", "sqlite"), ("postgres", "postgres"))
    for side in ("site", "centre")
    for backlog, direction in ((True, "to_centre"), (True, "both"), (False, "to_centre"))
    if backlog or (site, centre) == ("sqlite", "postgres")
] + [("postgres-wal", "postgres", side, True, "to_centre") for side in ("site", "centre")]
OF_LOG = (
    "added",
    "dropped",
    "renamed",
    "rekeyed",
    "unkeyed",
    "called_else",
    "gone",
    "away_and_back",
    "rebuilt_wider",
    "other",
)
"""Those that are played where the log is captured too."""


@pytest.mark.parametrize(("site", "centre", "side", "backlog", "direction"), CASES)
def test_changes_lose_nothing_and_stop_no_other_table(
    make_pair: MakePair, site: str, centre: str, side: str, backlog: bool, direction: str
) -> None:
    """Invariants 1, 5 and 7 while tables change."""
    engines = {"site": site.removesuffix("-wal"), "centre": centre}
    changes = {
        name: change
        for name, change in CHANGES.items()
        if (site in engines.values() or name in OF_LOG)
        and side in change.sides
        and {*engines.values()} <= {*change.engines}
        and direction in change.directions
    }
    play = Play(make_pair(site, centre), side, changes)
    play.begin(direction)
    play.change(backlog=backlog)
    first = sync(play.pair)
    assert first.errors == {}, first.text
    assert play.unequal("other") == {}
    for table, change in changes.items():
        if change.held and direction == "to_centre" and (side == "site" or table in ("unkeyed", "needing", "moved")):
            assert change.held in "\n".join(line for line in first.news if table in line), (table, first.text)
    play.fix()
    second = sync(play.pair)
    assert second.errors == {}, second.text
    play.pair.opened = App.open(play.pair.yaml)
    assert play.unequal() == {}, first.text + "\n--\n" + second.text
    parked = [each for way in Direction if way.rises or direction == "both" for each in play.pair.parked("", way)]
    assert [(each.table, each.key, each.cause) for each in parked] == []
