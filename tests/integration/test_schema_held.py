"""A table that is held: so many changes of it are parked, then its link waits, and what waits is not lost; who says so."""

from __future__ import annotations

import json

import pytest

from replicator import sifting
from replicator.app import App
from replicator.engines.postgres import parked as postgres_parked
from replicator.engines.sqlite import parked as sqlite_parked
from replicator.service import drain_all
from tests.fixtures.cli import replicator
from tests.fixtures.pairs import MakePair, Pair, exact

TABLE = "create table {t} (id integer primary key, n integer)"


def sync(pair: Pair) -> tuple[str, str]:
    """The error of the one link's ``sync``, and what it said."""
    ((worker, failure),) = drain_all(App.open(pair.yaml).workers([pair.name]), 1)
    return str(failure or ""), "\n".join(worker.report.news)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most six changes of a held table are parked."""
    for module in (sifting, postgres_parked, sqlite_parked):
        monkeypatch.setattr(module, "MOST_HELD", 6)


@pytest.mark.parametrize(("site", "centre"), [("sqlite", "postgres"), ("postgres", "sqlite")])
def test_beyond_the_cap_the_link_waits_and_loses_nothing(
    make_pair: MakePair, few: None, site: str, centre: str
) -> None:
    pair = make_pair(site, centre)
    pair.site.run(TABLE.format(t="item"), TABLE.format(t="other"))
    pair.install("item", "other")
    assert sync(pair)[0] == ""
    pair.centre.run("alter table item rename to away")
    pair.site.run(*(f"insert into item values ({n}, {n})" for n in range(4)), "insert into other values (1, 1)")
    assert sync(pair)[0] == ""
    assert len(pair.parked()) == 4
    assert pair.centre.rows("select n from other") == [(1,)]
    pair.site.run(*(f"insert into item values ({n}, {n})" for n in range(4, 9)), "update other set n = 2")
    for _ in range(2):
        failure, _ = sync(pair)
        assert "changes or more would be parked: table" in failure
        assert "rename it back" in failure
        assert len(pair.parked()) == 4, "the batch is not taken in part"
    pair.centre.run("alter table away rename to item")
    assert sync(pair)[0] == ""
    pair.app.forget("centre")
    for table in ("item", "other"):
        query = f"select * from {table}"
        assert exact(pair.site.rows(query)) == exact(pair.centre.rows(query))
    assert pair.parked() == []


def test_status_audit_and_diff_name_what_is_held_and_gone(make_pair: MakePair) -> None:
    pair = make_pair("sqlite", "postgres")
    pair.site.run(TABLE.format(t="item"), TABLE.format(t="other"))
    pair.install("item", "other")
    pair.site.run("insert into item values (1, 1)", "alter table item add column c text", "update item set c = 'x'")
    assert sync(pair)[0] == ""
    word = "column c of item is held"
    mend = 'alter table "public"."item" add column "c" text'
    for command, code in (("status", 0), ("audit", 0)):
        told = replicator(command, "-c", pair.yaml, code=code).output
        assert word in told, told
        assert mend in told, told
        document = json.loads(replicator(command, "--json", "-c", pair.yaml, code=code).stdout)
        assert any(word in line for line in document["held"])
    told = replicator("schema", "diff", "-c", pair.yaml, code=1).output
    assert "c: TEXT here; the centre has no such column   [held]" in told
    assert mend in told
    pair.site.run("alter table other rename to another")
    assert sync(pair)[0] == ""
    assert "table other is called another now" in replicator("status", "-c", pair.yaml).output
    assert "table other is called another now" in replicator("schema", "diff", "-c", pair.yaml, code=1).output
