"""Reads what a COPY sends in large pieces: row by row through the driver costs more than the server needs for a row."""

from __future__ import annotations

import selectors
from collections.abc import Iterator

import psycopg

from replicator.engines.postgres.connection import PostgresConnection

_PIECE_BYTES = 64 * 1024
_GONE_SECONDS = 60.0
"""How often a connection that sends nothing is asked whether it lives still; the system's keepalives find that out."""


def copy_out(connection: PostgresConnection, statement: str) -> Iterator[bytes]:
    """What ``copy … to stdout`` sends, whole rows in pieces of about 64 KB. To be read to its end, else the connection closes.

    Raises the driver's errors. Waiting lets other threads run.
    """
    wire = connection.pgconn
    whole = False
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(wire.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            wire.send_query(statement.encode())
            while wire.flush():
                selector.select(_GONE_SECONDS)
                wire.consume_input()  # a long statement: what the server says meanwhile is taken in, so that it reads on
            selector.modify(wire.socket, selectors.EVENT_READ)
            _await(wire, selector)
            _take(wire, psycopg.pq.ExecStatus.COPY_OUT)
            yield from _pieces(wire, selector)
            _await(wire, selector)
            _take(wire, psycopg.pq.ExecStatus.COMMAND_OK)
            while wire.get_result() is not None:
                continue
            whole = True
    finally:
        if not whole:
            connection.close()  # nobody knows what is still to come


def _pieces(wire: psycopg.pq.abc.PGconn, selector: selectors.BaseSelector) -> Iterator[bytes]:
    rows: list[bytes | memoryview] = []
    size = 0
    while True:
        count, data = wire.get_copy_data(1)
        if count > 0:
            rows.append(data)
            size += count
            if size < _PIECE_BYTES:
                continue
        if rows and (count < 0 or size >= _PIECE_BYTES):
            yield b"".join(rows)
            rows.clear()
            size = 0
        if count < 0:
            return
        if count == 0:
            selector.select(_GONE_SECONDS)
            wire.consume_input()


def _await(wire: psycopg.pq.abc.PGconn, selector: selectors.BaseSelector) -> None:
    while wire.is_busy():
        selector.select(_GONE_SECONDS)
        wire.consume_input()


def _take(wire: psycopg.pq.abc.PGconn, expected: psycopg.pq.ExecStatus) -> None:
    result = wire.get_result()
    if result is None:
        raise psycopg.OperationalError("the server ended the COPY")
    if result.status != expected:
        raise psycopg.errors.error_from_result(result)
