"""Audits a SQLite file: pages are read in short statements, then spelled and hashed outside of any lock.

A statement holds its shared lock only while its page is fetched, so a file in rollback-journal mode keeps its writers
waiting for milliseconds; in WAL mode nobody waits and no checkpoint is held back. SQLite runs in this process, so reading
and hashing a page costs what a SQL function called per row would, and works by column (see ``canonical.image_rows``).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from replicator.canonical import (
    VECTORS,
    Form,
    Undecodable,
    Value,
    bucket_of,
    hash_images,
    image_rows,
    native_value,
    split_image,
)
from replicator.engines.sqlite.affinity import Affinity, affinity_of
from replicator.engines.sqlite.connection import connect, translated
from replicator.ports import AuditRow, AuditTable, Digest
from replicator.sqlfiles import literal, quote, render, statement

_FILE = "sql/sqlite/audit.sql"
_FIRST_PAGE = 1024
_LARGEST_PAGE = 16_384
_SMALLEST_PAGE = 64
_ROWID_NAMES = ("rowid", "_rowid_", "oid")

_DIRECT = frozenset({Form.TEXT, Form.BYTES, Form.STORAGE})
_NUMBER_AFFINITIES = frozenset({Affinity.INTEGER, Affinity.REAL, Affinity.NUMERIC})

_Row = tuple[Value, ...]


class SqliteAudit:
    """Meets ``ports.Auditable``. One read-only connection; use from one thread at a time.

    Args:
        path: the database file.
        page_seconds: how long one page may hold its shared lock.
    """

    def __init__(self, path: Path, *, page_seconds: float = 0.02) -> None:
        self._place = str(path)
        self._page_seconds = page_seconds
        self._connection = connect(path, any_thread=True)
        self._rows(statement(_FILE, "settle"))

    def prove_form(self, form: str) -> Sequence[int]:
        """See ports.Auditable."""
        kind = Form(form)
        rows = [self._rows(statement(_FILE, "prove_value"), (probe.sqlite,))[0] for probe in VECTORS[kind]]
        return hash_images(image_rows([kind], rows))

    def digest_buckets(self, table: AuditTable, buckets: int) -> Mapping[int, Digest]:
        """See ports.Auditable."""
        counts = [0] * buckets
        totals = [0] * buckets
        forms = _forms(table)
        for page, keys in self._keyed(table):
            images = image_rows(forms, page)
            for key, row_hash in zip(keys, hash_images(images), strict=True):
                bucket = bucket_of(key, buckets)
                counts[bucket] += 1
                totals[bucket] += row_hash
        return {n: Digest(counts[n], totals[n]) for n in range(buckets) if counts[n]}

    def digest_rows(self, table: AuditTable, buckets: int, wanted: Sequence[int]) -> Iterator[tuple[str, int]]:
        """See ports.Auditable."""
        chosen, forms = set(wanted), _forms(table)
        for page, keys in self._keyed(table):
            found = [(row, key) for row, key in zip(page, keys, strict=True) if bucket_of(key, buckets) in chosen]
            images = image_rows(forms, [row for row, _ in found])
            yield from zip([key for _, key in found], hash_images(images), strict=True)

    def fetch_rows(self, table: AuditTable, keys: Sequence[str]) -> Sequence[AuditRow]:
        """See ports.Auditable. A key that may be stored in another spelling is looked for in all rows."""
        forms, key_forms = _forms(table), _key_forms(table)
        sql = _render(table, "fetch_row", same_key=" and ".join(f"t.{quote(column)} is ?" for column in table.key))
        rows: list[AuditRow] = []
        missing = []
        direct = _is_direct(table, key_forms)
        for key in keys:
            cells = split_image(key_forms, key)
            values = tuple(native_value(form, cell) for form, cell in zip(key_forms, cells, strict=True))
            found = [row for row in _audit_rows(table, forms, self._rows(sql, values)) if row.key == key]
            rows += found
            if not found and not (direct and not any(isinstance(value, Undecodable) for value in values)):
                missing.append(key)
        return rows + self._search(table, set(missing)) if missing else rows

    def close(self) -> None:
        """See ports.Auditable."""
        self._connection.close()

    def _search(self, table: AuditTable, keys: set[str]) -> list[AuditRow]:
        forms = _forms(table)
        return [row for page in self._pages(table) for row in _audit_rows(table, forms, page) if row.key in keys]

    def _keyed(self, table: AuditTable) -> Iterator[tuple[list[_Row], list[str]]]:
        """Rows and their key images, page by page."""
        key_forms = _key_forms(table)
        places = [table.columns.index(column) for column in table.key]
        for page in self._pages(table):
            yield page, image_rows(key_forms, [[row[n] for n in places] for row in page])

    def _pages(self, table: AuditTable) -> Iterator[list[_Row]]:
        """The table's rows in the order they lie in the file; each page is one short read."""
        place = self._place_columns(table)
        names = ", ".join(place)
        behind = f"({names}) > ({', '.join('?' for _ in place)})"
        upto = behind.replace(">", "<=")
        last: _Row | None = None
        size = _FIRST_PAGE
        while True:
            started = time.monotonic()
            begin = {"behind": behind} if last is not None else {}
            find = _render(table, "page_end", place=names, order=names, **begin)
            end = next(iter(self._rows(find, (*(last or ()), size - 1))), None)
            limits = {**begin, "upto": upto} if end is not None else begin
            page = self._rows(_render(table, "read_page", **limits), (*(last or ()), *(end or ())))
            took = time.monotonic() - started
            if page:
                yield page
            if end is None:
                return
            last = end
            size = max(_SMALLEST_PAGE, min(_LARGEST_PAGE, int(size * min(self._page_seconds / max(took, 1e-6), 4.0))))

    def _place_columns(self, table: AuditTable) -> tuple[str, ...]:
        """What orders the table as it lies in the file: its rowid, or the key of a table without one."""
        used = {column.lower() for column in table.columns}
        for name in _ROWID_NAMES:
            if name not in used:
                sql = render(
                    statement(_FILE, "probe_rowid"), identifiers={"table": table.name.name}, fragments={"rowid": name}
                )
                try:
                    self._connection.execute(sql)
                except sqlite3.OperationalError:
                    break
                return (f"t.{name}",)
        return tuple(f"t.{quote(column)}" for column in table.key)

    def _rows(self, sql: str, parameters: Sequence[Value] = ()) -> list[_Row]:
        """All rows of one statement; text that is not UTF-8 comes as Undecodable."""
        with translated(self._place):
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except sqlite3.OperationalError as error:
                if "decode" not in str(error):
                    raise
            self._connection.text_factory = _decode
            try:
                return self._connection.execute(sql, parameters).fetchall()
            finally:
                self._connection.text_factory = str


def _decode(text: bytes) -> str | Undecodable:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return Undecodable(text)


def _render(table: AuditTable, name: str, **fragments: str) -> str:
    constants = [f"t.{quote(column)} = {literal(value)}" for column, value in table.constants]
    filters = [*constants, _filter(table)]
    defaults = {
        "columns": ", ".join(f"t.{quote(column)}" for column in table.columns),
        "behind": "true",
        "upto": "true",
        "filter": " and ".join(filters),
    }
    return render(statement(_FILE, name), identifiers={"table": table.name.name}, fragments={**defaults, **fragments})


def _filter(table: AuditTable) -> str:
    """Whether the row ``t`` is one to be audited."""
    condition = f"({table.where})" if table.where else "true"
    for number in range(len(table.path), 0, -1):
        step = table.path[number - 1]
        child, parent = f"p{number - 1}" if number > 1 else "t", f"p{number}"
        pairs = zip(step.columns, step.parent_columns, strict=True)
        same = " and ".join(f"{parent}.{quote(theirs)} = {child}.{quote(ours)}" for ours, theirs in pairs)
        _, _, exists = statement(_FILE, "follows").partition("select ")
        fragments = {"alias": parent, "same": same, "condition": condition}
        condition = render(exists.strip(), identifiers={"table": step.parent.name}, fragments=fragments)
    return condition


def _forms(table: AuditTable) -> list[Form]:
    return [Form(form) for form in table.forms]


def _key_forms(table: AuditTable) -> list[Form]:
    return [Form(table.forms[table.columns.index(column)]) for column in table.key]


def _is_direct(table: AuditTable, key_forms: Sequence[Form]) -> bool:
    """Whether a key's canonical text tells exactly how it is stored here, so that a lookup that finds nothing is final."""
    for column, form in zip(table.key, key_forms, strict=True):
        affinity = affinity_of(table.types[table.columns.index(column)])
        numbers = form in (Form.INTEGER, Form.FLOAT8_ZERO) and affinity in _NUMBER_AFFINITIES
        if form not in _DIRECT and not numbers:
            return False
    return True


def _audit_rows(table: AuditTable, forms: Sequence[Form], rows: Sequence[_Row]) -> list[AuditRow]:
    if not rows:
        return []
    places = [table.columns.index(column) for column in table.key]
    natives = [tuple(row[n] for n in places) for row in rows]
    keys = image_rows([forms[n] for n in places], natives)
    return [AuditRow(*parts) for parts in zip(keys, image_rows(forms, rows), natives, strict=True)]
