"""What a rule of the YAML does to a stream: row filter, columns, names, keyed_by, TRUNCATE; and invariants 11 and 12."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from replicator.model import Engine
from tests.fixtures.pairs import MakePair, Pair, exact, install

SAMPLE = "create table sample (id integer primary key, name text, n bigint)"


def test_a_row_filter_lets_rows_in_and_out_and_in_again(pair: Pair) -> None:
    pair.site.run(SAMPLE, "insert into sample values (1, 'before', 50), (2, 'before', 5)")
    pair.install({"name": "sample", "where": "n > 10"})

    def check() -> None:
        pair.sync()
        here = pair.site.rows("select * from sample where n > 10")
        assert exact(pair.centre.rows("select * from sample")) == exact(here)

    check()
    pair.site.run("insert into sample values (3, 'in', 11), (4, 'out', 10), (5, 'unknown', null)")
    check()
    pair.site.run("update sample set n = 9 where id = 3", "update sample set n = 12 where id = 4")
    check()
    pair.site.run("update sample set name = 'outside' where id = 3", "update sample set n = null where id = 1")
    check()
    pair.site.run("update sample set n = 100", "update sample set id = id + 100 where id < 3")
    check()
    pair.site.run(
        "update sample set n = 1 where id = 5", "update sample set n = 99, name = 'there and back' where id = 5"
    )
    check()
    pair.site.run("delete from sample where id > 3")
    check()
    assert pair.parked() == []
    assert pair.conflicts() == []


def test_excluded_columns_stay_and_renamed_ones_arrive_under_their_names(pair: Pair) -> None:
    pair.site.run("create table sample (id integer primary key, name text, secret text, n bigint)")
    pair.install({
        "name": "sample", "target": "specimen",
        "columns": {"exclude": ["sec*"], "rename": {"name": "label", "id": "number"}},
    })  # fmt: skip
    pair.site.run("insert into sample values (1, 'a', 's', 1), (2, 'b', 's', 2), (3, 'c', null, 3)")
    pair.sync()
    pair.site.run(
        "update sample set secret = 'other' where id = 1",
        "update sample set name = 'B', secret = null where id = 2",
        "update sample set id = 4 where id = 3",
    )
    pair.sync()
    there = pair.centre.rows("select number, label, n from specimen")
    assert exact(there) == exact(pair.site.rows("select id, name, n from sample"))
    assert pair.centre.rows("select * from specimen where number = 2") == [(2, "B", 2)]
    assert pair.conflicts() == []


def test_sites_keyed_apart_keep_the_same_keys_and_their_foreign_keys(two_sites: Pair) -> None:
    pair = two_sites
    for number, site in enumerate(pair.sites.values()):
        site.run(
            "create table device (id integer primary key, name text unique)",
            "create table reading (device integer not null references device (id), day integer, value double precision,"
            " primary key (device, day))",
            f"insert into device values (1, 'same name'), (2, 'only {number}')",
            f"insert into reading values (1, 1, {number}.5), (2, 1, 0)",
        )
    pair.install({"name": "device", "keyed_by": ["site"]}, {"name": "reading", "keyed_by": ["site"]})
    first, second = pair.sites.values()

    def check() -> None:
        for name in pair.sites:
            pair.sync(name)
            assert pair.parked(name) == []
        for name, site in pair.sites.items():
            for table, columns in (("device", "id, name"), ("reading", "device, day, value")):
                there = pair.centre.rows(f"select {columns} from {table} where site = '{name}'")
                assert exact(there) == exact(site.rows(f"select {columns} from {table}")), (name, table)

    check()
    first.run("update device set name = 'changed' where id = 1", "delete from reading where device = 1")
    second.run("update reading set value = value + 1", "insert into device values (3, 'changed')")
    check()
    first.run("delete from device where id = 1", "insert into device values (7, 'same name')")
    second.run("update reading set day = 2 where device = 2")
    check()
    assert pair.centre.rows("select count(*) from device") == [(5,)]
    assert pair.conflicts() == []


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
@pytest.mark.parametrize("policy", ["replicate", "park", "ignore"])
def test_truncate_does_what_its_policy_says(make_pair: MakePair, target: str, policy: str) -> None:
    pair = make_pair("postgres", target, sites=("factory_a", "factory_b"))
    for site in pair.sites.values():
        site.run(SAMPLE)
    pair.install({"name": "sample", "keyed_by": ["site"], "truncate": policy})
    first, second = pair.sites.values()
    first.run("insert into sample values (1, 'a', 1), (2, 'b', 2)")
    second.run("insert into sample values (1, 'other site', 1)")
    pair.sync("factory_a")
    pair.sync("factory_b")
    first.run("insert into sample values (5, 'goes too', 1)", "truncate sample")
    first.run("insert into sample values (1, 'after', 3)")
    pair.sync("factory_a")
    query = "select id, name from sample where site = 'factory_a' order by id"
    there = pair.centre.rows(query)
    if policy == "replicate":
        assert there == [(1, "after")]
        assert pair.conflicts() == []
    else:
        assert there == [(1, "after"), (2, "b"), (5, "goes too")]
    assert [change.op for change in pair.parked("factory_a")] == (["t"] if policy == "park" else [])
    assert pair.centre.rows("select count(*) from sample where site = 'factory_b'") == [(1,)]


def test_truncate_of_children_and_parents_at_once(make_pair: MakePair) -> None:
    for target in ("postgres", "sqlite"):
        pair = make_pair("postgres", target)
        pair.site.run(
            "create table parent (id integer primary key)",
            "create table child (id integer primary key, up integer references parent (id))",
        )
        pair.install("parent", "child")
        pair.site.run("insert into parent values (1), (2)", "insert into child values (1, 1), (2, 2)")
        pair.sync()
        pair.site.commit("insert into child values (3, 1)", "truncate parent, child", "insert into parent values (9)")
        pair.sync()
        pair.assert_equal("parent", "child")
        assert pair.parked() == []


def test_invariant_11_a_table_that_leaves_the_yaml_keeps_triggers_and_rows(pair: Pair) -> None:
    pair.site.run(SAMPLE, "create table other (id integer primary key, name text)")
    pair.install("sample", "other")
    pair.site.run("insert into sample values (1, 'a', 1)", "insert into other values (1, 'a')")
    pair.sync()
    with closing(pair.app.installable(pair.name)) as site:
        before = set(site.list_objects())
    app = pair.configure("sample")
    with closing(app.installable(pair.name)) as site:
        plan = site.plan_site("bloodlab", app.plans(pair.name))
        assert plan.leftovers
        assert any("other" in leftover for leftover in plan.leftovers)
    install(app)
    with closing(app.installable(pair.name)) as site:
        assert set(site.list_objects()) == before
    assert pair.centre.rows("select name from other") == [("a",)]
    pair.site.run("update other set name = 'b'", "update sample set name = 'b'")
    pair.sync()
    assert pair.centre.rows("select name from other") == [("a",)]
    pair.assert_equal("sample")


def test_uninstall_leaves_nothing_of_ours_and_everything_of_the_users(pair: Pair) -> None:
    pair.site.run(SAMPLE)
    pair.install("sample")
    pair.site.run("insert into sample values (1, 'a', 1)")
    pair.sync()
    for place in ("centre", pair.name):
        with closing(pair.app.installable(place)) as database:
            database.install(database.plan_uninstall("bloodlab"))
            assert list(database.list_objects()) == []
    pair.site.run("insert into sample values (2, 'b', 1)")
    assert pair.site.rows("select count(*) from sample") == [(2,)]
    assert pair.centre.rows("select count(*) from sample") == [(1,)]


_MEASURE = """
import sys
from pathlib import Path
from replicator.app import App
from replicator.pipeline import run_once
app = App.open(sys.argv[1])
ends = app.connect(sys.argv[2])
ends.target.take_lease()
while run_once(ends.source, ends.target, 5000) is not None: pass
def memory(word):  # not getrusage: its peak begins with that of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))
before = memory("VmRSS:")
print("ready", flush=True)
sys.stdin.readline()
while run_once(ends.source, ends.target, 5000) is not None: pass
print(before, memory("VmHWM:"))
ends.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("one_transaction", [False, True], ids=["transactions", "one transaction"])
def test_invariant_12_memory_is_bounded_whatever_the_backlog(pair: Pair, one_transaction: bool) -> None:
    rows, pieces = 200_000, 1 if one_transaction else 100
    wide = "'a name that makes a row of about a hundred bytes, as usual in such tables, ' || i"
    pair.site.run(SAMPLE, "insert into sample values (-1, 'warm', 1)")
    pair.install("sample")
    command = [sys.executable, "-c", _MEASURE, str(pair.yaml), pair.name]
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        step = rows // pieces
        for low in range(0, rows, step):
            numbers = f"with recursive s (i) as (select {low} union all select i + 1 from s where i < {low + step - 1})"
            pair.site.run(f"insert into sample {numbers} select i, {wide}, i from s")
        out, _ = process.communicate("go\n", timeout=200)
    assert process.returncode == 0
    before, peak = map(int, out.split())
    assert peak - before < 32 * 1024 * 1024, f"grew by {(peak - before) >> 20} MiB"
    assert pair.centre.rows("select count(*) from sample") == [(rows + 1,)]


def test_engines_of_the_suite_are_those_asked_for(pair: Pair) -> None:
    """A test of the test: the pairs really are what their names say."""
    plans = pair.configure("*").database("centre").engine, pair.app.database(pair.name).engine
    assert plans == (pair.centre.engine, pair.site.engine)
    assert all(isinstance(engine, Engine) for engine in plans)
