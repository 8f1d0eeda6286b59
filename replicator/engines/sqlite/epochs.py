"""Meets ports.Epochs for a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from replicator.engines.sqlite.connection import connect, transaction, translated
from replicator.engines.sqlite.versions import route_to
from replicator.errors import SetupError
from replicator.model import Engine, LinkName, Position
from replicator.ports.epochs import Begun, Reached
from replicator.sqlfiles import statement

_NOWHERE = {Engine.SQLITE: "rejoin:0:0", Engine.POSTGRES: "1:1:"}
"""Positions of no centre: the link from the centre waits for the one to the centre."""


class SqliteEpochs:
    """One file.

    Args:
        path: the file.
        centre: the centre's engine, for the position that holds a link from there back.
    """

    def __init__(self, path: Path, centre: Engine) -> None:
        self._path, self._nowhere = path, _NOWHERE[centre]
        self._opened: sqlite3.Connection | None = None

    def begin_at_site(
        self, link: LinkName, newest: int, reached: Reached | None, *, rises: bool, falls: bool, copy: bool
    ) -> Begun:
        """See ports.Epochs. Times rise with the numbers here: ``newest`` says it as exactly as ``reached``."""
        del reached
        topology = link.topology
        with self._transaction() as connection:
            _run(connection, "renew", copy)
            if copy:
                _run(connection, "inherit", link.text, topology)
                _run(connection, "forget_others", topology, link.text, link.reverse.text)
                _run(connection, "forget_other_links", topology, link.site)
            _run(connection, "unexpire", link.text)
            _run(connection, "pass_processed", link.text, newest, topology)
            connection.execute(statement("sql/sqlite/target.sql", "record_clock"), (newest,))
            found = _run(connection, "read_acknowledged", link.text).fetchone()
            position = Position(found[0]) if found else None
            if falls and rises:
                first = _run(connection, "first_place").fetchone()[0]
                _run(connection, "mark", link.reverse.text, topology, position or first)
                _run(connection, "forget_first_marker", topology)
                _run(connection, "forget_bases", topology)
            if falls:
                _run(connection, "hold_back", topology, link.site, self._nowhere)
            (identity,) = connection.execute(statement("sql/sqlite/install.sql", "identity")).fetchone()
        return Begun(str(identity), position)

    def begin_at_centre(self, link: LinkName, begun: Begun, *, rises: bool, falls: bool) -> None:
        """See ports.Epochs."""
        with self._transaction() as connection:
            if rises:
                _run(connection, "go_on", link.topology, link.site, begun.position, begun.identity)
                _run(connection, "forget_beliefs", link.topology, link.site)
            if falls:
                _run(connection, "wait_from_start", link.reverse.text, link.topology)
                _run(connection, "forget_markers", route_to(link), _before(begun))

    def begin_centre(self) -> None:
        """See ports.Epochs."""
        with self._transaction() as connection:
            _run(connection, "renew", False)

    def let_fall(self, link: LinkName) -> None:
        """See ports.Epochs."""
        with self._transaction() as connection:
            _run(connection, "let_fall", link.topology, link.site)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with translated(str(self._path)):
            if self._opened is None:
                self._opened = connect(self._path)
            if _run(self._opened, "has_identity").fetchone() is None:
                raise SetupError(f"{self._path}: not installed", hint="run: replicator install")
            with transaction(self._opened, statement("sql/sqlite/transactions.sql", "begin_write")):
                yield self._opened

    def close(self) -> None:
        """See ports.Epochs."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def _before(begun: Begun) -> str:
    """A place in the site's history that lies before everything in it, as the site's engine spells it."""
    return "1:1:" if "/" in begun.identity else f"{begun.identity.split(':')[-1]}:0:0"


def _run(connection: sqlite3.Connection, name: str, *values: object) -> sqlite3.Cursor:
    return connection.execute(statement("sql/sqlite/epochs.sql", name), values)
