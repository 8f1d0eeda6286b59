"""What a PostgreSQL centre notes of its own changes: which rows, and whom they concern."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from replicator.errors import SetupError
from replicator.model import Route, RouteStep, TableName
from tests.fixtures.servers import Server
from tests.integration.postgres_centre import (
    PATIENT,
    ROUTES,
    TOPOLOGY,
    Centre,
    MakeCentre,
    make_centre,
)

__all__ = ["make_centre"]

Rows = list[tuple[object, ...]]


@pytest.fixture
def centre(make_centre: MakeCentre) -> Centre:
    """A clinic with two patients, their visits and shots; the outbox is empty."""
    made = make_centre()
    made.run(
        "insert into patient values (1, 'A', 'x'), (2, 'B', 'y'); insert into visit values (10, 1, 'v'), (20, 2, 'w');"
        "insert into shot values (100, 10, 1), (200, 20, 1); insert into drug values (1, 'd')"
    )
    made.outbox()
    return made


def written(centre: Centre, sql: str) -> Rows:
    """What one statement leaves in the outbox, without the order."""
    centre.run(sql)
    return sorted(centre.outbox(), key=str)


def test_a_new_row_is_noted_with_its_route(centre: Centre) -> None:
    assert written(centre, "insert into patient values (3, 'A', 'z'), (4, null, 'n')") == [
        ("patient", "i", "(3)", "=(A)", None),
        ("patient", "i", "(4)", "", None),
    ]
    assert written(centre, "insert into visit values (30, 3, '')") == [("visit", "i", "(30)", "=(A)", None)]
    assert written(centre, "insert into shot values (300, 30, 1), (301, 99, 1), (302, null, 1)") == [
        ("shot", "i", "(300)", "=(A)", None),
        ("shot", "i", "(301)", "", None),
        ("shot", "i", "(302)", "", None),
    ]
    assert written(centre, "insert into drug values (2, 'x')") == [("drug", "i", "(2)", "", None)]


def test_an_update_that_changes_nothing_is_not_noted(centre: Centre) -> None:
    assert written(centre, "update patient set name = name, clinic = clinic") == []
    assert written(centre, "update patient set name = 'n' where id = 1") == [("patient", "u", "(1)", "=(A)", None)]


def test_a_row_that_moves_is_noted_for_both_sides_and_takes_its_followers_along(centre: Centre) -> None:
    assert written(centre, "update patient set clinic = 'B' where id = 1") == [
        ("patient", "u", "(1)", "=(A)", None),
        ("patient", "u", "(1)", "=(B)", None),
        ("shot", "u", "(100)", "=(A)", None),
        ("shot", "u", "(100)", "=(B)", None),
        ("visit", "u", "(10)", "=(A)", None),
        ("visit", "u", "(10)", "=(B)", None),
    ]
    assert written(centre, "update visit set patient = 1 where id = 20") == [("visit", "u", "(20)", "=(B)", None)]
    centre.run("update patient set clinic = 'A' where id = 2")
    centre.outbox()
    assert written(centre, "update visit set patient = 2 where id = 20") == [
        ("shot", "u", "(200)", "=(A)", None),
        ("shot", "u", "(200)", "=(B)", None),
        ("visit", "u", "(20)", "=(A)", None),
        ("visit", "u", "(20)", "=(B)", None),
    ]


def test_the_site_that_moved_a_row_away_is_told_too(centre: Centre) -> None:
    centre.apply("A", "update patient set clinic = 'B' where id = 1")
    assert [row for row in centre.outbox() if row[0] == "patient"] == [
        ("patient", "u", "(1)", "=(A)", None),
        ("patient", "u", "(1)", "=(B)", "lab/A"),
    ]


def test_origin_is_kept_for_links_of_the_topology_only(centre: Centre) -> None:
    centre.apply("A", "update patient set name = 'a' where id = 1; delete from shot where id = 100")
    assert [row[4] for row in centre.outbox()] == ["lab/A", "lab/A"]
    centre.run("begin; select set_config('replicator.origin', 'other/A', true); update drug set name = 'q'; commit")
    centre.run("begin; select set_config('replicator.origin', '', true); update drug set name = 'r'; commit")
    assert [row[4] for row in centre.outbox()] == [None, None]


def test_a_key_update_is_an_old_row_gone_and_a_new_one(centre: Centre) -> None:
    assert written(centre, "update drug set id = 7") == [
        ("drug", "d", "(1)", "", None),
        ("drug", "i", "(7)", "", None),
    ]
    centre.run("insert into drug values (1, 'one'), (2, 'two')")
    centre.outbox()
    # Rows that take each other's keys in one statement are there afterwards.
    centre.run("alter table drug drop constraint drug_pkey, add primary key (id) deferrable")
    centre.run("update drug set id = 3 - id where id < 3")
    versions = centre.rows("select key, deleted from replicator.ledger where key in ('(1)', '(2)', '(7)') and feed ="
                           " (select id from replicator.feed where relation = 'drug') order by key")  # fmt: skip
    assert versions == [("(1)", False), ("(2)", False), ("(7)", False)]


def test_truncate_is_a_delete_of_every_row(centre: Centre) -> None:
    assert written(centre, "truncate patient cascade") == [
        ("patient", "d", "(1)", "=(A)", None),
        ("patient", "d", "(2)", "=(B)", None),
        ("shot", "u", "(100)", "=(A)", None),
        ("shot", "u", "(200)", "=(B)", None),
        ("visit", "d", "(10)", "=(A)", None),
        ("visit", "d", "(20)", "=(B)", None),
    ]
    assert centre.rows("select count(*) from replicator.ledger where deleted") == [(4,)]


def test_versions_say_who_wrote_last(centre: Centre) -> None:
    def versions() -> Rows:
        return centre.rows(
            "select l.key, version, deleted, origin, changed_at > 0 from replicator.ledger l"
            " join replicator.feed f on f.id = l.feed and f.link = 0 and f.relation = 'drug' order by key"
        )

    assert versions() == [("(1)", 1, False, None, True)]
    centre.run("update replicator.ledger set origin = 'lab/A'")
    centre.run("update drug set name = 'again'; insert into drug values (2, 'b')")
    assert versions() == [("(1)", 2, False, None, True), ("(2)", 1, False, None, True)]
    centre.apply("A", "update drug set name = 'from A'")  # the link writes these versions itself
    assert versions() == [("(1)", 2, False, None, True), ("(2)", 1, False, None, True)]
    centre.run("delete from drug where id = 1; update drug set id = 3")
    assert versions() == [("(1)", 3, True, None, True), ("(2)", 2, True, None, True), ("(3)", 1, False, None, True)]


def test_partitions_and_inheritance_are_captured(make_centre: MakeCentre) -> None:
    made = make_centre(
        "create table part (id int, day date, x int, primary key (id, day)) partition by range (day);"
        "create table part_a partition of part for values from ('2020-01-01') to ('2021-01-01');"
        "create table part_b partition of part for values from ('2021-01-01') to ('2022-01-01')",
        {"part": Route(("day",))},
    )
    made.run("insert into part values (1, '2020-05-05', 1), (2, '2021-05-05', 1)")
    made.run("update part set day = '2021-06-06' where id = 1")
    made.run("update part_b set x = 2 where id = 2; truncate part")
    keys = [(row[1], row[2], row[3]) for row in made.outbox()]
    first, moved, second = (
        ("(1,2020-05-05)", "=(2020-05-05)"),
        ("(1,2021-06-06)", "=(2021-06-06)"),
        ("(2,2021-05-05)", "=(2021-05-05)"),
    )
    assert keys[:2] == [("i", *first), ("i", *second)]
    assert sorted(keys[2:4]) == [("d", *first), ("i", *moved)]
    assert keys[4] == ("u", *second)
    assert sorted(keys[5:]) == [("d", *moved), ("d", *second)]


HOSTILE = """
    create schema "s.""x";
    create table "s.""x"."t'a$central$b" ("k'\""" text, "__b__" bytea, r text, primary key ("k'\""", "__b__"));
    create table "s.""x"."n" (id int primary key, "select" text, b bytea)
"""


def test_hostile_names_and_values(make_centre: MakeCentre) -> None:
    step = RouteStep(("select", "b"), TableName('s."x', "t'a$central$b"), ("k'\"", "__b__"))
    made = make_centre(HOSTILE, {"t'a$central$b": Route(("r",)), "n": Route(("r",), (step,))})
    made.run(
        "insert into \"s.\"\"x\".\"t'a$central$b\" values ('a,(\"\\', '\\x00ff', E' \\\\ \\n'), ('', '', '');"
        "insert into \"s.\"\"x\".n values (1, 'a,(\"\\', '\\x00ff'), (2, '', '')"
    )
    kept = {str(row[3]) for row in made.outbox()}
    made.run('update "s.""x"."t\'a$central$b" set r = \'x\'')
    moved = made.outbox()
    assert {row[3] for row in moved} == kept | {"=(x)"}
    assert len(moved) == 8
    assert made.installer.plan_centre(TOPOLOGY, (), made.captured()).statements == ()


def test_types_with_an_equality_of_their_own(make_centre: MakeCentre, server: Server) -> None:
    with psycopg.connect(server.dsn) as connection:
        if not connection.execute("select 1 from pg_available_extensions where name = 'citext'").fetchall():
            pytest.skip("citext is not available on this server")
    made = make_centre(
        "create schema ext; create extension citext schema ext; create domain ext.mail as ext.citext;"
        "create table person (mail ext.mail primary key, clinic text);"
        "create table letter (id int primary key, person ext.citext)",
        {
            "person": Route(("clinic",)),
            "letter": Route(("clinic",), (RouteStep(("person",), TableName("public", "person"), ("mail",)),)),
        },
    )
    made.run("insert into person values ('Ann@x', 'A'); insert into letter values (1, 'ann@X')")
    assert made.outbox()[1] == ("letter", "i", "(1)", "=(A)", None)
    made.run("update person set clinic = 'B'")
    assert {row[:4] for row in made.outbox()} == {
        ("person", "u", "(Ann@x)", "=(A)"), ("person", "u", "(Ann@x)", "=(B)"),
        ("letter", "u", "(1)", "=(A)"), ("letter", "u", "(1)", "=(B)"),
    }  # fmt: skip


def test_ordinary_writers_need_no_right_on_our_schema(centre: Centre) -> None:
    """Invariant 10."""
    centre.run(
        "drop role if exists replicator_writer; create role replicator_writer;"
        "grant select, insert, update, delete, truncate on drug, patient to replicator_writer"
    )
    try:
        centre.run("set role replicator_writer; update patient set clinic = 'C' where id = 1; delete from drug")
    finally:
        centre.run("reset role; drop owned by replicator_writer; drop role replicator_writer")
    assert len(centre.outbox()) == 7


@pytest.mark.parametrize(
    "change",
    [
        "alter table patient rename column id to number",
        "alter table patient rename column clinic to place",
        "alter table patient drop column clinic",
        "alter table patient alter column clinic type varchar(9)",
        "alter table visit rename to attendance",
        "alter table shot rename column visit to occasion",
        "drop table shot",
        "alter table patient add column extra int default 5",
        "alter table patient drop column name",
    ],
)
def test_no_statement_fails_when_the_tables_have_changed(centre: Centre, change: str) -> None:
    """Invariant 10: whatever became of the captured tables and of those they follow, writes go on, and are noted."""
    centre.run(change)
    columns = [str(row[0]) for row in centre.rows("select attname from pg_attribute where attrelid = 'patient'::regclass"
               " and attnum > 0 and not attisdropped order by attnum")]  # fmt: skip
    centre.run(f"insert into patient ({columns[0]}) values (9)")
    centre.run(f"update patient set {columns[-1]} = null where {columns[0]} < 3")
    centre.run(f"delete from patient where {columns[0]} = 9")
    visit = "attendance" if "attendance" in change else "visit"
    centre.run(f"update {visit} set note = 'n'; truncate {visit}")
    tables = {row[0] for row in centre.outbox()}
    assert {"patient", "visit"} <= tables


def test_drift_is_planned_and_install_is_idempotent(centre: Centre) -> None:
    def planned() -> list[str]:
        return [step.object for step in centre.installer.plan_centre(TOPOLOGY, (), centre.captured()).statements]

    assert planned() == []
    name = centre.rows("select tgname from pg_trigger where tgrelid = 'visit'::regclass and tgname like '%_update'")[0][
        0
    ]
    centre.run(f'drop trigger "{name}" on visit')
    assert "triggers on visit" in planned()
    centre.install()
    assert planned() == []
    centre.run("alter table drug disable trigger user")
    assert planned() == ["triggers on drug", "rows of drug"]
    wrong = [
        finding for finding in centre.installer.check((), as_source=False) if not finding.ok and not finding.warning
    ]
    assert [(finding.subject, finding.fix) for finding in wrong] == [("drug", "run: replicator install")]
    centre.install()
    assert planned() == []
    function = centre.rows("select proname from pg_proc where proname like 'central_lab_patient%'")[0][0]
    centre.run(f"comment on function replicator.{function}() is 'replicator 00'")
    assert planned() == [f"replicator.{function}"]


def test_leftovers_are_shown_and_uninstall_leaves_nothing(centre: Centre) -> None:
    """Invariant 11."""
    kept = [each for each in centre.captured() if each.table.name.name != "drug"]
    plan = centre.installer.plan_centre(TOPOLOGY, (), kept)
    assert plan.statements == ()
    assert plan.leftovers == ("triggers on drug",)
    centre.installer.install(centre.installer.plan_uninstall(TOPOLOGY))
    assert centre.installer.list_objects() == []
    centre.run("insert into drug values (5, 'free')")


def test_one_topology_goes_without_the_other(centre: Centre) -> None:
    other = centre.installer.plan_centre("other", (), centre.captured())
    centre.installer.install(other)
    centre.run("insert into drug values (5, 'x'); delete from drug where id = 5")
    centre.installer.install(centre.installer.plan_uninstall(TOPOLOGY))
    centre.outbox()
    centre.run("insert into drug values (6, 'y')")
    assert [row[0:3] for row in centre.outbox()] == [("drug", "i", "(6)")]
    assert centre.rows("select count(*) from replicator.ledger") != [(0,)]
    centre.installer.install(centre.installer.plan_uninstall("other"))
    assert centre.installer.list_objects() == []


def test_tables_that_install_creates_are_captured_at_once(make_centre: MakeCentre) -> None:
    made = make_centre()
    captured = made.captured()
    made.installer.install(made.installer.plan_uninstall(TOPOLOGY))
    made.run("drop table shot, visit, patient, drug")
    made.installer.install(made.installer.plan_centre(TOPOLOGY, (), captured))
    assert made.installer.plan_centre(TOPOLOGY, (), captured).statements == ()
    made.run("insert into patient values (1, 'A', '')")
    assert made.outbox() == [("patient", "i", "(1)", "=(A)", None)]


def test_a_followed_table_must_be_captured(centre: Centre) -> None:
    captured = [each for each in centre.captured() if each.table.name != PATIENT]
    with pytest.raises(SetupError, match="follows patient"):
        centre.installer.plan_centre(TOPOLOGY, (), captured)


def test_a_table_nobody_gets_has_versions_and_moves_its_followers(make_centre: MakeCentre) -> None:
    made = make_centre(unsent=frozenset({"patient"}))
    made.run("insert into patient values (1, 'A', ''); insert into visit values (10, 1, '')")
    assert [row[:4] for row in made.outbox()] == [("visit", "i", "(10)", "=(A)")]
    made.run("update patient set clinic = 'B'")
    assert {row[:4] for row in made.outbox()} == {("visit", "u", "(10)", "=(A)"), ("visit", "u", "(10)", "=(B)")}
    assert made.rows("select count(*) from replicator.ledger where key = '(1)'") == [(1,)]


def test_watched_columns_of_a_followed_row_concern_its_followers(make_centre: MakeCentre) -> None:
    step = RouteStep(("patient",), PATIENT, ("id",))
    made = make_centre(routes={**ROUTES, "visit": Route(("clinic",), (step,), watched=("name",))})
    made.run("insert into patient values (1, 'A', 'x'); insert into visit values (10, 1, '')")
    made.outbox()
    made.run("update patient set name = 'y'")
    assert [row[:4] for row in made.outbox()] == [
        ("patient", "u", "(1)", "=(A)"),
        ("visit", "u", "(10)", "=(A)"),
    ]


def test_a_follower_written_while_its_parent_moves_is_announced_again(centre: Centre) -> None:
    """Invariant 6: the child's transaction saw the parent where it was, and the parent's did not see the child."""
    with psycopg.connect(centre.url) as child:
        child.execute("insert into visit values (11, 1, 'late')")
        centre.run("update patient set clinic = 'B' where id = 1")
        assert centre.rows(f"select replicator.follow_moves('{TOPOLOGY}')") == [(0,)]
        child.commit()
    assert ("visit", "i", "(11)", "=(A)", None) in centre.outbox()
    deadline = time.monotonic() + 60  # other databases of the server have transactions too
    while centre.rows("select count(*) from replicator.moved") != [(0,)] and time.monotonic() < deadline:
        centre.run(f"select replicator.follow_moves('{TOPOLOGY}')")
        time.sleep(0.05)
    assert ("visit", "u", "(11)", "=(B)", None) in centre.outbox()


def test_writers_do_not_wait_for_each_other(centre: Centre) -> None:
    """Invariant 10: moving a parent does not wait for those who write its children, nor they for it."""
    done = threading.Event()

    def move() -> None:
        with psycopg.connect(centre.url, autocommit=True) as other:
            other.execute("update patient set clinic = 'B' where id = 1")
        done.set()

    with psycopg.connect(centre.url) as child:
        child.execute("insert into visit values (11, 1, 'late')")
        thread = threading.Thread(target=move)
        began = time.monotonic()
        thread.start()
        assert done.wait(5)
        assert time.monotonic() - began < 2
        child.execute("insert into visit values (12, 1, 'later')")
        thread.join()
