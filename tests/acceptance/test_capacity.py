"""How large outboxes get: what status says of them, and what becomes of one that outgrows its limits."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicator.app import App
from replicator.app.outboxes import Guards, forget_gaps, read_gaps
from replicator.model import Direction, LinkName
from tests.fixtures.cli import Result, answer, execute, opened, replicator, rows, started
from tests.fixtures.databases import PostgresDatabases

TABLES = "create table reading (id integer primary key, note text);"
MANY = {
    "postgres": "insert into reading select g, 'note ' || g from generate_series({0} + 1, {0} + {1}) g",
    "sqlite": "with recursive n (g) as (values ({0} + 1) union all select g + 1 from n where g < {0} + {1})"
    " insert into reading select g, 'note ' || g from n",
}
SOME = {"postgres": 12_000, "sqlite": 45_000}
"""Changes that take more than a megabyte."""


class Field:
    """A centre, and a site of the engine asked for."""

    def __init__(self, folder: Path, engine: str, places: Mapping[str, str]) -> None:
        self.file, self.engine, self.places = folder / "field.yaml", engine, places
        self.kept = 0
        """Rows that were delivered and stay all the same: a SQLite outbox never loses its highest."""

    def rules(self, direction: str = "to_centre", **outbox: object) -> None:
        settings = {
            "topology": "field", "centre": {"url": self.places["centre"]},
            "sites": {"far": {"url": self.places["far"]}}, "tables": [{"name": "reading", "direction": direction}],
            "defaults": {"outbox": outbox},
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def run(self, *arguments: object, code: int | None = 0) -> Result:
        return replicator(*arguments, "-c", self.file, code=code)

    def status(self, code: int | None = 0) -> Any:
        return answer("status", "-c", self.file, code=code)

    def outbox(self, code: int | None = 0) -> Any:
        (found,) = self.status(code)["outboxes"]
        return found

    @property
    def many(self) -> int:
        return SOME[self.engine]

    def write_many(self, after: int = 0) -> None:
        execute(self.places["far"], MANY[self.engine].format(after, self.many))

    def guard(self) -> str:
        """One look of the service's guard, with the centre away or not."""
        return Guards(App.open(self.file)).of(LinkName("field", "far"))()

    def waiting(self) -> int:
        table = "replicator.outbox" if self.engine == "postgres" else "replicator_outbox where op <> ''"
        return int(rows(self.places["far"], f"select count(*) from {table}")[0][0]) - self.kept


@pytest.fixture(params=["postgres", "sqlite"])
def field(
    request: pytest.FixtureRequest, tmp_path: Path, sqlite_file: Callable[[str], Path],
    postgres_database: PostgresDatabases,
) -> Field:  # fmt: skip
    site = postgres_database("far") if request.param == "postgres" else f"sqlite:///{sqlite_file('far')}"
    made = Field(tmp_path, request.param, {"centre": postgres_database("centre"), "far": site})
    execute(site, TABLES + "insert into reading values (0, 'zero')")
    made.rules()
    made.run("install", "--yes")
    made.run("sync")
    made.kept = made.waiting()
    return made


def sample(field: Field, hours: float, changes: int) -> None:
    """The outbox as it was hours ago: so many changes have been captured since."""
    if field.engine == "postgres":
        script = f"""delete from replicator.outbox_sample; insert into replicator.outbox_sample
            select now() - interval '{hours} hours', last_value - {changes} from replicator.outbox_seq_seq"""
    else:
        ago = f"cast((julianday('now') - 2440587.5 - {hours} / 24.0) * 86400000000 as integer)"
        script = f"""delete from replicator_outbox_sample; insert into replicator_outbox_sample
            select {ago}, max(seq) - {changes} from replicator_outbox"""
    execute(field.places["far"], script)


def test_status_says_how_large_an_outbox_is_and_how_long_its_room_lasts(field: Field) -> None:
    empty = field.outbox()
    assert (empty["place"], empty["room"], empty["rows"], empty["days"]) == ("far", "enough", field.kept, None)
    sample(field, 0.001, 5)
    field.rules(max_size="100MB")
    field.write_many()
    unmeasured = field.outbox(code=None)
    assert (unmeasured["per_second"], unmeasured["days"]) == (None, None)
    sample(field, 24, field.many)
    found = field.outbox(code=None)
    assert found["rows"] == field.many + field.kept
    assert found["oldest_seconds"] < 60
    assert found["per_second"] * 86_400 == pytest.approx(field.many, rel=0.01)
    room = (100 << 20) - found["bytes"]
    assert found["days"] == pytest.approx(
        room / (found["bytes"] / found["rows"] * found["per_second"] * 86_400), rel=0.01
    )
    field.rules(max_size="2MB")
    assert field.outbox(code=None)["room"] in ("full", "soon full")
    finding = [each for each in answer("check", "-c", field.file)["findings"]["far"] if each["subject"] == "outbox"]
    assert len(finding) == 1
    assert finding[0]["warning"]
    said = field.run("status", code=None).output
    assert f"{found['rows']:,}" in said
    assert "/day" in said

    field.rules(max_size="1MB")
    told = field.guard()
    assert "full" in told
    assert "max_size 1.0 MB" in told
    assert "run: replicator sync, or raise max_size" in told
    execute(field.places["far"], "insert into reading values (90000, 'capture goes on')")
    assert field.waiting() == field.many + 1


def test_a_full_outbox_stops_capture_and_a_resync_brings_back_what_it_missed(field: Field) -> None:
    field.write_many()
    field.rules(max_size="1MB", when_full="stop")
    assert "capture is stopped" in field.guard()

    execute(field.places["far"], "update reading set note = 'unseen' where id <= 100")
    execute(field.places["far"], "delete from reading where id = 200")
    execute(field.places["far"], "insert into reading values (70000, 'unseen')")
    assert field.waiting() == field.many
    stopped = field.outbox(code=1)
    assert stopped["room"] == "capture stopped"
    assert "replicator install --site far" in stopped["hint"]
    assert field.guard()  # again: nothing changes
    field.rules(when_full="stop")
    assert field.outbox(code=1)["room"] == "capture stopped"  # room alone mends nothing

    field.run("install", "--yes", "--site", "far")
    execute(field.places["far"], "insert into reading values (70001, 'seen')")
    field.run("sync")
    assert field.outbox(code=1)["room"] == "to be resynced"
    assert rows(field.places["centre"], "select note from reading where id = 70001") == [("seen",)]
    field.run("resync", "--site", "far", "--yes")
    assert field.status()["healthy"]
    field.run("audit")
    assert rows(field.places["centre"], "select count(*) from reading where note = 'unseen'") == [(102,)]
    assert rows(field.places["centre"], "select count(*) from reading where id = 200") == [(0,)]


def test_an_open_application_does_not_notice_that_capture_stops(field: Field) -> None:
    """Invariant 10: statements prepared before, in a transaction that is open meanwhile or not, go on as before."""
    field.write_many()
    field.rules(max_size="1MB", when_full="stop")
    if field.engine == "sqlite":
        with opened(field.places["far"]) as application:
            application.execute("insert into reading values (?, ?)", (80_000, "before"))
            assert "stopped" in field.guard()
            application.execute("insert into reading values (?, ?)", (80_001, "after"))
            assert application.execute("select count(*) from reading where id >= 80000").fetchone() == (2,)
    else:
        import psycopg

        with psycopg.connect(field.places["far"]) as application:
            application.execute("insert into reading values (80000, 'before')", prepare=True)
            assert "stopped" in field.guard()
            application.execute("insert into reading values (80001, 'after')", prepare=True)
            application.commit()
    assert field.waiting() == field.many + 1


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_what_a_sync_delivers_stops_no_capture_and_is_pruned(
    tmp_path: Path, sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases, engine: str
) -> None:
    """Both ways: until the centre has answered, the site keeps what is delivered already."""
    far = postgres_database("far") if engine == "postgres" else f"sqlite:///{sqlite_file('far')}"
    field = Field(tmp_path, engine, {"centre": f"sqlite:///{sqlite_file('centre')}", "far": far})
    execute(far, TABLES)
    field.rules(direction="both", max_size="1MB", when_full="stop")
    field.run("install", "--yes")
    execute(far, "insert into reading values (0, 'zero')")
    field.run("sync")
    field.write_many()
    assert "2 links healthy, but not the outbox of far" in field.run("status", code=1).output

    field.run("sync")

    assert field.guard() == ""
    execute(far, "insert into reading values (70000, 'captured')")
    field.run("sync")
    assert rows(field.places["centre"], "select note from reading where id = 70000") == [("captured",)]
    assert engine == "postgres" or field.waiting() < 100
    assert field.status()["healthy"]


def test_the_files_disk_counts_but_others_that_fill_it_stop_no_small_outbox(
    tmp_path: Path, sqlite_file: Callable[[str], Path]
) -> None:
    far, centre = sqlite_file("far"), sqlite_file("centre")
    field = Field(tmp_path, "sqlite", {"centre": f"sqlite:///{centre}", "far": f"sqlite:///{far}"})
    execute(field.places["far"], TABLES)
    field.rules(keep_free="9999TB", when_full="stop")
    field.run("install", "--yes")
    execute(field.places["far"], "insert into reading values (80000, 'one')")
    assert "holds few changes" in field.guard()
    field.write_many()
    assert field.waiting() == field.many + 1
    found = field.outbox(code=1)
    assert found["free"] > 0
    assert "less than keep_free" in found["problem"]
    assert "capture is stopped" in field.guard()


def test_the_file_of_a_sqlite_site_does_not_grow_under_steady_writes(
    tmp_path: Path, sqlite_file: Callable[[str], Path]
) -> None:
    """Rows that every link has passed are deleted, and their pages used again; nobody runs VACUUM."""
    far, centre = sqlite_file("far"), sqlite_file("centre")
    field = Field(tmp_path, "sqlite", {"centre": f"sqlite:///{centre}", "far": f"sqlite:///{far}"})
    execute(field.places["far"], TABLES + "insert into reading values (1, 'a')")
    field.rules()
    field.run("install", "--yes")
    sizes = []
    for turn in range(4):
        with closing(sqlite3.connect(far, isolation_level=None)) as application:
            application.execute("begin")
            for change in range(5_000):
                application.execute("update reading set note = ? where id = 1", (f"{turn} {change}",))
            application.execute("commit")
        field.run("sync")
        with closing(sqlite3.connect(far)) as file:
            (pages,) = file.execute("pragma page_count").fetchone()
            (waiting,) = file.execute("select count(*) from replicator_outbox").fetchone()
        sizes.append(pages)
        assert waiting < 100
    assert sizes[-1] <= sizes[0] + 3, sizes  # the same changes once more would be fifty pages


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_a_centre_that_is_full_gives_up_the_site_that_is_away_and_serves_the_others(
    tmp_path: Path, sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases, engine: str
) -> None:
    centre = postgres_database("centre") if engine == "postgres" else f"sqlite:///{sqlite_file('centre')}"
    sites = {name: f"sqlite:///{sqlite_file(name)}" for name in ("gone", "here")}
    file = tmp_path / "hub.yaml"
    settings = {
        "topology": "hub", "centre": {"url": centre}, "sites": {name: {"url": url} for name, url in sites.items()},
        "tables": [{"name": "reading", "direction": "from_centre"}],
        "defaults": {"outbox": {"max_size": "1MB", "when_full": "stop"}},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    for url in (centre, *sites.values()):
        execute(url, TABLES)
    replicator("install", "--yes", "-c", file)
    execute(centre, "insert into reading values (0, 'zero')")
    replicator("sync", "-c", file)
    execute(centre, MANY[engine].format(0, SOME[engine]))
    guard = Guards(App.open(file)).of(LinkName("hub", "gone", Direction.FROM_CENTRE))
    assert "no link has been away for long" in guard()  # a minute is not long
    long_ago = (
        "now() - interval '1 hour'" if engine == "postgres" else "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 hour')"
    )
    table = "replicator.acknowledged" if engine == "postgres" else "replicator_acknowledged"
    execute(centre, f"update {table} set acknowledged_at = {long_ago} where link like '%gone%'")

    told = Guards(App.open(file)).of(LinkName("hub", "here", Direction.FROM_CENTRE))()

    assert "gone" in told
    assert "is waited for no more and must rejoin" in told
    health = {each["site"]: each["health"] for each in answer("status", "-c", file, code=1)["links"]}
    assert health["gone"] == "expired"
    replicator("sync", "--site", "here", "-c", file)
    replicator("audit", "--site", "here", "-c", file)
    execute(centre, "insert into reading values (70000, 'captured as ever')")
    replicator("sync", "--site", "here", "-c", file)
    assert rows(sites["here"], "select note from reading where id = 70000") == [("captured as ever",)]


@pytest.mark.slow
def test_the_limits_are_kept_while_the_centre_is_away_and_the_log_says_so(
    tmp_path: Path, sqlite_file: Callable[[str], Path]
) -> None:
    centre = sqlite_file("centre")
    field = Field(tmp_path, "sqlite", {"centre": f"sqlite:///{centre}", "far": f"sqlite:///{sqlite_file('far')}"})
    execute(field.places["far"], TABLES)
    field.rules(max_size="1MB", when_full="stop")
    field.run("install", "--yes")
    field.write_many()
    centre.rename(centre.with_suffix(".away"))
    process = started("run", "-c", field.file)
    try:
        deadline = time.monotonic() + 90
        while not rows(field.places["far"], "select 1 from replicator_capture_stop"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
        told = "".join(process.communicate(timeout=30))
    assert "failing" in told
    assert "the outbox is full: it takes" in told
    assert "capture is stopped" in told
    execute(field.places["far"], "insert into reading values (70000, 'the application goes on')")
    assert field.waiting() == field.many


def test_a_write_from_the_time_without_capture_ends_before_capture_goes_on(
    postgres_database: PostgresDatabases, tmp_path: Path
) -> None:
    """Else a resync could compare without it and forget the gap, and it would never be captured."""
    import psycopg

    from replicator.engines.postgres.installer import PostgresInstaller

    field = Field(tmp_path, "postgres", {"centre": postgres_database("centre"), "far": postgres_database("far")})
    execute(field.places["far"], TABLES + "insert into reading values (0, 'zero')")
    field.rules()
    field.run("install", "--yes")
    field.run("sync")
    with closing(App.open(field.file).outbox("far")) as outbox:
        outbox.stop_capture("for the test")
    with psycopg.connect(field.places["far"]) as application, pytest.MonkeyPatch.context() as patched:
        application.execute("update reading set note = 'silent' where id = 0")
        patched.setitem(PostgresInstaller.__init__.__kwdefaults__, "patience", 0.1)
        field.run("install", "--yes", code=3)
        field.run("resync", "--site", "far", code=None)
        assert field.outbox(code=1)["room"] == "capture stopped"
    field.run("install", "--yes")
    field.run("resync", "--site", "far", "--yes")
    assert field.status()["healthy"]
    assert rows(field.places["centre"], "select note from reading") == [("silent",)]


def test_a_gap_that_comes_while_tables_are_compared_is_not_forgotten(field: Field) -> None:
    """Capture stopped and resumed during a resync: what was written then may have been compared before."""
    app = App.open(field.file)

    def stop() -> None:
        with closing(app.outbox("far")) as outbox:
            outbox.stop_capture("for the test")

    def gap() -> None:
        stop()
        field.run("install", "--yes", "--site", "far")

    gap()
    first = read_gaps(app, ["far"])
    gap()
    forget_gaps(app, first)
    assert field.outbox(code=1)["room"] == "to be resynced"
    second = read_gaps(app, ["far"])
    stop()
    forget_gaps(app, second)
    assert field.outbox(code=1)["room"] == "capture stopped"
    assert read_gaps(app, ["far"]) == {}
    gap()
    forget_gaps(app, read_gaps(app, ["far"]))
    assert field.status()["healthy"]
