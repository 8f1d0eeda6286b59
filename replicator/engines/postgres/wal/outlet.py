"""Writes rows into the outbox by binary COPY inside one transaction, by way of a temporary stage where rows are filtered."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress

import psycopg

from replicator import sqlfiles
from replicator.engines.postgres.connection import PostgresConnection
from replicator.engines.postgres.wal.spelling import COPY_HEADER, COPY_TRAILER
from replicator.engines.postgres.wal.tables import Captured

_FLUSH_BYTES = 1 << 17
_SQL = "sql/postgres/wal.sql"


class Outlet:
    """One transaction's rows. It begins one; its owner commits.

    Args:
        writer: the connection, in autocommit mode and idle.
        filters: the relations whose rows are filtered; with any, all rows go by the stage, so that their order is kept.
    """

    def __init__(self, writer: PostgresConnection, filters: Mapping[int, Captured]) -> None:
        self._writer = writer
        self._filters = filters
        self._stack = ExitStack()
        self._pieces = [COPY_HEADER]
        self._bytes = 0
        self.count = 0
        """Rows written."""
        if filters:
            writer.execute(_sql("create_stage"))
        writer.execute(_sql("begin_filling"))
        cursor = self._stack.enter_context(writer.cursor())
        self._copy = self._stack.enter_context(cursor.copy(_sql("fill_stage" if filters else "fill")))

    def write(self, row: bytes) -> None:
        """One row, as ``Lane`` made it."""
        self.count += 1
        self._pieces.append(row)
        self._bytes += len(row)
        if self._bytes > _FLUSH_BYTES:
            self._send()

    def _send(self) -> None:
        self._copy.write(b"".join(self._pieces))
        self._pieces.clear()
        self._bytes = 0

    def finish(self) -> int:
        """Bring everything into the outbox; how many rows it got. The transaction stays open."""
        self._pieces.append(COPY_TRAILER)
        self._send()
        self._stack.close()
        if not self._filters:
            return self.count
        fragments = {side: _inside(self._filters, side) for side in ("old", "new")}
        template = sqlfiles.statement(_SQL, "fill_filtered")
        sql = sqlfiles.render(template, fragments={f"{side}_inside": text for side, text in fragments.items()})
        return self._writer.execute(sql.encode()).rowcount

    def abandon(self) -> None:
        """The connection is closed: let go of what was under way."""
        with suppress(psycopg.Error):
            self._stack.close()


def _inside(filters: Mapping[int, Captured], side: str) -> str:
    """Whether a staged row's old (new) values meet its table's filter."""
    text = "true"
    for number, captured in filters.items():
        fields = [
            _piece("filter_field", {"values": f"s.{side}_values", "place": str(place), "type": kind}, column=name)
            for place, (name, kind) in enumerate(zip(captured.filter_columns, captured.filter_types, strict=True), 1)
        ]
        marks = {"number": str(number), "filter": captured.filter, "fields": ", ".join(fields), "otherwise": text}
        text = _piece("filter_test", marks)
    return text


def _piece(name: str, fragments: Mapping[str, str], /, **identifiers: str) -> str:
    """The expression of a template that had to be a statement to be valid SQL."""
    text = sqlfiles.render(sqlfiles.statement(_SQL, name), identifiers=identifiers, fragments=fragments)
    return text.removeprefix("select ")


def _sql(name: str) -> bytes:
    return sqlfiles.statement(_SQL, name).encode()
