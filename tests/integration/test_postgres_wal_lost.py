"""A slot that lost changes: named by the link, by status and check; install and resync bring back what was missed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from replicator.app import App
from replicator.capacity import Guard
from replicator.cli import main
from replicator.cli.status import read
from replicator.embedded import EmbeddedServer
from replicator.engines.postgres.wal import feed, pump
from replicator.errors import BatchError, SetupError
from replicator.model import Cap, Finding, TableName, WhenFull
from replicator.pipeline import run_once
from replicator.status import Health
from replicator.worker import Ends
from tests.fixtures.pairs import MakePair, Pair, PostgresPlace, SqlitePlace, install

TABLE = "create table item (id integer primary key, name text)"
MISSED = (
    "update item set name = 'changed' where id = 1", "delete from item where id = 2", "insert into item values (4, 'new')",
)  # fmt: skip
LOSSES = {
    "slot dropped": "select pg_drop_replication_slot(name) from replicator.slot",
    "slot moved": "select pg_replication_slot_advance(name, pg_current_wal_lsn()) from replicator.slot",
    "publication dropped": "drop publication {publication}",
    "table left out": "alter publication {publication} drop table item",
    "deletes left out": "alter publication {publication} set (publish = 'insert, update')",
}


def start(pair: Pair, **rule: object) -> Pair:
    for place in (pair.site, pair.centre):
        place.run(TABLE)
    pair.install({"name": "item", **rule})
    pair.site.run("insert into item values (1, 'one'), (2, 'two'), (3, 'three')")
    pair.settle()
    return pair


def checked(pair: Pair) -> list[Finding]:
    """What ``check`` finds wrong at the site."""
    app = App.open(pair.yaml)
    assert not app.read_catalogues()
    database = app.installable(pair.name)
    try:
        return [found for found in database.check(app.plans(pair.name), as_source=True) if not found.ok]
    finally:
        database.close()


def expect_named(pair: Pair) -> None:
    """The link stops and says what to do; status and check say it too."""
    with pytest.raises(SetupError, match=r"changes may be missing(.|\n)*run: replicator install"):
        pair.sync()
    (found, *_) = read(App.open(pair.yaml), [pair.name])
    assert found.health is Health.BROKEN
    assert "changes may be missing" in found.problem
    assert "replicator install" in found.hint
    assert any("replicator install" in each.fix for each in checked(pair) if not each.warning)


def run(pair: Pair, *words: str) -> dict[str, object]:
    done = CliRunner().invoke(main, [*words, "--site", pair.name, "-c", str(pair.yaml), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def lose(pair: Pair, how: str) -> None:
    ((publication,),) = pair.site.rows("select publication from replicator.slot")
    pair.site.run("update item set name = 'seen' where id = 3")
    if "slot" in how:
        pair.site.run(*MISSED)
    pair.site.run(LOSSES[how].format(publication=publication))
    if "slot" not in how:
        pair.site.run(*MISSED)


@pytest.mark.parametrize("how", LOSSES)
def test_a_loss_is_named_and_mended(make_pair: MakePair, how: str) -> None:
    """Nothing is lost in silence, and nothing comes twice."""
    pair = start(make_pair("postgres-wal", "sqlite"))
    lose(pair, how)
    expect_named(pair)
    install(App.open(pair.yaml))
    pair.site.run("insert into item values (5, 'behind the loss')")
    pair.settle()
    assert pair.centre.rows("select name from item where id <> 2 order by id") == [
        ("changed",), ("seen",), ("new",), ("behind the loss",),
    ]  # fmt: skip
    assert not [each for each in checked(pair) if not each.warning]
    run(pair, "resync", "--yes")
    pair.assert_equal("item")
    assert pair.parked() == []


@pytest.mark.parametrize("way", [("postgres-wal", "sqlite"), ("postgres-bypass", "postgres")], ids=["keep", "bypass"])
def test_a_running_link_notices_what_is_not_published_any_more(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch, way: tuple[str, str]
) -> None:
    for reader in (feed, pump):
        monkeypatch.setattr(reader, "_CHECK_SECONDS", 0.0)
    pair = start(make_pair(*way))
    ((publication,),) = pair.site.rows("select publication from replicator.slot")
    with pair.ends() as ends:
        assert run_once(ends.source, ends.target, 10) is None
        pair.site.run(LOSSES["table left out"].format(publication=publication), *MISSED)
        with pytest.raises(SetupError, match=r"does not have all changes of public\.item"):
            _read_on(ends)


def _read_on(ends: Ends) -> None:
    """What a worker does while nothing comes."""
    for _ in range(100):
        assert run_once(ends.source, ends.target, 10) is None
        ends.source.wait(0.1)


def test_a_backfill_that_was_running_begins_anew(make_pair: MakePair) -> None:
    """The rows it had passed may be among those whose changes were lost."""
    pair = start(make_pair("postgres-wal", "postgres"))
    with pair.ends() as ends:
        ends.target.take_lease()
        ends.target.order_backfill(TableName("public", "item"), chunk_rows=2)
        run_once(ends.source, ends.target, 10)
    lose(pair, "slot dropped")
    install(App.open(pair.yaml))
    pair.settle()
    assert pair.centre.rows("select id, name from item where id <> 2 order by id") == [
        (1, "changed"), (3, "seen"), (4, "new"),
    ]  # fmt: skip


def test_a_loss_at_a_site_that_gets_changes_too(make_pair: MakePair) -> None:
    pair = start(make_pair("postgres-wal", "postgres"), direction="both", policy="source_wins")
    lose(pair, "slot dropped")
    expect_named(pair)
    install(App.open(pair.yaml))
    pair.settle()
    run(pair, "resync", "--yes", "--direction", "to_centre")
    pair.settle()
    pair.assert_converged("item")
    assert pair.centre.rows("select id, name from item order by id") == [(1, "changed"), (3, "seen"), (4, "new")]


def test_a_slot_that_fell_behind_its_limit_is_announced_named_and_mended(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    site = PostgresPlace(own_server.create_database("site"), "wal")
    pair = start(Pair(tmp_path, {"factory_a": site}, SqlitePlace(tmp_path / "centre.sqlite3")))
    site.run(
        "alter system set max_slot_wal_keep_size = '32MB'", "select pg_reload_conf()", "create table noise (a text)"
    )
    noise = "insert into noise select repeat('x', 1000) from generate_series(1, 20000)"
    site.run(noise)
    (alarm,) = [each for each in checked(pair) if "it is lost when" in each.message]
    assert alarm.warning
    assert "MB more are written" in alarm.message
    (found,) = read(App.open(pair.yaml), [pair.name])
    assert "it is lost when" in found.alarm
    site.run(*MISSED)
    deadline = time.monotonic() + 60
    while site.rows("select wal_status from pg_replication_slots") != [("lost",)]:
        site.run(noise, "select pg_switch_wal()", "checkpoint")
        assert time.monotonic() < deadline
    expect_named(pair)
    install(App.open(pair.yaml))
    run(pair, "resync", "--yes")
    pair.assert_equal("item")


def test_a_full_outbox_takes_no_more_from_the_log_while_its_link_is_away(make_pair: MakePair) -> None:
    """``when_full: stop``: the log stays with the slot, and nothing is lost when the link comes back."""
    pair = start(make_pair("postgres-wal", "sqlite"))
    guard = Guard(pair.name, lambda: pair.app.outbox(pair.name), Cap(1, 0, WhenFull.STOP), central=False)

    def filled() -> int:
        return int(str(pair.site.rows("select count(*) from replicator.outbox where op = 'i'")[0][0]))

    with pair.app.keep_filling([pair.name]):
        pair.site.run("insert into item select g, 'many' from generate_series(100, 11000) g")
        deadline = time.monotonic() + 60
        while filled() < 10_000:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "takes no more from the log" in guard.look()
        before = filled()
        pair.site.run("insert into item values (20000, 'behind it')", "delete from item where id < 200")
        time.sleep(1.0)
        assert filled() == before
        pair.settle()
    pair.assert_equal("item")


def _copied_tree(source: Path, target: Path) -> None:
    """A cold copy of a server's files, for whoever runs it."""
    owner = source.stat()
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    for path in (target, *target.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)


@pytest.mark.parametrize("outbox", ["keep", "bypass"])
def test_a_server_put_back_from_its_files_has_its_slot_and_is_told_apart(
    own_server: EmbeddedServer, tmp_path: Path, outbox: str, postgres_database: Callable[..., str]
) -> None:
    """The slot of then goes on in a log with other transactions, past the place the centre knows: nothing of it is lost."""
    site = PostgresPlace(own_server.create_database("site"), "wal", outbox)
    centre = PostgresPlace(postgres_database("centre")) if outbox == "bypass" else SqlitePlace(tmp_path / "c.sqlite3")
    pair = start(Pair(tmp_path, {"factory_a": site}, centre))
    data = own_server.socket_directory / "data"
    own_server.stop()
    _copied_tree(data, tmp_path / "then")
    own_server.start()
    site.run("insert into item values (10, 'lost with the server')", "update item set name = 'later' where id = 1")
    pair.settle()
    own_server.stop()
    _copied_tree(tmp_path / "then", data)
    own_server.start()
    site.run("insert into item values (11, 'new life')", "create table noise (a text)", "delete from item where id = 2")
    for _ in range(3):  # transaction ids and log of the new life pass those of the old one
        site.run("insert into noise select repeat('x', 100) from generate_series(1, 20000)")
    tap = pair.app._engines._pumps.keep(site.url, pair.topology)  # as the service does, before its link begins
    with closing(tap):
        assert tap.fill(1 << 30)
        with pytest.raises(BatchError, match=r"rejoin|restored|history"):
            pair.settle()
    (found,) = read(App.open(pair.yaml), [pair.name])
    assert "replicator rejoin" in found.hint
    done = CliRunner().invoke(main, ["rejoin", "--site", pair.name, "--yes", "-c", str(pair.yaml)])
    assert done.exit_code in (0, 1), done.output
    site.run("insert into item values (12, 'behind it')")
    pair.settle()
    assert pair.parked() == []
    at_centre = dict(pair.centre.rows("select id, name from item"))
    assert dict(site.rows("select id, name from item")).items() <= at_centre.items()
    assert at_centre.keys() == {1, 3, 10, 11, 12}  # also what was deleted in the new life
    run(pair, "resync", "--yes")
    pair.assert_equal("item")
