"""Tells whether a position was read from this very history of a PostgreSQL database, or from one that was put back or copied.

A position is a snapshot, and transaction ids are given out again after a restore: by itself it would fit again after a
while. So each batch has a stamp. ``rows/<after>/<count>/<seq>/<time>``: the outbox rows between two snapshots, which stay until
the batch is acknowledged; ``nonce/<text>``: a batch without any, put on record here before it is handed out.
"""

from __future__ import annotations

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection
from replicator.engines.postgres.positions import snapshot_of
from replicator.engines.postgres.windows import START, read_ranges
from replicator.errors import BatchError, fed_by_another, rejoin_hint
from replicator.model import LinkName, Position, lineage


def rows_stamp(after: Position, count: int, seq: int, changed_at: int) -> str:
    """The stamp of a batch with outbox rows behind ``after``: how many, and the newest with its time."""
    return f"rows/{after}/{count}/{seq}/{changed_at}"


def routed_stamp(
    connection: PostgresConnection, start: Position, ranges: tuple[list[int], list[int]], routes: list[str]
) -> str:
    """The stamp of a window of a centre's outbox, empty when it has no row of these routes."""
    found = rows(connection, "stamps", "routed_stamp", *ranges, routes)
    if not found:
        return ""
    count, seq, changed_at = (int(str(each)) for each in found[0])
    return rows_stamp(start, count, seq, changed_at)


def add_nonce(connection: PostgresConnection, link: LinkName, after: Position | None, upto: Position) -> str:
    """The stamp of a batch without rows: durable here before anybody else knows it, and written behind its snapshot."""
    return f"nonce/{rows(connection, 'stamps', 'add_nonce', link.text, after, upto)[0][0]}"


def require_site(connection: PostgresConnection, link: LinkName, target: str) -> None:
    """On a link from the centre: its target must be the database that feeds the link to the centre."""
    if not link.direction.rises and target:
        found = rows(connection, "stamps", "read_fed", link.topology, link.site)
        known = str(found[0][0]) if found else ""
        if known and lineage(known) != lineage(target):
            raise fed_by_another(str(link.reverse), link.site, target, known)


def prove(connection: PostgresConnection, place: str, link: LinkName, after: Position | None, stamp: str) -> bool:
    """See ports.Source.prove_history."""
    snapshot = START if after is None else snapshot_of(after)
    ((past, known, covered, behind, expired, delivered),) = rows(connection, "stamps", "compare", link.text, snapshot)
    there = "the centre" if link.direction.rises else link.site
    if after is None:
        if (known if link.direction.rises else delivered) is not None:
            raise _not_of_it(link, f"{place}: {there} knows nothing of {link}, which has brought changes there before")
        return True
    if behind:
        raise _not_of_it(link, f"{place}: {link} asks for what {there} had already: {there} was put back from a copy")
    if not past:
        raise _not_of_it(link, f"{place}: the position of {link} lies in this database's future")
    if covered or expired:
        return bool(covered)
    if not stamp:
        return False
    if not _finds(connection, link, snapshot, stamp):
        raise _not_of_it(link, f"{place}: the position of {link} is not of this database's history")
    return True


def _finds(connection: PostgresConnection, link: LinkName, upto: Position, stamp: str) -> bool:
    kind, *fields = stamp.split("/")
    if kind == "nonce":
        return bool(rows(connection, "stamps", "has_nonce", link.text, fields[0])[0][0])
    after, count, seq, changed_at = Position(fields[0]), *map(int, fields[1:])
    ranges = read_ranges(connection, after, upto)
    ((found, there),) = rows(connection, "stamps", "find_stamp", *ranges, seq, changed_at)
    return bool(there) and int(str(found)) >= count


def _not_of_it(link: LinkName, what: str) -> BatchError:
    return BatchError(f"{what}: it was restored from a backup, copied, or made anew", hint=rejoin_hint(link.site))
