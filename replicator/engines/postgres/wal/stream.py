"""The replication connection: starts a slot's stream, hands out its messages, answers keepalives, confirms progress."""

from __future__ import annotations

import selectors
import struct
import time
from contextlib import suppress

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from replicator.engines.postgres.capture import SETTINGS
from replicator.engines.postgres.connection import PostgresConnection, describe, translated
from replicator.engines.postgres.positions import spelled_lsn
from replicator.engines.postgres.wal.notes import OLDEST_WITH_MESSAGES, Notes
from replicator.errors import RetryableError
from replicator.sqlfiles import literal, quote

_STATUS_SECONDS, _PATIENCE_SECONDS = 10.0, 2.0
_WAL_DATA, _KEEPALIVE = ord("w"), ord("k")
_DEFAULTS = {"connect_timeout": "10", "keepalives_idle": "20", "keepalives_interval": "5", "keepalives_count": "4"}


class Stream:
    """What one slot sends, from ``start`` on (a place in the log); nothing is removed from the log before ``confirm``.

    Raises what ``connect`` raises, and what PostgreSQL says when the slot is in use, gone, or invalidated.
    """

    def __init__(self, url: str, slot: str, publication: str, start: int) -> None:
        self._place = describe(url)
        self._confirmed = start
        self._answered = time.monotonic()
        self._asked = False
        self.end = 0
        """The server has read the log up to here, and sent what was committed before."""
        with translated(self._place):
            self._connection = _open(url)
            self._wire = self._connection.pgconn
            tells = self._connection.info.server_version >= OLDEST_WITH_MESSAGES
            self.notes = None if tells else Notes()
            try:
                self._start(slot, publication, start)
            except BaseException:
                self._connection.close()
                raise

    def _start(self, slot: str, publication: str, start: int) -> None:
        names = literal(quote(publication))
        messages = ", messages 'true'" if self.notes is None else ""
        command = (
            f"START_REPLICATION SLOT {quote(slot)} LOGICAL {spelled_lsn(start)} "
            f"(proto_version '1', publication_names {names}{messages})"
        )
        result = self._wire.exec_(command.encode())
        if result.status != psycopg.pq.ExecStatus.COPY_BOTH:
            raise psycopg.errors.error_from_result(result)

    def receive(self) -> bytes | None:
        """The next message; ``None`` when none has arrived yet."""
        while True:
            size, data = self._wire.get_copy_data(1)
            if size == 0:
                self._wire.consume_input()
                size, data = self._wire.get_copy_data(1)
                if size == 0:
                    self._report()
                    return None
            if size < 0:
                raise self._ended()
            if data[0] == _WAL_DATA:
                return bytes(data[25:]) if self.notes is None else self.notes.translated(bytes(data[25:]))
            if data[0] == _KEEPALIVE:
                self._kept_alive(bytes(data))

    def _kept_alive(self, data: bytes) -> None:
        _, self.end, _, wants_answer = struct.unpack_from(">bQqb", data)
        self._asked = False
        if wants_answer:
            self._send(ask=False)

    def ask(self) -> None:
        """Ask how far the server has read; the answer arrives with ``receive`` and moves ``end``."""
        if not self._asked:
            self._asked = True
            self._send(ask=True)

    def confirm(self, lsn: int) -> None:
        """All that was committed before ``lsn`` is safe here; the server may forget it."""
        self._confirmed = max(self._confirmed, lsn)
        self._send(ask=False)

    def _report(self) -> None:
        """Long transactions are received in pieces: say now and then that somebody is here."""
        if time.monotonic() - self._answered > _STATUS_SECONDS:
            self._send(ask=False)

    def busy(self) -> None:
        """To be called now and then while nothing is received: answers before the server's patience ends."""
        self._report()

    def _send(self, *, ask: bool) -> None:
        received = max(self._confirmed, self.end)
        self._wire.put_copy_data(
            struct.pack(">bQQQqb", ord("r"), received, self._confirmed, self._confirmed, 0, int(ask))
        )
        self._wire.flush()
        self._answered = time.monotonic()

    def wait(self, seconds: float, wake: int | None = None) -> bool:
        """Until something arrives or ``wake`` becomes readable, at most ``seconds``; whether it was ``wake``."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wire.socket, selectors.EVENT_READ)
            if wake is not None:
                selector.register(wake, selectors.EVENT_READ)
            return any(key.fd == wake for key, _ in selector.select(max(seconds, 0.0)))

    def _ended(self) -> Exception:
        result = self._wire.get_result()
        if result is not None and result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
            return psycopg.errors.error_from_result(result)
        return RetryableError(f"{self._place}: the server ended the stream", hint="it will be opened again")

    def close(self) -> None:
        """End the stream so that the slot is free at once, if the server answers soon. Repeatable."""
        if not self._connection.closed:
            with suppress(psycopg.Error):
                self._hang_up(time.monotonic() + _PATIENCE_SECONDS)
            self._connection.close()

    def _hang_up(self, deadline: float) -> None:
        self._wire.put_copy_end()
        self._wire.flush()
        while time.monotonic() < deadline:
            size, _ = self._wire.get_copy_data(1)
            if size < 0:
                self._wire.get_result()
                return
            if size == 0:
                self.wait(deadline - time.monotonic())
                self._wire.consume_input()


def _open(url: str) -> PostgresConnection:
    given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    settings = {**SETTINGS, "search_path": "pg_catalog", "xmlbinary": "base64", "wal_sender_timeout": "600000"}
    # The last: while a batch is applied at the target nobody answers; TCP keepalives notice a host that is gone.
    options = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
    parameters = {
        **_DEFAULTS, **given, "replication": "database", "client_encoding": "UTF8",
        "application_name": "replicator capture", "options": f"{given.get('options', '')} {options}".strip(),
    }  # fmt: skip
    return psycopg.connect(make_conninfo("", **parameters), autocommit=True)
