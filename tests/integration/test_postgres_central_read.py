"""What one site is sent by a PostgreSQL centre: its rows as they are, no others, nothing missed, its own changes left out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest

from replicator.engines.postgres.connection import connect
from replicator.engines.postgres.slices import copy_statement, make_slices
from replicator.engines.postgres.windows import read_relations
from replicator.errors import SetupError
from replicator.model import Direction, LinkName, PolicyName, PolicyPlan, Route, RowFilter
from tests.integration.postgres_centre import PATIENT, TOPOLOGY, Centre, Copy, MakeCentre, make_centre, plan_of

__all__ = ["make_centre"]


@pytest.fixture
def centre(make_centre: MakeCentre) -> Centre:
    """A clinic with two patients, their visits and shots."""
    made = make_centre()
    made.run(
        "insert into patient values (1, 'A', 'x'), (2, 'B', 'y'); insert into visit values (10, 1, 'v'), (20, 2, 'w');"
        "insert into shot values (100, 10, 1), (200, 20, 1); insert into drug values (1, 'd'); delete from replicator.moved"
    )
    return made


def test_a_new_link_gets_all_rows_of_the_site(centre: Centre) -> None:
    copy = Copy(centre, "A", centre.source("A"))
    assert copy.read() == [
        ("drug", "s", ("1", "d")),
        ("patient", "s", ("1", "A", "x")),
        ("shot", "s", ("100", "10", "1")),
        ("visit", "s", ("10", "1", "v")),
    ]
    assert copy.read() is None


def test_a_batch_is_the_rows_as_they_are_each_once(centre: Centre) -> None:
    a, b = centre.copy("A"), centre.copy("B")
    centre.run("update patient set name = 'p' where id = 1; update patient set name = 'q' where id = 1")
    centre.run("insert into drug values (2, 'x'); delete from drug where id = 2; delete from drug where id = 1")
    assert a.read() == [("drug", "g", ("1",)), ("drug", "g", ("2",)), ("patient", "s", ("1", "A", "q"))]
    assert b.read() == [("drug", "g", ("1",)), ("drug", "g", ("2",))]
    assert a.read() is None


def test_a_row_that_moves_is_gone_here_and_there_now(centre: Centre) -> None:
    a, b = centre.copy("A"), centre.copy("B")
    centre.run("update patient set clinic = 'B' where id = 1")
    assert a.read() == [("patient", "g", ("1",)), ("shot", "g", ("100",)), ("visit", "g", ("10",))]
    assert b.read() == [
        ("patient", "s", ("1", "B", "x")),
        ("shot", "s", ("100", "10", "1")),
        ("visit", "s", ("10", "1", "v")),
    ]


def test_moves_with_deletes_and_inserts_in_one_window(centre: Centre) -> None:
    a, b = centre.copy("A"), centre.copy("B")
    centre.run("begin; delete from shot where id = 100; insert into shot values (101, 10, 2);"
               "update patient set clinic = 'B' where id = 1; insert into visit values (11, 1, 'new'); commit")  # fmt: skip
    centre.run("update visit set id = 12 where id = 10; update shot set visit = 12 where visit = 10")
    centre.run(
        "delete from visit where id = 20; update patient set id = 5 where id = 2; insert into shot values (300, 99, 0)"
    )
    centre.run("insert into visit values (99, 1, 'the orphan''s')")
    for copy in (a, b):
        copy.check()
    assert ("101",) in b.tables["shot"]
    assert ("300",) in b.tables["shot"]
    assert a.tables["visit"] == {}


def test_rows_without_a_route_are_nobodys(centre: Centre) -> None:
    a, b = centre.copy("A"), centre.copy("B")
    centre.run("update patient set clinic = null where id = 1; insert into patient values (3, null, 'n')")
    assert a.read() == [
        ("patient", "g", ("1",)),
        ("patient", "g", ("3",)),
        ("shot", "g", ("100",)),
        ("visit", "g", ("10",)),
    ]
    b.check()
    centre.run("update patient set clinic = 'A'")
    a.check()
    b.check()
    assert len(a.tables["patient"]) == 3


def test_truncate_empties_every_site(centre: Centre) -> None:
    a, b = centre.copy("A"), centre.copy("B")
    centre.run("truncate patient cascade")
    assert ("patient", "g", ("1",)) in (a.read() or [])
    a.check()
    b.check()


def test_what_a_site_wrote_does_not_come_back_but_for_what_others_did_to_it(centre: Centre) -> None:
    a, b = centre.copy("A"), centre.copy("B")
    centre.apply("A", "insert into drug values (2, 'mine'); update patient set name = 'mine' where id = 1", "1:5:")
    assert a.read() == []
    assert a.marker == "1:5:"
    assert b.read() == [("drug", "s", ("2", "mine"))]
    centre.apply("A", "update drug set name = 'again' where id = 2")
    centre.apply("B", "update drug set name = 'B''s' where id = 2")
    centre.apply("A", "update drug set name = 'last' where id = 2", "1:6:")
    assert a.read() == [("drug", "s", ("2", "last"))]
    assert b.read() == [("drug", "s", ("2", "last"))]


def test_a_correction_is_for_one_site_alone(centre: Centre) -> None:
    a, b = centre.copy("A"), centre.copy("B")
    relation = centre.rows("select id from replicator.relation where table_name = 'drug'")[0][0]
    correction = (
        "insert into replicator.outbox (relation, op, changed_at, route, key)"
        f" values ({relation}, 'u', 1, '@{TOPOLOGY}/A', '(1)')"
    )
    centre.apply("A", correction, "1:7:")
    assert a.read() == [("drug", "s", ("1", "d"))]
    assert (a.marker, b.read()) == ("1:7:", None)


def test_a_site_is_told_when_its_own_change_puts_a_row_outside_its_share(make_centre: MakeCentre) -> None:
    made = make_centre(
        "create table patient (id int primary key, clinic text, alive bool)", {"patient": Route(("clinic",))}
    )
    made.run("insert into patient values (1, 'A', true), (2, 'A', false)")
    (whole,) = made.plans("A")
    plan = replace(whole, where=RowFilter("", ("", ".clinic = 'A' and ", ".alive")))
    copy = Copy(made, "A", made.source("A", [plan]))
    assert copy.read() == [("patient", "s", ("1", "A", "t"))]
    made.apply("A", "update patient set alive = not alive", "1:8:")
    assert copy.read() == [("patient", "g", ("1",))]
    made.apply("A", "delete from patient", "1:9:")
    assert copy.read() == []


def test_markers_alone_make_a_batch_and_the_newest_counts(centre: Centre) -> None:
    a, b = centre.copy("A"), centre.copy("B")
    centre.apply("A", "select 1", "1:2:")
    centre.apply("A", "select 1", "1:3:")
    assert a.read() == []
    assert (a.marker, a.read(), b.read()) == ("1:3:", None, None)


def test_a_new_link_learns_how_far_its_changes_were_processed(centre: Centre) -> None:
    centre.run(
        f"insert into replicator.link (topology, site, direction, position) values ('{TOPOLOGY}', 'A', 'to_centre', '7:7:')"
    )
    assert centre.copy("A").marker == "7:7:"
    assert centre.copy("B").marker is None


def test_reading_again_from_the_same_position_gives_the_same(centre: Centre) -> None:
    """Invariant 3: a crash between reading and acknowledging changes nothing but time."""
    copy = centre.copy("A")
    before = copy.position
    centre.run("update patient set name = 'n'; update patient set clinic = 'B' where id = 1")
    copy.acknowledges = False
    first = copy.read()
    copy.source.close()
    again = Copy(centre, "A", centre.source("A"), before, acknowledges=False)
    assert again.read() == first
    centre.run("insert into drug values (8, 'x')")
    again.position = before
    assert again.read() == sorted([*(first or []), ("drug", "s", ("8", "x"))])


def read_half(copy: Copy) -> None:
    """Begin a batch, and fail."""
    with copy.source.read_batch(copy.position, 1) as batch:
        assert batch is not None
        (block,) = batch.blocks()
        next(iter(block.chunks))  # type: ignore[union-attr]
        raise RuntimeError


def test_a_batch_half_read_leaves_the_source_usable(centre: Centre) -> None:
    copy = centre.copy("A")
    centre.run("insert into drug select n, 'x' from generate_series(10, 5000) n")
    with pytest.raises(RuntimeError):
        read_half(copy)
    copy.check()


def test_commits_that_come_late_are_seen(centre: Centre) -> None:
    """Invariant 1: order of numbers is not order of commits."""
    copy = centre.copy("A")
    with psycopg.connect(centre.url) as late, psycopg.connect(centre.url) as lost:
        late.execute("insert into drug values (50, 'late')")
        lost.execute("insert into drug values (51, 'lost')")
        centre.run("insert into drug values (52, 'early')")
        assert copy.read() == [("drug", "s", ("52", "early"))]
        centre.run("insert into drug values (53, 'later')")
        assert copy.read() == [("drug", "s", ("53", "later"))]
        lost.rollback()
        late.commit()
    assert copy.read() == [("drug", "s", ("50", "late"))]
    copy.check()


def test_the_base_is_what_the_centres_ledger_would_hold(make_centre: MakeCentre) -> None:
    """Over the site's columns in the site's order; with the image where columns are merged."""
    made = make_centre("create table t (a numeric(9,2), id int primary key, b text, c real)", {})
    (shape,) = made.shapes()
    at_site = replace(shape, columns=tuple(shape.column(name) for name in ("id", "c", "b", "a")))
    merges = PolicyPlan(PolicyName.MERGE_COLUMNS)
    made.run("insert into t values (1.5, 1, 'x,\"y', 0.1), (null, 2, '', null)")
    for policy, image in ((PolicyPlan(), ""), (merges, " || '|' || row(id, c, b, a)::text")):
        plan = plan_of(shape, ("id",), "A", Route(), policy=policy, target=at_site)
        copy = Copy(made, "A", made.source("A", [plan]))
        copy.read()
        sql = f"select hashtextextended(row(id, c, b, a)::text, 0)::text{image} from t order by id"
        assert copy.bases == [row[0] for row in made.rows(sql)]
        made.run("update t set c = 1.25")
        copy.read()
        assert copy.bases == [row[0] for row in made.rows(sql)]
    only_down = replace(plan, direction=Direction.FROM_CENTRE)
    copy = Copy(made, "A", made.source("A", [only_down]))
    copy.read()
    assert copy.bases == [None, None]


def test_sites_whose_keys_carry_their_name_get_their_own_rows_only(make_centre: MakeCentre) -> None:
    made = make_centre(
        "create table run (site text, id int, x int, primary key (site, id))", {"run": Route(("site",))},
    )  # fmt: skip
    (shape,) = made.shapes()
    copies = {
        name: Copy(
            made,
            name,
            made.source(name, [plan_of(shape, shape.key, name, Route(("site",)), constants=[("site", name)])]),
        )
        for name in ("A", "B")
    }
    made.run("insert into run values ('A', 1, 1), ('B', 1, 2)")
    assert copies["A"].read() == [("run", "s", ("1", "1"))]
    copies["B"].read()
    made.run("delete from run where site = 'B'; insert into replicator.outbox (relation, op, changed_at, key, route)"
             " select relation, op, changed_at, key, '' from replicator.outbox where op = 'd'")  # fmt: skip
    assert copies["A"].read() == []
    assert copies["B"].read() == [("run", "g", ("1",))]


KEYS: Mapping[str, tuple[str, str, str]] = {
    "numeric": ("1.50", "2", "1.5"),
    "timestamptz": ("2024-02-29 12:00:00.000001+02", "infinity", "2024-02-29 10:00:00.000001+00"),
    "date": ("2024-02-29", "0044-03-15 BC", "2024-02-29"),
    "bytea": ("\\x00ff", "\\x", "\\x00ff"),
    "text": ('a,("\\\n', " ", 'a,("\\\n'),
    "char(5)": ("a", "", "a"),
    "bool": ("t", "f", "t"),
    "uuid": (
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "00000000-0000-0000-0000-000000000000",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
    ),
    "interval": ("1 day 02:00", "-1 mon", "26:00"),
    "float8": ("0.1", "-Infinity", "1e-1"),
    "int[]": ("{1,2}", "{}", "{1,2}"),
    "inet": ("10.0.0.1", "::1/64", "10.0.0.1/32"),
    "int4range": ("[1,3)", "empty", "(0,3)"),
    "mood": ("so,so", "ok", "so,so"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_every_type(make_centre: MakeCentre, kind: str) -> None:
    """Invariant 5, whatever the session of the writer is set to."""
    first, second, again = (value.replace("'", "''") for value in KEYS[kind])
    made = make_centre(
        f"create type mood as enum ('so,so', 'ok'); create table t (k {kind} primary key, x int, r {kind})",
        {"t": Route(("r",))},
    )
    (shape,) = made.shapes()
    copy = Copy(made, "A", made.source("A", [plan_of(shape, ("k",), "", Route())]))
    assert copy.read() == []
    made.run(
        "set datestyle = 'german'; set timezone = 'Asia/Tokyo'; set intervalstyle = 'sql_standard'; set bytea_output = 'escape'"
    )
    made.run(f"insert into t values ('{first}', 1, null), ('{second}', 2, null)")
    copy.read()
    assert len(copy.tables["t"]) == 2
    made.run(f"update t set x = 5 where k = '{again}'; delete from t where k = '{second}'")
    assert [change[1] for change in copy.read() or []] == ["g", "s"]
    ((key, values),) = copy.tables["t"].items()
    assert (values[1], key[0]) == ("5", values[0])


def test_partitions_are_read_through_their_root(make_centre: MakeCentre) -> None:
    made = make_centre(
        "create table part (id int, day date, x int, primary key (id, day)) partition by range (day);"
        "create table part_a partition of part for values from ('2020-01-01') to ('2021-01-01');"
        "create table part_b partition of part for values from ('2021-01-01') to ('2022-01-01')", {},
    )  # fmt: skip
    copy = made.copy("A")
    made.run(
        "insert into part values (1, '2020-05-05', 1), (2, '2021-05-05', 1); update part set day = '2021-06-06' where id = 1"
    )
    made.run("update part_b set x = 2 where id = 2")
    copy.check({"part": "select * from part"})


def test_changes_of_a_table_that_was_altered_meanwhile_are_read_after_install(centre: Centre) -> None:
    a, b = centre.copy("A"), centre.copy("B")
    centre.run(
        "alter table drug rename column id to number; insert into drug values (2, 'x'); delete from drug where number = 1"
    )
    with pytest.raises(SetupError):
        a.read()
    centre.install()
    for copy in (a, b):
        copy.source = centre.source(copy.site)
        assert copy.read() == [("drug", "g", ("1",)), ("drug", "s", ("2", "x"))]


def test_followers_are_looked_at_as_a_whole_when_their_table_had_changed(centre: Centre) -> None:
    a, b = centre.copy("A"), centre.copy("B")
    centre.run("alter table shot rename column visit to occasion; update patient set clinic = 'B' where id = 1")
    centre.run("alter table shot rename column occasion to visit")
    a.check()
    b.check()
    assert len(b.tables["shot"]) == 2


def test_a_table_that_was_not_captured_for_a_while_is_looked_at_as_a_whole(centre: Centre) -> None:
    a = centre.copy("A")
    centre.run("alter table drug disable trigger user; insert into drug values (9, 'unseen')")
    assert a.read() is None
    centre.install()
    assert ("drug", "s", ("9", "unseen")) in (a.read() or [])


def test_lag_and_keys_in_flight(centre: Centre) -> None:
    source = centre.source("A")
    assert source.read_lag(None).changes == 4
    copy = Copy(centre, "A", source)
    copy.read()
    assert source.read_lag(copy.position).changes == 0
    centre.run("update patient set name = 'z'; insert into drug values (2, 'x')")
    lag = source.read_lag(copy.position)
    assert lag.changes == 2
    assert lag.oldest_changed_at > 0
    patients = next(plan for plan in centre.plans("A") if plan.source.name == PATIENT)
    assert source.keys_in_flight(patients, copy.position, [("1",), ("2",), ("7",)]) == {("1",)}
    assert source.keys_in_flight(patients, None, [("1",)]) == {("1",)}


def test_one_sites_read_does_not_touch_what_others_changed(centre: Centre) -> None:
    """The cost of a site follows its own changes: index entries and rows of other sites are not looked at."""
    a = centre.copy("A")
    centre.run(
        "insert into patient select n, 'S' || n % 500, '' from generate_series(1000, 60999) n;"
        " update patient set name = 'one' where id = 1"
    )
    window = centre.rows("select array_agg(distinct xid::text::bigint) from replicator.outbox")[0][0]
    assert isinstance(window, list)
    link = LinkName(TOPOLOGY, "A", Direction.FROM_CENTRE)
    with closing(connect(centre.url, application_name="test")) as connection:
        relations = read_relations(connection, TOPOLOGY, centre.plans("A"), 0)
    parts = [
        part.changes(([min(window) - 1], [max(window) + 1]), ["", "@lab/A", "=(A)"], everything=False)
        for part in make_slices("", link, centre.plans("A"), relations)
    ]
    sql = copy_statement(parts).removeprefix("copy (").rpartition(")")[0]
    centre.run("set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off")
    ((plan,),) = centre.rows(f"explain (analyze, format json) {sql}")
    nodes = list(_nodes(plan[0]["Plan"]))  # type: ignore[index]
    outbox = [node for node in nodes if node.get("Relation Name") == "outbox"]
    assert outbox
    for node in outbox:
        assert node["Index Name"] == "outbox_route", node
        looked = _number(node, "Actual Loops") * (
            _number(node, "Actual Rows") + _number(node, "Rows Removed by Filter")
        )
        assert looked < 20, node
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan"]
    assert a.read() == [("patient", "s", ("1", "A", "one"))]


def _number(node: dict[str, object], name: str) -> float:
    return float(str(node.get(name, 0)))


def _nodes(node: dict[str, object]) -> list[dict[str, object]]:
    below = node.get("Plans", [])
    assert isinstance(below, list)
    return [node, *(found for each in below for found in _nodes(each))]
