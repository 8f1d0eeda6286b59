"""The audit of whole tables: what it finds, what it leaves out and says so, keys of every kind, bounds, in flight, parked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicator.audit import AuditReport, AuditVerdict, Kind, Limits, RowDifference, TableReport, to_json, to_lines
from replicator.audit.compare import bucket_count
from replicator.canonical import FORMS_VERSION
from replicator.model import Engine, Position, RowFilter, TablePlan
from tests.fixtures.audits import StillLink, audit, auditable, engine_of, estimated, plan_of, write
from tests.fixtures.databases import PostgresDatabases

SqliteFile = Callable[[str], Path]
Places = tuple[Path | str, Path | str]
PAIRS = ["sqlite-postgres", "postgres-postgres", "sqlite-sqlite", "postgres-sqlite"]
ITEM = "create table item (id bigint primary key, name text, qty bigint)"
TYPES = {Engine.SQLITE: ("BIGINT", "TEXT", "BIGINT"), Engine.POSTGRES: ("bigint", "text", "bigint")}


@pytest.fixture(params=PAIRS)
def places(request: pytest.FixtureRequest, postgres_database: PostgresDatabases, sqlite_file: SqliteFile) -> Places:
    """A source and a target of every engine pair, each with an empty table ``item``."""
    names = str(request.param).split("-")
    source, target = (sqlite_file("file") if name == "sqlite" else postgres_database() for name in names)
    for place in (source, target):
        write(place, ITEM)
    return source, target


def item_plan(source: Path | str, target: Path | str, **options: Any) -> TablePlan:
    ours, theirs = TYPES[engine_of(source)], TYPES[engine_of(target)]
    columns = list(zip(("id", "name", "qty"), ours, theirs, strict=True))
    return plan_of(engine_of(source), engine_of(target), columns, ["id"], **options)


def fill(place: Path | str, rows: int) -> None:
    write(place, f"insert into item with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows}) "
                 "select i, 'name ' || i, i * 7 from n")  # fmt: skip


def test_differing_missing_and_extra_rows_are_found_among_many(places: Places) -> None:
    source, target = places
    for place in places:
        fill(place, 20_000)
    plan = estimated(item_plan(source, target), 20_000)
    assert audit(source, target, plan).verdict is AuditVerdict.EQUAL
    write(target, "update item set qty = null where id in (5, 19999); delete from item where id = 700")
    write(target, "insert into item values (30000, '', 1)")
    report = audit(source, target, plan)
    assert report.verdict is AuditVerdict.DIFFERENT
    assert (report.differing, report.missing, report.extra) == (2, 1, 1)
    assert {row.key["id"]: row.kind for row in report.differences} == {
        "5": Kind.DIFFERS, "19999": Kind.DIFFERS, "700": Kind.MISSING, "30000": Kind.EXTRA,
    }  # fmt: skip
    five = next(row for row in report.differences if row.key["id"] == "5")
    assert [(each.column, each.source, each.target) for each in five.columns] == [("qty", "35", None)]
    assert report.rows_source == report.rows_target == 20_000
    assert report.unequal_buckets <= 4 < report.buckets == bucket_count(20_000)


def test_empty_tables_are_equal(places: Places) -> None:
    report = audit(*places, item_plan(*places))
    assert (report.verdict, report.compared) == (AuditVerdict.EQUAL, 0)


def test_a_wrong_estimate_costs_a_second_pass_and_nothing_else(places: Places) -> None:
    source, target = places
    for place in places:
        fill(place, 50_000)
    write(target, "delete from item where id % 10 = 0")
    report = audit(source, target, item_plan(source, target), limits=Limits(listed=7))
    assert report.buckets == bucket_count(50_000)
    assert (report.missing, len(report.differences), report.cut) == (5_000, 7, True)


def test_every_difference_is_handed_out_although_few_are_listed(places: Places) -> None:
    source, target = places
    fill(source, 300)
    seen: list[RowDifference] = []
    plan = item_plan(source, target)
    report = audit(source, target, plan, limits=Limits(listed=3), on_difference=lambda _, row: seen.append(row))
    assert (len(seen), len(report.differences), report.missing) == (300, 3, 300)


def test_filters_constants_renames_and_excluded_columns(places: Places) -> None:
    source, target = places
    write(target, "drop table item; create table part (site text, no bigint, title text, primary key (site, no))")
    write(source, "insert into item values (1, 'in', 1), (2, 'out', 2), (3, 'in', 3)")
    write(target, "insert into part values ('a', 1, 'in'), ('a', 3, 'in'), ('b', 1, 'other site')")
    condition = RowFilter("name = 'in'", ("", ".name = 'in'"), ("", ".name = 'in'"))
    plan = item_plan(source, target, target_name="part", constants=[("site", "a")], where=condition, left_out=["qty"],
                     renamed={"id": "no", "name": "title"})  # fmt: skip
    report = audit(source, target, plan)
    assert (report.verdict, report.compared, report.not_compared) == (AuditVerdict.EQUAL, 2, ("qty",))
    assert "  not compared: columns qty" in to_lines(AuditReport("t", FORMS_VERSION, [report]))
    write(target, "insert into part values ('a', 2, 'out'); update part set title = 'x' where site = 'a' and no = 1")
    report = audit(source, target, plan)
    assert {row.key["id"]: row.kind for row in report.differences} == {"1": Kind.DIFFERS, "2": Kind.EXTRA}


def test_rows_of_other_sites_in_a_shared_table_are_not_judged(places: Places) -> None:
    source, target = places
    write(source, "insert into item values (1, 'a', 1), (2, 'a', 2)")
    write(target, "insert into item values (1, 'a', 1), (2, 'a', 2), (3, 'b', 3)")
    plan = item_plan(source, target)
    report = audit(source, target, plan, shared={plan.target})
    assert report.verdict is AuditVerdict.EQUAL
    assert "other sites" in report.notes[0]
    write(target, "delete from item where id = 2")
    assert audit(source, target, plan, shared={plan.target}).missing == 1


def test_hostile_names_and_composite_keys(postgres_database: PostgresDatabases, sqlite_file: SqliteFile) -> None:
    source, target = sqlite_file("site"), postgres_database()
    name, columns = "se\"le'ct %s $1 {x}", ['a" b', "rowid", "t", "Ünï", "key_image", "w0"]
    quoted = ['"' + column.replace('"', '""') + '"' for column in columns]
    table = '"' + name.replace('"', '""') + '"'
    body = ", ".join(f"{column} text" for column in quoted)
    script = f"create table {table} ({body}, primary key ({quoted[0]}, {quoted[3]}))"
    rows = "('1', '2', '3', '4', '5', '6'), ('1', '2', '3', '44', '5', '6'), ('', ',~', '3', '', '5', null)"
    for place in (source, target):
        write(place, f"{script}; insert into {table} values {rows}")
    kinds = [(column, "TEXT", "text") for column in columns]
    plan = plan_of(Engine.SQLITE, Engine.POSTGRES, kinds, [columns[0], columns[3]], name=name)
    assert audit(source, target, plan).verdict is AuditVerdict.EQUAL
    write(target, f"update {table} set {quoted[5]} = '' where {quoted[3]} = ''")
    assert [row.key for row in audit(source, target, plan).differences] == [{columns[0]: "", columns[3]: ""}]


KEYS = [
    ("DATE", "date", ["2024-01-01", "2024-02-29"], "2024-03-01"),
    ("TIMESTAMP", "timestamp", ["2024-01-01T00:00", "2024-01-01 00:00:00.5"], "2024-01-01 00:00:01"),
    ("UUID", "uuid", ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"], "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"),
    ("DECIMAL(9,2)", "numeric(9,2)", [1.5, 2], "2.25"),
    ("BLOB", "bytea", [b"", b"\xff"], "\\x00"),
    ("REAL", "double precision", [0.1, 1e300], "0.30000000000000004"),
    ("TEXT COLLATE NOCASE", "text", ["ABC", "é"], "abc"),
    ("BOOLEAN", "boolean", [1], "f"),
    ("INTEGER", "smallint", [1, 70000], "2"),
    ("TEXT", "character varying(3)", ["abc", "abcdef"], "abd"),
]


@pytest.mark.parametrize(("declared", "kind", "values", "extra"), KEYS, ids=[key[0] for key in KEYS])
def test_keys_of_every_kind(
    declared: str,
    kind: str,
    values: list[object],
    extra: str,
    postgres_database: PostgresDatabases,
    sqlite_file: SqliteFile,
) -> None:
    source, target = sqlite_file("site"), postgres_database()
    rows = [("insert into item values (?, 'x')", (value,)) for value in values]
    write(source, f"create table item (id {declared} primary key, v text)", rows)
    write(target, f"create table item (id {kind} primary key, v text); insert into item values ('{extra}', 'x')")
    columns = [("id", declared.split()[0], kind), ("v", "TEXT", "text")]
    report = audit(source, target, plan_of(Engine.SQLITE, Engine.POSTGRES, columns, ["id"]))
    assert (report.missing, report.extra, report.differing) == (len(values), 1, 0)


def test_tables_without_rowid_are_read_by_key(sqlite_file: SqliteFile, postgres_database: PostgresDatabases) -> None:
    source, target = sqlite_file("site"), postgres_database()
    rows = [("insert into item values (?, ?)", (f"k{n:05}", n)) for n in range(3000)]
    write(source, "create table item (id text primary key, v integer) without rowid", rows)
    write(target, "create table item (id text primary key, v bigint)")
    write(target, "insert into item select 'k' || lpad(n::text, 5, '0'), n from generate_series(0, 2999) n")
    columns = [("id", "TEXT", "text"), ("v", "INTEGER", "bigint")]
    report = audit(source, target, plan_of(Engine.SQLITE, Engine.POSTGRES, columns, ["id"]))
    assert (report.verdict, report.compared) == (AuditVerdict.EQUAL, 3000)


def test_null_keys_and_keys_that_repeat_are_differences(
    sqlite_file: SqliteFile, postgres_database: PostgresDatabases
) -> None:
    source, target = sqlite_file("site"), postgres_database()
    write(source, "create table item (id timestamp primary key, v integer)")
    write(source, "insert into item values ('2024-01-01', 1), ('2024-01-01 00:00', 2), (null, 3), (null, 3)")
    write(target, "create table item (id timestamp primary key, v bigint); insert into item values ('2024-01-01', 2)")
    columns = [("id", "TIMESTAMP", "timestamp"), ("v", "INTEGER", "bigint")]
    report = audit(source, target, plan_of(Engine.SQLITE, Engine.POSTGRES, columns, ["id"]))
    found = [(row.key["id"], row.kind) for row in report.differences]
    assert found == [("2024-01-01 00:00:00", Kind.REPEATED), (None, Kind.REPEATED)]


def test_a_row_in_flight_is_told_apart_and_looked_at_again(places: Places) -> None:
    source, target = places
    write(source, "insert into item values (1, 'new', 1), (2, 'x', 2)")
    write(target, "insert into item values (1, 'old', 1), (2, 'x', 2)")
    native = (1,) if isinstance(source, Path) else ("1",)
    link = StillLink(Position("p1"), flying={native})
    report = audit(source, target, item_plan(source, target), link)
    assert (report.verdict, report.in_flight, report.wrong) == (AuditVerdict.NOT_PROVEN, 1, 0)
    assert (report.position_before, report.position_after) == ("p1", "p1")

    def arrive(_: float) -> None:
        write(target, "update item set name = 'new' where id = 1")
        link.flying.clear()

    assert audit(source, target, item_plan(source, target), link, pause=arrive).verdict is AuditVerdict.EQUAL


def test_nothing_is_said_while_the_link_moves(places: Places) -> None:
    source, target = places
    write(source, "insert into item values (1, 'new', 1)")
    positions = iter(range(1000))

    class MovingLink(StillLink):
        def position(self) -> Position | None:
            return Position(str(next(positions)))

    report = audit(source, target, item_plan(source, target), MovingLink())
    assert (report.in_flight, report.wrong, report.verdict) == (1, 0, AuditVerdict.NOT_PROVEN)
    report = audit(source, target, item_plan(source, target), MovingLink(), limits=Limits(waiting=0, rounds=1))
    assert report.in_flight == 1


def test_a_key_of_unknown_spelling_waits_for_an_idle_source(
    sqlite_file: SqliteFile, postgres_database: PostgresDatabases
) -> None:
    source, target = sqlite_file("site"), postgres_database()
    write(source, "create table item (id timestamp primary key)")
    write(target, "create table item (id timestamp primary key); insert into item values ('2024-01-01')")
    plan = plan_of(Engine.SQLITE, Engine.POSTGRES, [("id", "TIMESTAMP", "timestamp")], ["id"])
    assert audit(source, target, plan, StillLink(changes=1)).in_flight == 1
    assert audit(source, target, plan, StillLink(changes=0)).extra == 1


def test_parked_rows_differ_for_a_known_reason(places: Places) -> None:
    source, target = places
    write(source, "insert into item values (1, 'new', 1), (2, 'x', 2)")
    write(target, "insert into item values (2, 'y', 2)")
    report = audit(source, target, item_plan(source, target), StillLink(parked={("1",)}))
    assert (report.parked, report.missing, report.differing, report.verdict) == (1, 0, 1, AuditVerdict.DIFFERENT)
    write(target, "update item set name = 'x' where id = 2")
    report = audit(source, target, item_plan(source, target), StillLink(parked={("1",)}))
    assert (report.parked, report.wrong, report.verdict) == (1, 0, AuditVerdict.DIFFERENT)
    assert "parked" in report.reason


def test_a_table_that_cannot_be_read_is_not_proven(places: Places) -> None:
    source, target = places
    write(target, "drop table item")
    report = audit(source, target, item_plan(source, target))
    assert report.verdict is AuditVerdict.NOT_PROVEN
    assert "item" in report.reason


def test_columns_without_common_form_are_not_proven(sqlite_file: SqliteFile) -> None:
    place = sqlite_file("site")
    write(place, ITEM)
    plan = item_plan(place, place)
    odd = replace(plan.columns[0], form="unheard of")
    report = audit(place, place, replace(plan, columns=(odd,)))
    assert report.reason == "no canonical form for id (BIGINT and BIGINT)"


@pytest.mark.parametrize("side", [0, 1])
def test_a_side_that_hashes_otherwise_is_not_trusted(
    side: int, sqlite_file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from replicator.engines.sqlite.audit import SqliteAudit

    place = sqlite_file("site")
    write(place, ITEM)
    answers = iter([[1, 2], [1, 3]] if side else [[1, 1], [1, 1]])
    monkeypatch.setattr(SqliteAudit, "prove_form", lambda *_: next(answers))
    report = audit(place, place, item_plan(place, place))
    assert report.verdict is AuditVerdict.NOT_PROVEN
    assert "self-test failed" in report.reason


def test_writers_of_a_rollback_journal_file_get_in_between_pages(sqlite_file: SqliteFile) -> None:
    place = sqlite_file("site")
    write(place, ITEM)
    fill(place, 5000)
    plan = item_plan(place, place)
    from replicator.audit.sides import sides_of

    with auditable(place) as reader, closing(sqlite3.connect(place, timeout=0)) as writer:
        assert writer.execute("pragma journal_mode").fetchone() == ("delete",)
        rows = reader.digest_rows(sides_of(plan).source, 1, [0])
        for _ in range(1000):
            next(rows)
        writer.execute("update item set qty = 0 where id = 1")
        writer.commit()
        assert sum(1 for _ in rows) == 4000


def test_the_report_as_document_and_as_lines() -> None:
    row = RowDifference({"id": "5"}, Kind.MISSING)
    table = TableReport("a", "item", "item", AuditVerdict.DIFFERENT, compared=1234, missing=2)
    table.differences, table.cut, table.seconds = [row], True, 0.25
    report = AuditReport("bloodlab", FORMS_VERSION, [table])
    document = json.loads(json.dumps(to_json(report)))
    assert (document["schema"], document["verdict"]) == ("replicator.audit/1", "different")
    assert document["tables"][0]["missing"] == 2
    assert list(to_lines(report)) == [
        "a: item → item: different (1,234 rows, 2 missing at centre, 0.2 s)",
        "  id = 5: missing at centre",
        "  only 1 of 2 differing rows are listed",
        "different: 1 table, 1,234 rows compared",
    ]
    assert report.exit_code == 1
    assert AuditReport("bloodlab", FORMS_VERSION).exit_code == 2
