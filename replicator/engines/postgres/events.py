"""What the outbox of a PostgreSQL database knows of one row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection
from replicator.model import CapturedChange, Op, RowEvent, TableName
from replicator.records import parse_record


def read_events(
    connection: PostgresConnection,
    topology: str,
    table: TableName,
    key: Sequence[str],
    writer: str,
    wanted: Callable[[str], bool],
) -> Iterator[RowEvent]:
    """The captured changes of a row that are still in the outbox, in order; see ports.Source.read_history.

    ``writer`` made those that have no origin; ``wanted``: whether a route is one of the link's.
    """
    versions: dict[int, tuple[list[str], list[str]]] = {}
    for number, columns, names in rows(connection, "history", "list_versions", topology, table.schema, table.name):
        versions[int(str(number))] = list(_texts(columns)), list(_texts(names))
    for seq, number, op, changed_at, origin, before, after, own_key, route in rows(
        connection, "history", "read_outbox", list(versions)
    ):
        columns, names = versions[int(str(number))]
        images = [dict(zip(columns, parse_record(str(each)), strict=True)) for each in (before, after) if each]
        keys = [[image[name] for name in names] for image in images]
        if own_key is not None:
            keys.append(list(parse_record(str(own_key))))
        if list(key) in keys and wanted(str(route)):
            yield event(int(str(seq)), str(op), int(str(changed_at)), str(origin) or writer, str(route), images)


def read_change(
    connection: PostgresConnection, number: int, position: str | None, writer: str
) -> CapturedChange | None:
    """See ports.Source."""
    found = rows(connection, "history", "read_change", number, position)
    if not found:
        return None
    schema, table, columns, names, op, changed_at, origin, before, after, own_key, passed = found[0]
    images = [dict(zip(_texts(columns), parse_record(str(each)), strict=True)) for each in (before, after) if each]
    key = parse_record(str(own_key)) if own_key is not None else [images[-1][name] for name in _texts(names)]
    about = event(number, str(op), int(str(changed_at)), str(origin) or writer, "", images)
    name = str(TableName(str(schema), str(table)))
    return CapturedChange(number, name, tuple(str(value) for value in key), about, bool(passed))


def event(
    seq: int, op: str, changed_at: int, origin: str, route: str, images: Sequence[Mapping[str, object]] = ()
) -> RowEvent:
    """An outbox row as an event."""
    site = route.rpartition("/")[2] if route.startswith("@") else ""
    detail = f"change {seq}" + (f", for {site} alone" if site else "")
    what = Op(op).name.lower().replace("_", " ")
    return RowEvent("outbox", changed_at, origin.rpartition("/")[2], what, images[-1] if images else None, detail)


def _texts(value: object) -> Sequence[str]:
    assert isinstance(value, Sequence)
    return [str(each) for each in value]
