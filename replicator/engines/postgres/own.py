"""A PostgreSQL site's own changes beyond the marker: those that the centre has yet to process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.pieces import piece
from replicator.engines.postgres.session import Session
from replicator.engines.postgres.wal.reach import Reach
from replicator.model import Position, TableName
from replicator.sqlfiles import literal, quote, render, statement

_FREE_SECONDS, _LOCKED_SECONDS = 30.0, 5.0
"""How long the log may take to come into the outbox: before rows are locked, and while they are."""

START = Position("1:1:")
"""The snapshot nothing is visible in: every change of the site's lies beyond it."""


def follow_sql(name: str) -> str:
    """A statement of the follow file."""
    return statement("sql/postgres/follow.sql", name)


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a table as the site captures it; ``number`` is the relation's."""

    number: int
    columns: tuple[str, ...]

    def has(self, names: Sequence[str]) -> bool:
        """Whether all of these columns are in it."""
        return set(names) <= set(self.columns)


class OwnChanges:
    """The site's own changes, for one transaction of the link from the centre.

    Args:
        session: the link's.
        reach: brings what is still in the log only, where changes are captured from there.
    """

    def __init__(self, session: Session, reach: Reach) -> None:
        self._session = session
        self._reach = reach
        self._versions: dict[TableName, list[Version]] = {}
        self.marker = self.stored = START

    def read_marker(self, arrived: Position | None) -> None:
        """Learn how far the centre has processed the site's changes: what is on record, or the batch's if it is newer."""
        self._catch_up(_FREE_SECONDS)
        link = self._session.link.text
        stored = self._session.run(follow_sql("read_stored"), link, prepare=True).fetchone()
        self.stored = self.marker = Position(stored[0]) if stored else START
        if arrived is not None and arrived != self.stored:
            self.marker = Position(self._session.one(follow_sql("read_marker"), link, arrived)[0])

    def record_marker(self) -> None:
        """Put the marker on record; the outbox keeps what lies beyond it."""
        link = self._session.link
        self._session.run(follow_sql("record_marker"), link.text, link.topology, self.marker, prepare=True)

    def _catch_up(self, seconds: float) -> None:
        has_slot = statement("sql/postgres/wal.sql", "has_slot")
        if self._session.one(has_slot, self._session.link.topology, prepare=True)[0]:
            self._reach.catch_up(seconds)

    def touched(self) -> dict[int, bool]:
        """Our relations with changes beyond the marker, and whether a TRUNCATE is among them. In a new statement.

        What was committed before this call is seen, also where it is captured from the log.
        """
        self._catch_up(_LOCKED_SECONDS)
        found = self._session.run(follow_sql("own_changes"), self.marker, self._session.link.origin)
        return dict(found.fetchall())

    def drop_pending(self, lane: Lane, touched: dict[int, bool]) -> int:
        """Take rows that have changes of the site's own beyond the marker out of the span; how many."""
        dropped = 0
        for version in self._versions_of(lane.plan.target):
            numbers = [number for number in (version.number, -version.number) if number in touched]
            if any(touched[number] for number in numbers) or (numbers and not version.has(_key(lane))):
                return dropped + self._session.run(lane.simple("forget_change")).rowcount
            for number in numbers:
                sql = self._render("drop_pending", lane, version, named=number < 0)
                dropped += self._session.run(sql, self.marker, self._session.link.origin, number).rowcount
        return dropped

    def drop_superseded(self, lanes: Sequence[Lane]) -> None:
        """Drop parked rows from before a change of the site's own that the centre has processed by the marker.

        What the row became stands here, unless it comes in this batch: the parked one must not come back later.
        """
        if self.marker == self.stored:
            return
        bounds = self.stored, self._session.link.origin
        for lane in lanes:
            for version in self._versions_of(lane.plan.target):
                truncated = self._session.one(follow_sql("own_truncates"), *bounds, version.number, self.marker)[0]
                if truncated or not version.has(_key(lane)):
                    self._session.run(follow_sql("drop_superseded_all"), self._session.link_id, lane.place)
                    continue
                for number in (version.number, -version.number):
                    sql = self._render(
                        "drop_superseded", lane, version, named=number < 0, until=follow_sql("until_now")
                    )
                    self._session.run(sql, *bounds, number, self.marker, self._session.link_id, lane.place)

    def _versions_of(self, table: TableName) -> list[Version]:
        if table not in self._versions:
            found = self._session.run(
                follow_sql("own_versions"), self._session.link.topology, table.schema, table.name
            ).fetchall()
            self._versions[table] = [Version(number, tuple(columns)) for number, columns in found]
        return self._versions[table]

    def _render(self, name: str, lane: Lane, version: Version, *, named: bool, until: str = "true") -> str:
        keys = [f"k{n}" for n in range(len(lane.key))]
        typed = [
            piece("as_type", value=f"p.{key}", type=lane.staging(i)) for key, i in zip(keys, lane.key, strict=True)
        ]
        equal = [piece("equals", left=f"c.{key}", right=value) for key, value in zip(keys, typed, strict=True)]
        if not named:
            self._create(version)
        own = render(
            follow_sql("own_named_keys" if named else "own_keys"),
            identifiers={"own": _own(version)},
            fragments={
                "before": ", ".join(_fields("b", lane, version, named=named)),
                "after": ", ".join(_fields("a", lane, version, named=named)),
                "keys": ", ".join(keys),
                "until": until,
            },
        )
        return render(
            follow_sql(name),
            identifiers={"change": lane.change},
            fragments={"own": own, "same_key": " and ".join(equal), "typed": ", ".join(map(_as_text, typed))},
        )

    def _create(self, version: Version) -> None:
        columns = ", ".join(f"v{n} text" for n in range(len(version.columns)))
        sql = render(follow_sql("create_own"), identifiers={"own": _own(version)}, fragments={"columns": columns})
        self._session.run(sql)


def _own(version: Version) -> str:
    return f"replicator_own_{version.number}"


def _as_text(value: str) -> str:
    return piece("as_text", value=value)


def _key(lane: Lane) -> list[str]:
    """The key's columns as the site calls them."""
    return [lane.plan_column(place).target for place in lane.key]


def _fields(side: str, lane: Lane, version: Version, *, named: bool) -> Iterator[str]:
    for name in _key(lane):
        if named:
            yield piece("json_field", image=f"s.{side}", name=literal(name))
        else:
            yield piece("field", image=f"s.{side}", name=quote(f"v{version.columns.index(name)}"))
