"""`check` at a centre: rows that follow others are found by an index, or a person is told which one to make."""

from __future__ import annotations

from contextlib import closing

import pytest

from replicator.settings import CENTRE
from tests.fixtures.pairs import MakePair

SCHEMA = (
    "create table ward (id bigint primary key, clinic text)",
    "create table visit (id bigint primary key, ward bigint references ward, note text)",
)


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_an_index_for_followers_is_asked_for(make_pair: MakePair, engine: str) -> None:
    pair = make_pair("sqlite", engine)
    pair.site.run(*SCHEMA)
    pair.centre.run(*SCHEMA, "create index partly on visit (ward) where note is null")
    pair.centre.run(
        "create table shop (site text primary key, clinic text)", "insert into shop values ('factory_a', 'x')"
    )
    pair.params_from = {"table": "shop", "site": "site"}
    pair.install(
        {"name": "ward", "direction": "both", "where": "clinic = :site.clinic"},
        {"name": "visit", "direction": "both", "follows": "ward"},
    )
    with closing(pair.app.installable(CENTRE)) as database:
        pair.app.read_catalogues()
        (finding,) = database.check_captured(pair.app.central())
        assert (finding.ok, finding.warning) == (False, True)
        assert "no index begins with ward" in finding.message
        pair.centre.run(finding.fix)
        assert not database.check_captured(pair.app.central())
