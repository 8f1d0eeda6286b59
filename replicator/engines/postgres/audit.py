"""Audits a PostgreSQL database: rows are spelled, hashed and summed in SQL, page by page in key order.

Nothing is written and no statement is long: pages are sized so that one takes about ``page_seconds``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from psycopg.rows import TupleRow

from replicator.canonical import VECTORS, Form, readable, split_image
from replicator.engines.postgres.connection import connect, describe, translated
from replicator.errors import RejectedError
from replicator.ports import AuditRow, AuditTable, Digest
from replicator.sqlfiles import literal, quote, render, statement

_FILE = "sql/postgres/audit.sql"
_FIRST_PAGE = 4096
_LARGEST_PAGE = 131_072
_SMALLEST_PAGE = 256
_KEYS_AT_ONCE = 500

_VECTOR_TYPES: Mapping[Form, str] = {
    Form.INTEGER: "bigint", Form.NUMERIC: "numeric", Form.FLOAT8: "float8", Form.FLOAT8_ZERO: "float8",
    Form.FLOAT4: "float4", Form.BOOLEAN: "boolean", Form.PADDED: "character(9)", Form.BYTES: "bytea", Form.DATE: "date",
    Form.TIME: "time", Form.TIMESTAMP: "timestamp", Form.TIMESTAMPTZ: "timestamptz", Form.UUID: "uuid", Form.JSONB: "jsonb",
}  # fmt: skip


class PostgresAudit:
    """Meets ``ports.Auditable``. One connection; use from one thread at a time.

    Args:
        url: libpq URL; a standby serves too.
        page_seconds: how long one statement should take.
    """

    def __init__(self, url: str, *, application_name: str = "replicator audit", page_seconds: float = 0.25) -> None:
        self._place = describe(url)
        self._page_seconds = page_seconds
        self._connection = connect(url, application_name=application_name)
        self._run(statement(_FILE, "settle"))

    def prove_form(self, form: str) -> Sequence[int]:
        """See ports.Auditable."""
        kind = Form(form)
        sql = render(
            statement(_FILE, "prove_form"),
            fragments={"image": _piece(form, "value"), "type": _VECTOR_TYPES.get(kind, "text")},
        )
        hashes: Sequence[int] = self._run(sql, [[probe.postgres for probe in VECTORS[kind]]])[0][0]
        return hashes

    def digest_buckets(self, table: AuditTable, buckets: int) -> Mapping[int, Digest]:
        """See ports.Auditable."""
        digests: dict[int, Digest] = {}
        for (lines,) in self._pages("digest_page", table, buckets):
            for line in lines.splitlines():
                bucket, count, total = map(int, line.split())
                old = digests.get(bucket, Digest(0, 0))
                digests[bucket] = Digest(old.count + count, old.total + total)
        return digests

    def digest_rows(self, table: AuditTable, buckets: int, wanted: Sequence[int]) -> Iterator[tuple[str, int]]:
        """See ports.Auditable."""
        for keys, hashes in self._pages("rows_page", table, buckets, list(wanted)):
            yield from zip(keys or (), hashes or (), strict=True)

    def fetch_rows(self, table: AuditTable, keys: Sequence[str]) -> Sequence[AuditRow]:
        """See ports.Auditable. A key whose value the column's type cannot hold has no row here."""
        wanted = {key: values for key in keys if (values := _key_texts(table, key)) is not None}
        rows: list[AuditRow] = []
        for start in range(0, len(wanted), _KEYS_AT_ONCE):
            part = list(wanted.values())[start : start + _KEYS_AT_ONCE]
            try:
                rows += self._fetch(table, part)
            except RejectedError:
                rows += self._fetch_singly(table, part)
        return [row for row in rows if row.key in wanted]

    def close(self) -> None:
        """See ports.Auditable."""
        self._connection.close()

    def _fetch_singly(self, table: AuditTable, keys: Sequence[tuple[str, ...]]) -> Iterator[AuditRow]:
        for key in keys:
            try:
                yield from self._fetch(table, [key])
            except RejectedError as error:
                if not error.sqlstate.startswith("22"):
                    raise

    def _fetch(self, table: AuditTable, keys: Sequence[tuple[str, ...]]) -> list[AuditRow]:
        rows = self._run(_fetch_sql(table), [list(column) for column in zip(*keys, strict=True)])
        return [AuditRow(key, image, tuple(native)) for key, image, native in rows]

    def _pages(self, name: str, table: AuditTable, buckets: int, *parameters: object) -> Iterator[TupleRow]:
        """What a page statement gives, page after page: all but its last two columns (rows read, last key)."""
        size = _FIRST_PAGE
        last: Sequence[str] | None = None
        while True:
            sql = _page_sql(name, table, buckets, first=1 + len(parameters) + 1 if last else 0)
            started = time.monotonic()
            *found, read, last_key = self._run(sql, [size, *parameters, *(last or ())])[0]
            yield tuple(found)
            if read < size:
                return
            last = last_key
            pace = self._page_seconds / max(time.monotonic() - started, 1e-6)
            size = max(_SMALLEST_PAGE, min(_LARGEST_PAGE, int(size * min(pace, 4.0))))

    def _run(self, sql: str, parameters: Sequence[object] = ()) -> list[TupleRow]:
        with translated(self._place):
            return self._connection.execute(sql.encode(), parameters, prepare=False).fetchall()


def _page_sql(name: str, table: AuditTable, buckets: int, *, first: int) -> str:
    """A page statement; ``first`` is the number of the parameter that holds the first key value, 0 for the first page."""
    key = [f"t.{quote(column)}" for column in table.key]
    numbers = range(len(key))
    after = _constants(table)
    if first:
        types = _key_types(table)
        after.append(f"({', '.join(key)}) > ({', '.join(f'${first + n}::{types[n]}' for n in numbers)})")
    return render(
        statement(_FILE, name),
        identifiers={"schema": table.name.schema, "table": table.name.name},
        fragments={
            "keys": ", ".join(f"x.k{n}" for n in numbers),
            "row_keys": ", ".join(f"{column} as k{n}" for n, column in enumerate(key)),
            "mask": str(buckets - 1),
            "filter": _filter(table),
            "image": _image(table, table.columns),
            "key_image": _image(table, table.key),
            "after": " and ".join(after) or "true",
            "order": ", ".join(key),
            "last": ", ".join(_expression("part_last", f"k{n}") for n in numbers),
            "backward": ", ".join(f"k{n} desc" for n in numbers),
        },
    )


def _fetch_sql(table: AuditTable) -> str:
    key = [f"t.{quote(column)}" for column in table.key]
    same = [f"{column} = w.w{n}::{kind}" for n, (column, kind) in enumerate(zip(key, _key_types(table), strict=True))]
    return render(
        statement(_FILE, "fetch_rows"),
        identifiers={"schema": table.name.schema, "table": table.name.name},
        fragments={
            "wanted": ", ".join(_expression("part_wanted", parameter=f"${n + 1}") for n in range(len(key))),
            "names": ", ".join(f"w{n}" for n in range(len(key))),
            "key_image": _image(table, table.key),
            "image": _image(table, table.columns),
            "key": ", ".join(_expression("part_key", column) for column in table.key),
            "same_key": " and ".join(_constants(table) + same),
            "filter": _filter(table),
        },
    )


def _filter(table: AuditTable) -> str:
    """Whether the row ``t`` is one to be audited."""
    condition = f"({table.where})" if table.where else "true"
    for number in range(len(table.path), 0, -1):
        step = table.path[number - 1]
        child, parent = f"p{number - 1}" if number > 1 else "t", f"p{number}"
        pairs = zip(step.columns, step.parent_columns, strict=True)
        same = " and ".join(f"{parent}.{quote(theirs)} = {child}.{quote(ours)}" for ours, theirs in pairs)
        condition = _expression(
            "follows", schema=step.parent.schema, table=step.parent.name, alias=parent, same=same, condition=condition
        )
    return condition


def _constants(table: AuditTable) -> list[str]:
    return [f"t.{quote(name)} = {literal(value)}" for name, value in table.constants]


def _key_types(table: AuditTable) -> list[str]:
    return [table.types[table.columns.index(column)] for column in table.key]


def _image(table: AuditTable, columns: Sequence[str]) -> str:
    forms = dict(zip(table.columns, map(_block, table.forms, table.types), strict=True))
    return " || ".join(_piece(forms[column], column) for column in columns)


def _block(form: str, kind: str) -> str:
    """Which block spells a column; values without canonical rules of their own count as they are printed."""
    return "printed" if kind == "inet" and form == Form.TEXT else form


def _piece(form: str, column: str) -> str:
    """The expression that spells one column as a piece of an image."""
    return f"({_expression(f'form_{form}', column)})"


def _expression(name: str, column: str = "", *, schema: str = "", table: str = "", **fragments: str) -> str:
    """A block that is one expression: what stands behind its ``select``."""
    _, _, expression = statement(_FILE, name).partition("select ")
    names = {"column": column, "schema": schema, "table": table}
    return render(expression, identifiers=names, fragments=fragments)


def _key_texts(table: AuditTable, key: str) -> tuple[str, ...] | None:
    """The key's values as PostgreSQL reads them; ``None`` for a key no row here can have."""
    forms = dict(zip(table.columns, table.forms, strict=True))
    key_forms = [Form(forms[column]) for column in table.key]
    cells = split_image(key_forms, key)
    texts = [readable(form, cell) for form, cell in zip(key_forms, cells, strict=True) if cell.fits]
    whole = [text for text in texts if text is not None and "\0" not in text]
    return tuple(whole) if len(whole) == len(cells) else None
