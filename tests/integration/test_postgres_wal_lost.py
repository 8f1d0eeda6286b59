"""A slot that lost changes: named by the link, by status and check; install and resync bring back what was missed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from replicator.app import App
from replicator.cli import main
from replicator.cli.status import read
from replicator.embedded import EmbeddedServer
from replicator.engines.postgres.wal import pump
from replicator.errors import SetupError
from replicator.model import Finding
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
    run(pair, "resync")
    pair.assert_equal("item")
    assert pair.parked() == []


def test_a_running_link_notices_what_is_not_published_any_more(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "_CHECK_SECONDS", 0.0)
    pair = start(make_pair("postgres-wal", "sqlite"))
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


def test_a_loss_at_a_site_that_gets_changes_too(make_pair: MakePair) -> None:
    pair = start(make_pair("postgres-wal", "postgres"), direction="both", policy="source_wins")
    lose(pair, "slot dropped")
    expect_named(pair)
    install(App.open(pair.yaml))
    pair.settle()
    run(pair, "resync", "--direction", "to_centre")
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
    run(pair, "resync")
    pair.assert_equal("item")
