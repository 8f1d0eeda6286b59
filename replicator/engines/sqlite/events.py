"""What the outbox of a SQLite file knows of one row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from replicator.model import CapturedChange, Op, RowEvent
from replicator.sqlfiles import render, statement

_SQL = "sql/sqlite/history.sql"


def read_events(
    connection: sqlite3.Connection,
    topology: str,
    table: str,
    key: Sequence[str],
    writer: str,
    wanted: Callable[[str], bool],
) -> Iterator[RowEvent]:
    """The captured changes of a row that are still in the outbox, in order; see ports.Source.read_history.

    ``writer`` made those that have no origin; ``wanted``: whether a route is one of the link's.
    """
    same = " and ".join(f"cast(k{place} as text) = ?{place + 2}" for place in range(len(key)))
    sql = render(statement(_SQL, "read_outbox"), fragments={"same": same})
    for number, names in connection.execute(statement(_SQL, "list_versions"), (topology, table)).fetchall():
        if len(json.loads(names)) != len(key):
            continue
        for seq, op, changed_at, origin, route in connection.execute(sql, (number, *key)).fetchall():
            if not wanted(str(route)):
                continue
            site = str(route).rpartition("/")[2] if str(route).startswith("@") else ""
            detail = f"change {seq}" + (f", for {site} alone" if site else "")
            who = str(origin or writer).rpartition("/")[2]
            yield RowEvent("outbox", int(changed_at), who, Op(op).name.lower().replace("_", " "), None, detail)


def read_change(connection: sqlite3.Connection, number: int, upto: int, writer: str) -> CapturedChange | None:
    """See ports.Source; ``upto``: the outbox row the position names."""
    cursor = connection.execute(statement(_SQL, "read_change"), (number,))
    found = cursor.fetchone()
    if found is None:
        return None
    row = dict(zip([column[0] for column in cursor.description][2:], found[2:], strict=True))
    key = tuple(str(row[f"k{place}"]) for place in range(len(json.loads(found[1]))))
    who = str(row.get("origin") or writer).rpartition("/")[2]
    what = Op(row["op"]).name.lower().replace("_", " ")
    about = RowEvent("outbox", int(row["changed_at"]), who, what, None, f"change {number}")
    return CapturedChange(number, str(found[0]), key, about, number <= upto)
