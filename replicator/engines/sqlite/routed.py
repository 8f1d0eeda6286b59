"""Meets ports.Source and ports.InFlight for a SQLite file as a centre, read for one site.

As at a site a batch is the whole way from one state of the file to a later one, but of one site's rows: its reader asks the
outbox for its own routes only, and sends the rows that meet the site's condition as they are, or that they are gone.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from replicator.engines.sqlite.batch import KeyBatch, Place
from replicator.engines.sqlite.catalogue import read_catalogue
from replicator.engines.sqlite.connection import transaction, translated
from replicator.engines.sqlite.names import trigger_name
from replicator.engines.sqlite.reading import TableReader
from replicator.engines.sqlite.session import add_functions
from replicator.engines.sqlite.shares import Shares
from replicator.engines.sqlite.slices import RoutedReader
from replicator.engines.sqlite.source import SqliteSource
from replicator.engines.sqlite.versions import fold_local, read_relations, route_to
from replicator.errors import RetryableError, SchemaError, fed_by_another
from replicator.model import ChunkRequest, Key, Lag, Position, Relation, TableName, TablePlan, TableShape, lineage
from replicator.ports import Batch, RowBlock
from replicator.sqlfiles import render, statement

_SQL = "sql/sqlite/routed.sql"
_SOURCE = "sql/sqlite/source.sql"
_CATALOGUE = "sql/sqlite/catalogue.sql"
_TRANSACTIONS = "sql/sqlite/transactions.sql"
_SEPARATOR = "\x1f"
_CHUNK_BYTES = 8 * 1024 * 1024
_PASS_ROWS = 5_000
"""An outbox that has gone on by this much with nothing for the site still moves the link, so that it can be pruned."""
_PRUNE_ROWS = 2_000


class RoutedBatch(KeyBatch):
    """Meets ports.Batch: one site's rows on the way from one state of the centre to a later one.

    Args:
        source: whose batch it is.
        after: the position it follows.
        start: where that is.
        limit: at most this many outbox rows per chunk.
        changed: tables to be read whole, and further routes that the site was read by until now.
        wanted: the chunk of a backfill that the batch is to end with.
    """

    def __init__(
        self, source: SqliteRoutedSource, after: Position | None, start: Place, limit: int,
        changed: tuple[frozenset[str], tuple[str, ...]] = (frozenset(), ()), wanted: ChunkRequest | None = None,
    ) -> None:  # fmt: skip
        self._changed, former = changed
        routes = json.dumps(list(dict.fromkeys([*json.loads(source.routes), *former])), ensure_ascii=False)
        look = source.look if start.read_all else lambda: source.look_whole(routes)
        super().__init__(after, start, source.connection, source.place, look, limit, dict, wanted)
        self._site_routes, self._own, self._route = routes, source.own, source.own_route
        self._newest: str | None = None
        self._all_upto = 0
        if start.read_all:
            # All rows come by pages first, so orders to read all that were given before are carried out. The outbox comes
            # behind them from its start: it knows what the site wrote that is not its own, and the markers.
            with translated(source.place):
                found = source.connection.execute(statement(_SQL, "processed_upto"), source.site).fetchone()
                self._newest = str(found[0]) if found and found[0] is not None else None
                self._all_upto = int(source.connection.execute(statement(_SOURCE, "read_top")).fetchone()[0])

    @property
    def marker(self) -> Position | None:
        """The newest marker of the stretch."""
        return None if self._newest is None else Position(self._newest)

    def blocks(self) -> Iterator[RowBlock]:
        """See ports.Batch; tables of which the site is to have another share come whole, ahead of what the outbox has."""
        for number, relation in self.relations.items():
            if str(relation.table) in self._changed:
                yield from self._read_all(number, 0)
        yield from super().blocks()

    def _read_stretch(self) -> tuple[list[RowBlock], tuple[int, int] | None, bool]:
        execute = self._connection.execute
        readers = self._look()
        (top,) = execute(statement(_SOURCE, "read_top")).fetchone()
        low, routes = self._seq, self._site_routes
        end = execute(statement(_SQL, "stretch_end"), (routes, low, top, self._chunk - 1)).fetchone()
        high, order = top if end is None else end[0], None
        found = execute(statement(_SQL, "first_read_all"), (routes, low, high)).fetchone()
        if found is not None:
            high, number, stamp = found
            order = (int(number), int(stamp or 0)) if number in readers and high > self._all_upto else None
        blocks, size = [], 0
        for (number,) in execute(statement(_SQL, "relations_between"), (routes, low, high)).fetchall():
            if number in readers:
                budget = _CHUNK_BYTES - size if self._chunk > 1 else 1 << 62
                block, more = readers[number].changed_rows(self._connection, low, high, self._shift, budget)
                blocks.append(block)
                size += more
        marked = execute(statement(_SQL, "newest_marker"), (self._route, low, high)).fetchone()
        last = execute(statement(_SOURCE, "read_stamp"), (high,)).fetchone()
        if size < _CHUNK_BYTES // 4:
            self._chunk = min(self._chunk * 2, self._largest)
        self._newest = str(marked[0]) if marked else self._newest
        self._seq, self._stamp = high, int(last[0] or 0) if last else 0
        return blocks, order, bool(high == top and order is None)


class SqliteRoutedSource(SqliteSource):
    """A SQLite centre, read for one site: arguments as SqliteSource's, ``plans`` are those of the link from the centre."""

    _equipped: sqlite3.Connection | None = None
    _passed: tuple[Position | None, int] = (None, 0)
    """Up to which outbox row there was nothing for the site, behind which position."""
    _tellers: tuple[Mapping[int, TableReader], Mapping[int, RoutedReader]] = ({}, {})
    _shapes: Mapping[TableName, TableShape] | None = None
    _shapes_version: int | None = None

    @contextmanager
    def read_batch(
        self, after: Position | None, limit: int, wanted: ChunkRequest | None = None
    ) -> Iterator[Batch | None]:
        """See ports.Source: everything for the site behind ``after``; what is not for it is passed over once."""
        with translated(self._place):
            self._data_version = self._probe()
            if after is None:
                self._reserve()
            start = self._start(after, anyway=wanted is not None)
            changed = self._shares.changed(self._connection)
            if after is not None and changed[0]:
                start = start or Place(after.split(":")[0], self._seq_of(after))
            elif start is not None and after is not None:
                start = self._pass_over(after, start) or (start if wanted is not None else None)
        if start is None:
            yield None
            return
        start = start if after is not None else replace(start, read_all=True)
        yield RoutedBatch(self, after, start, limit, changed, wanted)

    def _reserve(self) -> None:
        """Keep what comes behind the first reading, also when its acknowledgement never arrives."""
        with transaction(self._connection, statement(_TRANSACTIONS, "begin_write")):
            self._connection.execute(
                statement("sql/sqlite/versions.sql", "keep_for"), (self._link.text, self._link.topology)
            )
            self._shares.record(self._connection)

    def _pass_over(self, after: Position, start: Place) -> Place | None:
        """Where reading begins behind what was seen not to concern the site; None when there is nothing, or not much, to do."""
        low = max(start.seq, self._passed[1] if self._passed[0] == after else 0)
        (top,) = self.connection.execute(statement(_SOURCE, "read_top")).fetchone()
        parameters = (self.routes, low, top, self.own)
        if self.connection.execute(statement(_SQL, "has_news"), parameters).fetchone()[0]:
            return replace(start, seq=low)
        self._passed = (after, int(top))
        return replace(start, seq=int(top) - 1) if top - start.seq > _PASS_ROWS else None

    def prove_history(self, after: Position | None, stamp: str, target: str) -> bool:
        """See ports.Source."""
        with translated(self._place):
            found = self._connection.execute(statement(_SQL, "read_fed"), self.site).fetchone()
        if found and found[0] and target and lineage(str(found[0])) != lineage(target):
            raise fed_by_another(str(self._link.reverse), self._link.site, target, str(found[0]))
        if after is None:
            with translated(self._place):
                (known,) = self._connection.execute(statement(_SQL, "has_delivered"), (self._link.text,)).fetchone()
            if known:
                raise self._not_known("has brought rows before, of which its other end knows nothing: it was put back")
        return super().prove_history(after, stamp, target)

    # --- what the batch needs -------------------------------------------------------------------------------------

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection, with our functions."""
        return self._connection

    @property
    def _connection(self) -> sqlite3.Connection:
        opened = super()._connection
        if opened is not self._equipped:
            add_functions(opened)
            self._equipped = opened
        return opened

    @property
    def place(self) -> str:
        """The file, for messages."""
        return self._place

    def look(self) -> Mapping[int, TableReader]:
        """The readers by relation number, inside a read transaction."""
        return self._look()

    def look_whole(self, routes: str) -> Mapping[int, TableReader]:
        """As ``look``, where whole tables are read for a site that has rows already: it is told which are not its own."""
        readers = self._look()
        if self._tellers[0] is not readers or any(reader.routes != routes for reader in self._tellers[1].values()):
            found = [reader for reader in readers.values() if isinstance(reader, RoutedReader)]
            tellers = {each.relation.id: replace(each, routes=routes, tells_gone=True) for each in found}
            self._tellers = (readers, tellers)
        return self._tellers[1]

    @cached_property
    def _shares(self) -> Shares:
        return Shares(self._link, self._plans)

    @property
    def site(self) -> tuple[str, str]:
        """Topology and site."""
        return self._link.topology, self._link.site

    @cached_property
    def own(self) -> str:
        """The origin of the site's own changes, which never come back to it."""
        return self._link.reverse.origin

    @cached_property
    def own_route(self) -> str:
        """The route that concerns this site alone."""
        return route_to(self._link)

    @cached_property
    def routes(self) -> str:
        """All routes that concern the site, as a JSON list."""
        divided = {"=" + _SEPARATOR.join(plan.params) for plan in self._plans if plan.route.columns}
        return json.dumps(["", self.own_route, *sorted(divided)], ensure_ascii=False)

    def _wants(self, route: str) -> bool:
        return route in json.loads(self.routes)

    def _find_readers(self) -> Iterator[TableReader]:
        rows = self._connection.execute(statement(_CATALOGUE, "list_triggers")).fetchall()
        present = {(str(name), str(table).lower()) for name, table, _, _ in rows}
        found = self._connection.execute(statement(_SOURCE, "list_relations"), (self._link.topology,)).fetchall()
        known = {str(table).lower(): (int(n), json.loads(key), str(mark)) for n, table, key, mark, _ in found}
        recorded = {str(table): str(columns) for _, table, _, _, columns in found}
        if recorded != (self._recorded or recorded):
            raise RetryableError(f"{self._place}: install has recorded other columns; the link is planned anew")
        self._recorded = recorded
        for plan in self._plans:
            self._require_shape(plan)
            table = plan.source.name.name
            number, key, fingerprint = known.get(table.lower(), (0, [], ""))
            wanted = [trigger_name(self._link.topology, table, event) for event in ("ai", "au", "ak", "ad")]
            whole = {*plan.key, *(name for name, _ in plan.source_constants)}
            if not number or any((name, table.lower()) not in present for name in wanted) or set(key) != whole:
                raise SchemaError(
                    f"{self._place}: table {table} is not captured for the sites: it was rebuilt, or our triggers were dropped",
                    hint="run: replicator install (capture starts again with all its rows), then replicator audit",
                )
            columns = tuple(column.source for column in plan.columns)
            relation = Relation(number, TableName("", table), columns, plan.key, fingerprint)
            yield RoutedReader(plan, relation, tuple(key), self.routes, self.own)

    # --- acknowledging --------------------------------------------------------------------------------------------

    def acknowledge_batch(self, upto: Position) -> None:
        """See ports.Source."""
        self._shares.delivered()
        super().acknowledge_batch(upto)

    def _say(self) -> None:
        """See SqliteSource; what was written here goes into the ledger before it may be pruned."""
        if self._unsaid is None and not self._prunable:
            return
        with translated(self._place):
            shapes = self._read_shapes()
            self._connection.execute(statement(_TRANSACTIONS, "busy_briefly"))
        try:
            with translated(self._place), transaction(self._connection, statement(_TRANSACTIONS, "begin_write")):
                execute = self._connection.execute
                fold_local(self._connection, read_relations(self._connection, self._link.topology), shapes)
                if self._unsaid is not None:
                    execute(statement(_SOURCE, "acknowledge"), (self._link.text, self._link.topology, self._unsaid))
                    execute(statement(_SQL, "unexpire_link"), (self._link.text,))
                    execute(statement(_SQL, "record_routes"), (self._link.text, self.routes))
                    if self._shares.due:
                        self._shares.record(self._connection)
                execute(statement(_SQL, "expire_links"), (self._link.topology, self._retention_days))
                pruned = execute(statement(_SOURCE, "prune"), (_PRUNE_ROWS,)).rowcount
        except RetryableError:
            return
        finally:
            with translated(self._place):
                self._connection.execute(statement(_TRANSACTIONS, "busy_as_ever"))
        self._unsaid = None
        self._prunable = pruned >= _PRUNE_ROWS - 1
        self._read_passed()
        self._acknowledged_at = time.monotonic()

    def _read_shapes(self) -> Mapping[TableName, TableShape]:
        (version,) = self._connection.execute(statement(_CATALOGUE, "schema_version")).fetchone()
        if self._shapes is None or version != self._shapes_version:
            self._shapes, self._shapes_version = read_catalogue(self._connection).tables, version
        return self._shapes

    # --- lag, what is in flight -----------------------------------------------------------------------------------

    def read_lag(self, after: Position | None) -> Lag:
        """What lies behind ``after`` for this site, and the time of the first."""
        seq = max(self._seq_of(after), 1)
        with translated(self._place):
            parameters = (self.routes, seq, self.own)
            changes, oldest = self._connection.execute(statement(_SQL, "read_lag"), parameters).fetchone()
        return Lag(int(changes), int(oldest or 0))

    def keys_in_flight(self, table: TablePlan, after: Position | None, keys: Sequence[Key]) -> set[Key]:
        """Those of ``keys`` touched behind ``after``; all of them when the whole table is about to be read."""
        wanted, found = set(keys), set()
        with translated(self._place), self._reading():
            number = self._relation_of(table)
            reader = self._look()[number]
            noted = reader.noted if isinstance(reader, RoutedReader) else table.key
            places = ", ".join(f"k{noted.index(name)}" for name in table.key)
            sql = render(statement(_SOURCE, "list_keys_behind"), fragments={"places": places})
            for op, *key in self._connection.execute(sql, (self._seq_of(after), number)):
                if op == "a":
                    return wanted
                found.add(tuple(key))
        return wanted & found
