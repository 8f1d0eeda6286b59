"""Meets ports.Epochs for a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from replicator import sqlfiles
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection, connect, describe, translated
from replicator.engines.postgres.positions import lsn_of, snapshot_of, spelled_lsn
from replicator.engines.postgres.slices import own_route
from replicator.engines.postgres.windows import START
from replicator.errors import SetupError, StaleError
from replicator.model import Engine, LinkName, Position
from replicator.ports.epochs import Begun, Reached

_NOWHERE = "rejoin"
"""A position of no centre: the link from the centre waits for the one to the centre."""
_TRIES = 10
"""Others write our tables meanwhile: rows that were passed are deleted, links of other topologies acknowledge."""


class PostgresEpochs:
    """One database.

    Args:
        url: libpq URL of the database.
        centre: the centre's engine, for the position that holds a link from there back.
    """

    def __init__(self, url: str, centre: Engine) -> None:
        self._url = url
        self._nowhere = START if centre is Engine.POSTGRES else Position(f"{_NOWHERE}:0:0")
        self._opened: PostgresConnection | None = None

    def begin_at_site(
        self, link: LinkName, newest: int, reached: Reached | None, *, rises: bool, falls: bool, copy: bool
    ) -> Begun:
        """See ports.Epochs."""
        for _ in range(_TRIES):
            with suppress(StaleError):
                return self._begin_at_site(link, newest, reached, rises=rises, falls=falls, copy=copy)
        return self._begin_at_site(link, newest, reached, rises=rises, falls=falls, copy=copy)

    def _begin_at_site(
        self, link: LinkName, newest: int, reached: Reached | None, *, rises: bool, falls: bool, copy: bool
    ) -> Begun:
        topology = link.topology
        with self._transaction("see_one_snapshot") as connection:
            _run(connection, "renew", copy)
            if copy:
                _run(connection, "inherit", link.text, topology)
                _run(connection, "forget_others", topology, link.text, link.reverse.text)
                _run(connection, "forget_other_links", topology, link.site)
            if rows(connection, "epochs", "is_ahead")[0][0]:
                _run(connection, "drop_outbox", topology)
                _run(connection, "drop_ticks")
                _run(connection, "go_on_from_now", link.text, topology)
            elif reached is not None and reached.proven:
                snapshot, log = snapshot_of(reached.position), spelled_lsn(lsn_of(reached.position))
                _run(connection, "drop_passed", topology, newest, snapshot, log)
            else:
                place = None if reached is None or lsn_of(reached.position) else snapshot_of(reached.position)
                _run(connection, "drop_processed", topology, newest, link.text, place)
            _run(connection, "unexpire", link.text)
            connection.execute(sqlfiles.statement("sql/postgres/target.sql", "record_clock").encode(), (newest,))
            found = rows(connection, "epochs", "read_acknowledged", link.text)
            position = Position(str(found[0][0])) if found else None
            if falls and rises:
                _run(connection, "mark", link.reverse.text, topology, position or START)
            if falls:
                _run(connection, "hold_back", topology, link.site, self._nowhere)
            ((identity,),) = rows(connection, "source", "read_identity")
        return Begun(str(identity), position)

    def begin_at_centre(self, link: LinkName, begun: Begun, *, rises: bool, falls: bool) -> None:
        """See ports.Epochs."""
        with self._transaction() as connection:
            if rises:
                _run(connection, "go_on", link.topology, link.site, begun.position, begun.identity)
                _run(connection, "forget_beliefs", link.topology, link.site)
            if falls:
                _run(connection, "wait_from_start", link.reverse.text, link.topology)
                _run(connection, "forget_markers", own_route(link))

    def begin_centre(self) -> None:
        """See ports.Epochs."""
        with self._transaction() as connection:
            _run(connection, "renew", False)

    def let_fall(self, link: LinkName) -> None:
        """See ports.Epochs."""
        with self._transaction() as connection:
            _run(connection, "let_fall", link.topology, link.site)

    @contextmanager
    def _transaction(self, *first: str) -> Iterator[PostgresConnection]:
        with translated(describe(self._url)):
            if self._opened is None or self._opened.closed:
                self._opened = connect(self._url, application_name="replicator rejoin")
            with self._opened.transaction():
                for name in first:
                    _run(self._opened, name)
                if not rows(self._opened, "install", "our_schema")[0][0]:
                    raise SetupError(f"{describe(self._url)}: not installed", hint="run: replicator install")
                yield self._opened

    def close(self) -> None:
        """See ports.Epochs."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def _run(connection: PostgresConnection, name: str, *values: object) -> None:
    connection.execute(sqlfiles.statement("sql/postgres/epochs.sql", name).encode(), values or None)
