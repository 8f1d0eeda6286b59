"""Invariant 5: every value arrives exact, or is parked with a reason; on every pair of engines.

What "exact" means is said here without replicator's own canonical forms: PostgreSQL to PostgreSQL by the bytes of a binary
COPY, SQLite to SQLite by storage class and bytes, and across engines by ``same_value``. The audit must then agree.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import date
from decimal import Decimal, InvalidOperation

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from replicator.audit import AuditVerdict, Limits
from replicator.pipeline import retry_parked
from tests.fixtures import zoo
from tests.fixtures.pairs import MakePair, Pair, PostgresPlace, SqlitePlace

SETTLED = "-c datestyle=iso,mdy -c intervalstyle=postgres -c timezone=utc -c extra_float_digits=1 -c bytea_output=hex"
Cell = tuple[str, object]
"""PostgreSQL: type and text. SQLite: storage class and value."""


def settled(place: PostgresPlace) -> psycopg.Connection:
    """A connection that spells values as replicator's do."""
    return psycopg.connect(place.url, autocommit=True, options=SETTLED)


# --- reading both sides ---


def cells(place: object, table: str) -> dict[object, Cell]:
    """Every row's value by id."""
    if isinstance(place, PostgresPlace):
        with settled(place) as connection:
            text = "case when v is distinct from null then concat(v) end"  # as the type prints it; a cast may do more
            rows = connection.execute(f'select id, pg_typeof(v)::text, {text} from "{table}"').fetchall()
        return {number: (kind, text) for number, kind, text in rows}
    assert isinstance(place, SqlitePlace)
    with closing(place.connect()) as file:
        file.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        return {number: (kind, value) for number, kind, value in file.execute(f'select id, typeof(v), v from "{table}"')}


def binary(place: PostgresPlace, table: str) -> bytes:
    """The table as COPY sends it: every bit of every value."""
    with settled(place) as connection, connection.cursor() as cursor:
        with cursor.copy(f'copy (select id, v from "{table}" order by id) to stdout (format binary)') as copy:
            return b"".join(bytes(chunk) for chunk in copy)


# --- the same value in two engines ---


def same_value(postgres: Cell, sqlite: Cell) -> bool:
    """Whether a value of PostgreSQL and one of SQLite are one and the same."""
    (kind, text), (storage, value) = postgres, sqlite
    if text is None or value is None:
        return text is None and value is None
    assert isinstance(text, str)
    if isinstance(value, bytes):
        return kind == "bytea" and text == "\\x" + value.hex()
    if kind == "bytea":
        return False
    if kind == "boolean":
        return value in ((1, "t", "true") if text == "t" else (0, "f", "false"))
    if isinstance(value, str):
        return _same_text(kind, text, value)
    return _same_number(kind, text, value)


def _same_number(kind: str, text: str, value: object) -> bool:
    assert isinstance(value, int | float)
    try:
        number = Decimal(text)
    except InvalidOperation:
        return False
    if kind == "real":
        return struct.pack("f", float(text)) == struct.pack("f", value) or float(text) == value
    if isinstance(value, float) and not math.isfinite(value):
        return float(text) == value
    # A double may stand for its shortest digits or for its whole binary value.
    return number == Decimal(value) or number == Decimal(repr(value))


def _same_text(kind: str, text: str, value: str) -> bool:
    if text == value or (text.lower() == value.lower() and text in ("NaN", "Infinity", "-Infinity", "infinity", "-infinity")):
        return True
    if kind == "character":
        return text.rstrip(" ") == value.rstrip(" ")
    if kind in ("numeric", "double precision", "real", "smallint", "integer", "bigint"):
        try:
            return Decimal(text) == Decimal(value)
        except InvalidOperation:
            return False
    if kind == "uuid":
        return text == value.lower().strip("{}")
    if kind == "date" or kind.startswith(("time", "date")):
        return _moment(text) == _moment(value)
    return False


def _moment(text: str) -> str:
    """A date or time in one spelling; the zones of the values here are UTC, or told by PostgreSQL in UTC."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)?[T ]?(\d\d:\d\d)?(:\d\d)?(\.\d+)?(Z|[+-]\d\d(?::\d\d)?)?", text)
    if not found:
        return text
    day, minutes, seconds, fraction, zone = (part or "" for part in found.groups())
    if zone == "+05:30":  # the only zone in the zoo that is not UTC
        return _moment({"2024-02-29 12:34:56+05:30": "2024-02-29 07:04:56"}.get(text, text + "?"))
    clock = f"{minutes}{seconds or ':00'}{fraction.rstrip('0').rstrip('.')}" if minutes else "00:00:00"
    return f"{day} {clock}"


# --- what every case must hold ---


def changed(pair: Pair, tables: dict[str, str]) -> Iterator[str]:
    """Every value that is neither the same at the centre nor parked with a cause."""
    parked = {(change.table, str((change.after or change.before or {}).get("id"))): change for change in pair.parked()}
    for table, kind in tables.items():
        here, there = cells(pair.site, table), cells(pair.centre, table)
        yield from (f"{table} {kind}: extra row {number}" for number in there.keys() - here.keys())
        for number, cell in here.items():
            if number not in there:
                if (change := parked.get((table, str(number)))) is None:
                    yield f"{table} {kind}: {cell!r:.200} is lost"
                elif not change.cause.strip():
                    yield f"{table} {kind}: {cell!r:.200} is parked without a cause"
            elif not same(pair, cell, there[number]):
                yield f"{table} {kind}: {cell!r:.200} became {there[number]!r:.200}"
        same_types = {cell[0] for cell in here.values()} == {cell[0] for cell in there.values()}
        own = kind.removesuffix("[]") in zoo.OWN  # their bytes hold numbers that each database gives anew
        both = isinstance(pair.site, PostgresPlace) and isinstance(pair.centre, PostgresPlace)
        if both and same_types and not own and here.keys() == there.keys():
            if binary(pair.site, table) != binary(pair.centre, table):
                yield f"{table} {kind}: not every bit is the same"


def same(pair: Pair, here: Cell, there: Cell) -> bool:
    """By the engines of the pair."""
    match pair.site, pair.centre:
        case PostgresPlace(), PostgresPlace():
            return here[1] == there[1] or same_across(here, there)
        case SqlitePlace(), SqlitePlace():
            return exact(here) == exact(there)
        case PostgresPlace(), _:
            return same_value(here, there)
        case _:
            return same_value(there, here)


def same_across(here: Cell, there: Cell) -> bool:
    """Two PostgreSQL columns of different types."""
    (kind, text), (other, seen) = here, there
    if (kind == other and kind != "numeric") or not isinstance(text, str) or not isinstance(seen, str):
        return False
    if other == "date":
        return text == f"{seen} 00:00:00"
    if other == "character":
        return text.rstrip(" ") == seen.rstrip(" ")
    if "[]" in kind:
        return text.replace("0", "") == seen.replace("0", "")
    try:
        return Decimal(text) == Decimal(seen)
    except InvalidOperation:
        return False


def exact(cell: Cell) -> tuple[str, object]:
    """-0.0 and 0.0 apart, infinities as they are."""
    storage, value = cell
    return storage, value.hex() if isinstance(value, float) else value


def unequal(pair: Pair) -> list[str]:
    """What the audit says is different without being parked, or cannot be proven."""
    app = pair.app
    found = []
    for report in app.audit(pair.name, app.plans(pair.name), Limits()):
        wrong = [row for row in report.differences if not row.parked]
        if wrong or report.verdict is AuditVerdict.NOT_PROVEN:
            found.append(f"{report.source}: {report.verdict} {report.reason} {wrong!r:.300}")
    return found


# --- the zoo ---


def postgres_tables(pair: Pair) -> dict[str, str]:
    """A table per type with its values at a PostgreSQL site."""
    assert isinstance(pair.site, PostgresPlace)
    tables = {}
    with settled(pair.site) as connection:
        modern = connection.info.server_version >= 140000
        for statement in zoo.SETUP:
            connection.execute(statement)
        kinds = [*zoo.POSTGRES, *(zoo.MULTIRANGES if modern else ())]
        try:
            connection.execute("select '<a/>'::xml")
        except psycopg.errors.FeatureNotSupported:
            kinds.remove("xml")  # this server was built without it
        for place, kind in enumerate(kinds):
            table = f"zoo_{place:02}"
            tables[table] = kind
            connection.execute(f'create table "{table}" (id integer primary key, v {kind})')
    return tables


def fill_postgres(pair: Pair, tables: dict[str, str]) -> None:
    """All values of all tables, and a NULL each."""
    assert isinstance(pair.site, PostgresPlace)
    with settled(pair.site) as connection:
        modern = connection.info.server_version >= 140000
        for table, kind in tables.items():
            values = {**zoo.POSTGRES, **zoo.MULTIRANGES}[kind]
            for number, value in enumerate(values, 1):
                if modern or kind != "numeric" or "Inf" not in value:
                    connection.execute(f'insert into "{table}" values (%s, %s::{kind})', (number, value))
            connection.execute(f'insert into "{table}" values (0, null)')


def rotate(pair: Pair, tables: Sequence[str]) -> None:
    """Every row gets the value of the next one, so that updates compare and carry every value too."""
    for table in tables:
        pair.site.run(
            f'create table "tmp_{table}" as select id, v from "{table}"',
            f'update "{table}" set v = (select t.v from "tmp_{table}" t where t.id > "{table}".id order by t.id limit 1)',
            f'drop table "tmp_{table}"',
        )


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_invariant_5_every_postgres_type_arrives_exact_or_is_parked(make_pair: MakePair, target: str) -> None:
    pair = make_pair("postgres", target)
    tables = postgres_tables(pair)
    pair.install("zoo_*")
    fill_postgres(pair, tables)
    pair.sync()
    assert list(changed(pair, tables)) == []
    if target == "postgres":
        assert pair.parked() == [], "whatever PostgreSQL holds, a table of the same type holds"
    assert unequal(pair) == []
    if target == "postgres":
        rotate(pair, list(tables))
        pair.sync()
        assert list(changed(pair, tables)) == []
        assert (pair.conflicts(), pair.parked()) == ([], [])
        pair.site.run(*(f'delete from "{table}"' for table in tables))
        pair.sync()
        assert [table for table in tables if cells(pair.centre, table)] == []


def test_invariant_5_types_made_by_the_site_arrive_in_a_centre_that_has_them(make_pair: MakePair) -> None:
    pair = make_pair("postgres", "postgres")
    kinds = ["mood", "mood[]", "small_text", "positive", "pair", "pair[]"]
    tables = {f"zoo_{place}": kind for place, kind in enumerate(kinds)}
    for place in (pair.site, pair.centre):
        place.run(*zoo.SETUP, *(f"create table {name} (id integer primary key, v {kind})" for name, kind in tables.items()))
    pair.install("zoo_*")
    fill_postgres(pair, tables)
    pair.sync()
    assert list(changed(pair, tables)) == []
    rotate(pair, list(tables))
    pair.sync()
    assert list(changed(pair, tables)) == []
    assert (pair.conflicts(), pair.parked()) == ([], [])


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_invariant_5_every_sqlite_value_in_every_declared_type_arrives_exact_or_is_parked(
    make_pair: MakePair, target: str
) -> None:
    pair = make_pair("sqlite", target)
    assert isinstance(pair.site, SqlitePlace)
    tables = {f"zoo_{place:02}": kind for place, kind in enumerate(zoo.DECLARED)}
    with closing(pair.site.connect()) as file:
        for table, kind in tables.items():
            file.execute(f'create table "{table}" (id integer primary key, v {kind})')
    pair.install("zoo_*")
    with closing(pair.site.connect()) as file:
        for table in tables:
            file.executemany(f'insert into "{table}" values (?, ?)', list(enumerate(zoo.STORED)))
            file.execute(f"insert into \"{table}\" values (1000, cast(x'fffe41' as text))")
    pair.sync()
    assert list(changed(pair, tables)) == []
    if target == "sqlite":
        odd = [change for change in pair.parked() if "UTF-8" not in change.cause]
        assert odd == [], "whatever SQLite holds, a column of the same declared type holds"
    else:
        assert not [change for change in pair.parked() if change.table == "zoo_01" and int(str((change.after or {})["id"])) < 8]
    assert unequal(pair) == []


# --- narrower columns at the centre ---


@pytest.mark.parametrize(
    ("kind", "narrow", "fits", "does_not"),
    [
        ("numeric", "numeric(6,2)", "12.3", "12.345"),
        ("text", "character(5)", "abc", "abcdef"),
        ("numeric", "integer", "12", "12.5"),
        ("double precision", "real", "0.5", "0.1"),
        ("bigint", "integer", "5", "3000000000"),
        ("bigint", "double precision", "9007199254740992", "9007199254740993"),
        ("text", "character varying(3)", "abc", "abcd"),
        ("text", "character varying(3)", "ab ", "abc "),
        ("text", "name", "x" * 63, "x" * 64),
        ("timestamp", "timestamp(0)", "2024-01-01 00:00:01", "2024-01-01 00:00:01.5"),
        ("timestamp", "date", "2024-01-01 00:00:00", "2024-01-01 00:00:01"),
        ("interval", "interval(0)", "1 day", "00:00:00.5"),
        ("bit varying", "bit(3)", "101", "1011"),
        ("numeric[]", "numeric(6,2)[]", "{1.25}", "{1.255}"),
    ],
)
def test_invariant_5_what_the_target_would_round_or_cut_is_parked(
    make_pair: MakePair, kind: str, narrow: str, fits: str, does_not: str
) -> None:
    pair = make_pair("postgres", "postgres")
    pair.site.run(f"create table zoo (id integer primary key, v {kind})")
    pair.centre.run(f"create table zoo (id integer primary key, v {narrow})")
    pair.install("zoo")
    pair.site.run(f"insert into zoo values (1, '{fits}'), (2, '{does_not}')")
    pair.sync()
    assert list(changed(pair, {"zoo": kind})) == []
    assert pair.centre.rows("select id from zoo") == [(1,)]
    (parked,) = pair.parked()
    assert parked.cause
    pair.site.run("update zoo set v = null where id = 1", f"update zoo set v = '{fits}' where id = 1")
    pair.sync()
    pair.site.run("update zoo set v = null where id = 1")
    pair.sync()
    assert (pair.conflicts(), len(pair.parked())) == ([], 1)


@pytest.mark.parametrize(
    ("kind", "narrow", "fits", "does_not"),
    [
        ("REAL", "numeric(6,2)", "12.5", "12.345"),
        ("TEXT", "character(5)", "'abc'", "'abcdef'"),
        ("NUMERIC", "numeric(6,2)", "12", "99999"),
        ("REAL", "real", "0.5", "0.30000000000000004"),
        ("INTEGER", "smallint", "5", "40000"),
        ("INTEGER", "double precision", "9007199254740992", "9007199254740993"),
        ("TEXT", "character varying(3)", "'abc'", "'abcd'"),
        ("TEXT", "name", "'abc'", f"'{'x' * 64}'"),
        ("TEXT", "timestamp(0)", "'2024-01-01 00:00:01'", "'2024-01-01 00:00:01.5'"),
        ("TEXT", "date", "'2024-01-01'", "'2024-01-01 10:00:00'"),
        ("INTEGER", "boolean", "1", "2"),
        ("TEXT", "uuid", "'00000000-0000-0000-0000-000000000001'", "'nothing'"),
        ("TEXT", "jsonb", "'[1]'", "'[1'"),
    ],
)
def test_invariant_5_what_a_narrow_centre_would_make_of_sqlite_values_is_parked(
    make_pair: MakePair, kind: str, narrow: str, fits: str, does_not: str
) -> None:
    pair = make_pair("sqlite", "postgres")
    pair.site.run(f"create table zoo (id integer primary key, v {kind})")
    pair.centre.run(f"create table zoo (id bigint primary key, v {narrow})")
    pair.install("zoo")
    pair.site.run(f"insert into zoo values (1, {fits}), (2, {does_not})")
    pair.sync()
    assert list(changed(pair, {"zoo": kind})) == []
    assert pair.centre.rows("select id from zoo") == [(1,)]
    assert len(pair.parked()) == 1
    pair.site.run("update zoo set v = null where id = 1", f"update zoo set v = {fits} where id = 1", f"insert into zoo values (3, {fits})")
    pair.sync()
    pair.site.run("update zoo set v = null where id in (1, 3)")
    pair.sync()
    assert list(changed(pair, {"zoo": kind})) == []
    assert (pair.conflicts(), len(pair.parked())) == ([], 1)


# --- random values ---

_TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=30)
_FLOAT = st.floats(allow_nan=False)
_STORED = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), _FLOAT, st.text(st.characters(exclude_categories=("Cs",)), max_size=30),
    st.binary(max_size=30), st.from_regex(r"\A-?\d{1,40}(\.\d{0,30})?(e-?\d{1,2})?\Z"), st.dates().map(date.isoformat),
    st.datetimes().map(str),
)  # fmt: skip
_RANDOM_KINDS = {
    "numeric": st.decimals(allow_nan=False).filter(lambda n: not n.is_finite() or abs(n.adjusted()) < 300).map(str),
    "double precision": st.floats().map(repr),
    "real": st.floats(width=32).map(repr),
    "text": _TEXT,
    "text[]": st.lists(st.one_of(st.none(), _TEXT), max_size=5),
    "bytea": st.binary(max_size=50),
    "timestamp": st.datetimes().map(str),
    "jsonb": st.recursive(st.one_of(st.none(), st.booleans(), _TEXT, st.integers()), lambda inner: st.lists(inner, max_size=3)),
}  # fmt: skip
_BOUNDED = settings(
    max_examples=4, deadline=None, phases=(Phase.generate,), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_invariant_5_random_postgres_values(make_pair: MakePair, target: str) -> None:
    pair = make_pair("postgres", target)
    assert isinstance(pair.site, PostgresPlace)
    tables = {f"zoo_{place}": kind for place, kind in enumerate(_RANDOM_KINDS)}
    pair.site.run(*(f"create table {table} (id integer primary key, v {kind})" for table, kind in tables.items()))
    pair.install("zoo_*")
    place = pair.site

    @_BOUNDED
    @given(st.fixed_dictionaries({kind: st.lists(values, max_size=12) for kind, values in _RANDOM_KINDS.items()}))
    def check(values: dict[str, list[object]]) -> None:
        _empty(pair, tables)
        with settled(place) as connection:
            for table, kind in tables.items():
                for number, value in enumerate(values[kind]):
                    given_value = psycopg.types.json.Jsonb(value) if kind == "jsonb" else value
                    connection.execute(f"insert into {table} values (%s, %s::{kind})", (number, given_value))
        pair.sync()
        assert list(changed(pair, tables)) == []

    check()


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_invariant_5_random_sqlite_values(make_pair: MakePair, target: str) -> None:
    pair = make_pair("sqlite", target)
    assert isinstance(pair.site, SqlitePlace)
    kinds = ["INTEGER", "REAL", "NUMERIC", "TEXT", "BLOB", "", "DATE", "DATETIME"]
    tables = {f"zoo_{place}": kind for place, kind in enumerate(kinds)}
    pair.site.run(*(f"create table {table} (id integer primary key, v {kind})" for table, kind in tables.items()))
    pair.install("zoo_*")
    place = pair.site

    @_BOUNDED
    @given(st.lists(_STORED, max_size=15))
    def check(values: list[object]) -> None:
        _empty(pair, tables)
        with closing(place.connect()) as file:
            for table in tables:
                file.executemany(f"insert into {table} values (?, ?)", list(enumerate(values)))
        pair.sync()
        assert list(changed(pair, tables)) == []

    check()


def _empty(pair: Pair, tables: Iterable[str]) -> None:
    """Empty the tables on both sides; what the example before left parked is dropped, what waits behind it goes in."""
    pair.site.run(*(f"delete from {table}" for table in tables))
    pair.sync()
    with pair.ends() as ends:
        ends.target.take_lease()
        for change in ends.target.list_parked():
            if not retry_parked(ends.target, change.id):
                ends.target.skip_parked(change.id)
