"""Databases that were copied, moved or made anew: what lost nothing goes on by itself, all else stops and can be mended.

Invariants 1, 3 and 13: nothing is lost or doubled in silence, whoever the database at the other end of a URL is now.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import yaml

from replicator.embedded import Binaries, EmbeddedServer, find_binaries
from replicator.embedded.processes import Account
from tests.fixtures.cli import execute, replicator, rows
from tests.fixtures.copies import Copied
from tests.fixtures.servers import OPTIONS

NOTES = "create table notes (id integer primary key, body text)"
READ = "select id, body from notes order by id"
Make = Callable[..., str]


class Topology:
    """Sites with a table ``notes`` that goes both ways."""

    def __init__(
        self, folder: Path, centre: str, sites: dict[str, str], direction: str = "both", capture: str = "triggers"
    ) -> None:
        self._capture = capture
        self.file, self.centre, self.sites = folder / "topology.yaml", centre, dict(sites)
        self._direction = direction
        self.save()
        for url in (centre, *sites.values()):
            execute(url, f"{NOTES};")
        self.run("install", "--yes")

    def save(self) -> None:
        """Write the YAML as the URLs are now."""
        topology = {
            "topology": "moved", "centre": {"url": self.centre},
            "sites": {name: {"url": url, "capture": self._capture} for name, url in self.sites.items()},
            "tables": [{"name": "notes", "direction": self._direction}],
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(topology), encoding="utf-8")

    def run(self, *arguments: str, code: int | None = 0) -> str:
        """A command's output."""
        return replicator(*arguments, "-c", self.file, code=code).output

    def write(self, place: str, number: int) -> None:
        """A new row."""
        execute(self.url(place), f"insert into notes values ({number}, '{place}');")

    def url(self, place: str) -> str:
        """A place's URL."""
        return self.centre if place == "centre" else self.sites[place]

    def keys(self, place: str) -> list[int]:
        """The rows there."""
        return [int(number) for number, _ in rows(self.url(place), READ)]

    def goes_on(self, *numbers: int) -> None:
        """What is written now at both ends arrives, and everything is everywhere."""
        number = 900 + len(self.keys("centre"))
        self.write("a", number)
        self.write("centre", number + 50)
        self.run("sync")
        self.run("sync")
        assert self.keys("a") == self.keys("centre") == sorted([*numbers, number, number + 50])


# --- SQLite files ---


def _vacuum(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("vacuum")


def _vacuum_into(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("vacuum into ?", [str(path) + ".new"])
    Path(f"{path}.new").replace(path)


def _backup(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file, closing(sqlite3.connect(f"{path}.new")) as copy:
        file.backup(copy)
    Path(f"{path}.new").replace(path)


def _dump(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file, closing(sqlite3.connect(f"{path}.new")) as copy:
        copy.executescript("\n".join(file.iterdump()))
    Path(f"{path}.new").replace(path)


@pytest.mark.parametrize("how", [_vacuum, _vacuum_into, _backup, _dump])
def test_a_sqlite_file_that_is_written_anew_goes_on(how: Callable[[Path], None], tmp_path: Path) -> None:
    topology = Topology(tmp_path, f"sqlite:///{tmp_path}/c.sqlite3", {"a": f"sqlite:///{tmp_path}/a.sqlite3"})
    topology.write("a", 1)
    topology.run("sync")
    topology.write("a", 2)
    for name in ("a.sqlite3", "c.sqlite3"):
        how(tmp_path / name)

    topology.goes_on(1, 2)


# --- copies ---


@pytest.mark.parametrize("engine", ["sqlite", "postgres", "wal"])
def test_whoever_of_two_copies_comes_second_is_told(engine: str, tmp_path: Path, postgres_database: Make) -> None:
    """And the copy becomes a site of its own by one command."""
    site = f"sqlite:///{tmp_path}/a.sqlite3" if engine == "sqlite" else postgres_database("a")
    capture = "wal" if engine == "wal" else "triggers"
    topology = Topology(tmp_path, postgres_database("centre"), {"a": site}, capture=capture)
    topology.write("a", 1)
    topology.run("sync")
    copy = Copied(site, postgres_database).back_up()
    topology.write("a", 2)
    execute(copy, "insert into notes values (3, 'copy');")
    topology.run("sync")

    topology.sites["a"] = copy
    topology.save()
    assert "replicator rejoin --site a" in topology.run("sync", code=3)
    topology.sites = {"a": site, "b": copy}
    topology.save()
    said = topology.run("sync", code=3)
    assert "this is the database of site a, or a copy of it" in said
    assert "replicator rejoin --site b --new-identity" in said
    assert 3 not in topology.keys("centre")

    topology.run("rejoin", "--site", "b", "--new-identity", "--yes")

    topology.write("b", 4)
    topology.write("a", 5)
    topology.run("sync")
    topology.run("sync")
    assert topology.keys("a") == topology.keys("b") == topology.keys("centre") == [1, 2, 3, 4, 5]
    topology.run("status")


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_url_that_names_another_sites_database(engine: str, tmp_path: Path, postgres_database: Make) -> None:
    made = {s: f"sqlite:///{tmp_path}/{s}.sqlite3" if engine == "sqlite" else postgres_database(s) for s in "ab"}
    topology = Topology(tmp_path, f"sqlite:///{tmp_path}/c.sqlite3", made, direction="to_centre")
    for number, site in enumerate("ab", 1):
        topology.write(site, number)
    topology.run("sync")
    topology.write("a", 3)

    topology.sites = {"b": made["a"]}
    topology.save()
    said = topology.run("sync", code=3)

    assert "this is the database of site a" in said
    assert topology.keys("centre") == [1, 2]
    topology.sites = made
    topology.save()
    topology.run("sync")
    assert topology.keys("centre") == [1, 2, 3]


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_database_made_anew_under_the_same_name(engine: str, tmp_path: Path, postgres_database: Make) -> None:
    """It gets its rows back."""
    site = f"sqlite:///{tmp_path}/a.sqlite3" if engine == "sqlite" else postgres_database("a")
    topology = Topology(tmp_path, postgres_database("centre"), {"a": site})
    topology.write("a", 1)
    topology.write("centre", 2)
    topology.run("sync")
    if engine == "sqlite":
        (tmp_path / "a.sqlite3").unlink()
    else:
        with psycopg.connect(site, autocommit=True) as database:
            database.execute("drop schema replicator cascade")
            database.execute("drop table notes")
    execute(site, f"{NOTES};")
    topology.run("install", "--yes")
    topology.write("a", 3)
    assert "replicator rejoin --site a" in topology.run("sync", code=3)
    assert topology.keys("a") == [3]

    topology.run("rejoin", "--site", "a", "--yes")

    topology.goes_on(1, 2, 3)


# --- servers ---


@pytest.fixture
def other_server() -> Iterator[Callable[[Binaries, Path], EmbeddedServer]]:
    """Starts servers on folders that exist."""
    made: list[EmbeddedServer] = []

    def start(binaries: Binaries, data: Path) -> EmbeddedServer:
        server = EmbeddedServer(data, binaries=binaries, options=OPTIONS)
        made.append(server)
        server.start()
        return server

    yield start
    for server in made:
        server.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' account may write to."""
    made = Path(tempfile.mkdtemp(prefix="replicator-moved-"))
    Account.choose().own(made)
    yield made
    shutil.rmtree(made)


def _tool(binaries: Binaries, folder: Path, program: str, *arguments: str) -> None:
    done = Account.choose().run([str(binaries.bindir / program), *arguments], folder)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def _binaries(server: EmbeddedServer) -> Binaries:
    """The same where the servers' account may run them: a server copies what it may not."""
    return Binaries(server.binaries.label, server._bindir, server.binaries.version)


@pytest.mark.long
@pytest.mark.parametrize("lost", [False, True], ids=["whole", "behind"])
@pytest.mark.parametrize("who", ["a", "centre"])
def test_a_promoted_standby(
    who: str, lost: bool, own_server: EmbeddedServer, folder: Path, tmp_path: Path, postgres_database: Make,
    other_server: Callable[[Binaries, Path], EmbeddedServer],
) -> None:  # fmt: skip
    """One that has everything goes on by itself; one that was behind is noticed, whatever was written there since."""
    moving = own_server.create_database(who)
    urls = {"a": postgres_database("a"), "centre": postgres_database("centre"), who: moving}
    topology = Topology(tmp_path, urls["centre"], {"a": urls["a"]})
    topology.write("a", 1)
    topology.run("sync")
    binaries, port = _binaries(own_server), str(own_server.port)
    _tool(binaries, folder, "pg_basebackup", "-D", str(folder / "standby"), "-h", "127.0.0.1", "-p", port,
          "-U", "postgres", "-R", "-X", "stream", "-c", "fast")  # fmt: skip
    standby = None if lost else other_server(own_server.binaries, folder / "standby")
    for place, number in (("a", 2), ("centre", 3)):
        topology.write(place, number)
    topology.run("sync")
    if standby is not None:
        _catch_up(own_server.dsn(), standby.dsn())
    own_server.kill()
    standby = standby or other_server(own_server.binaries, folder / "standby")
    execute(standby.dsn(), "select pg_promote();")
    if who == "a":
        topology.sites["a"] = standby.dsn(who)
    else:
        topology.centre = standby.dsn(who)
    topology.save()
    known = [1, 2, 3]
    if lost:
        for number in (4, 5, 6):
            topology.write(who, number)
        assert "replicator rejoin" in topology.run("sync", code=3)
        topology.run("rejoin", *(["--site", "a"] if who == "a" else ["--centre"]), "--yes")
        known += [4, 5, 6]
    topology.goes_on(*known)


@pytest.mark.long
def test_a_dump_in_a_new_cluster(
    own_server: EmbeddedServer, folder: Path, tmp_path: Path, postgres_database: Make
) -> None:
    """Transaction ids begin anew there: what the outbox says of them means nothing, and rejoin knows that."""
    old = postgres_database("a")
    topology = Topology(tmp_path, postgres_database("centre"), {"a": old})
    topology.write("a", 1)
    topology.write("centre", 2)
    topology.run("sync")
    topology.write("a", 3)
    _tool(_binaries(own_server), folder, "pg_dump", "-Fc", "-f", str(folder / "dump"), "-d", old)
    new = own_server.create_database("a")
    _tool(_binaries(own_server), folder, "pg_restore", "-d", new, str(folder / "dump"))

    topology.sites["a"] = new
    topology.save()
    topology.write("a", 4)
    assert "replicator rejoin --site a" in topology.run("sync", code=3)
    topology.run("rejoin", "--site", "a", "--yes")
    topology.goes_on(1, 2, 3, 4)


@pytest.mark.long
@pytest.mark.parametrize("who", ["a", "centre"])
def test_pg_upgrade_goes_on(
    who: str, folder: Path, tmp_path: Path, postgres_database: Make,
    other_server: Callable[[Binaries, Path], EmbeddedServer],
) -> None:  # fmt: skip
    """Everything is kept there, transaction ids as well; only the server's own number is another."""
    majors = sorted({each.major: each for each in find_binaries()}.items())
    if len(majors) < 2:
        pytest.skip("one PostgreSQL version only")  # CI has three
    (_, before), (_, after) = majors[:2]
    old, new = folder / "old", folder / "new"
    for path in (old, new):
        path.mkdir(mode=0o700)
        Account.choose().own(path)
    running = other_server(before, old)
    urls = {
        "a": f"sqlite:///{tmp_path}/a.sqlite3",
        "centre": postgres_database("centre"),
        who: running.create_database(who),
    }
    topology = Topology(tmp_path, urls["centre"], {"a": urls["a"]})
    topology.write("a", 1)
    topology.write("centre", 2)
    topology.run("sync")
    topology.write("a", 3)
    fresh = other_server(after, new)
    binaries = [_binaries(running), _binaries(fresh)]
    running.stop()
    fresh.stop()
    _tool(binaries[1], folder, "pg_upgrade", "-b", str(binaries[0].bindir), "-B", str(binaries[1].bindir), "-d", str(old),
          "-D", str(new), "-U", "postgres")  # fmt: skip
    fresh.start()
    if who == "a":
        topology.sites["a"] = fresh.dsn(who)
    else:
        topology.centre = fresh.dsn(who)
    topology.save()

    topology.goes_on(1, 2, 3)


def _catch_up(primary: str, standby: str) -> None:
    ((lsn,),) = rows(primary, "select pg_current_wal_lsn()::text")
    deadline = time.monotonic() + 30
    while not rows(standby, f"select pg_last_wal_replay_lsn() >= '{lsn}'")[0][0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
