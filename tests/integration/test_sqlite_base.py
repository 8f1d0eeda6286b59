"""What a SQLite site believed its rows to be: bases, kept per row, sent with the first change behind them, then forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from replicator.engines.sqlite import planned
from replicator.engines.sqlite.catalogue import read_catalogue
from replicator.engines.sqlite.installer import SqliteInstaller
from replicator.engines.sqlite.source import SqliteSource
from replicator.errors import BatchError
from replicator.model import Direction, Engine, LinkName
from replicator.ports import Base, RowBlock
from tests.fixtures.sqlite_followers import DOWN, Follower, State, closing_follower, make_follower
from tests.fixtures.sqlite_sites import TOPOLOGY, capture, connect, create, plans_of

PART = "create table part (id integer primary key, serial text unique, note text);"
ROWS = "insert into part values (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', null);"
Make = Callable[..., Follower]


@pytest.fixture
def make(sqlite_file: Callable[[str], Path]) -> Iterator[Make]:
    """A factory of sites that are closed at the end."""
    with ExitStack() as stack:

        def one(script: str = PART, **options: object) -> Follower:
            options.setdefault("types", {"id": "bigint"})
            path = sqlite_file("site")
            return stack.enter_context(closing_follower(make_follower(path, script, **options)))  # type: ignore[arg-type]

        yield one


def bases_of(blocks: list[RowBlock]) -> dict[object, Base]:
    """Bases by the key of their row."""
    found = {}
    for block in blocks:
        rows = {row[0]: row for row in (*block.rows, *block.odd)}
        found |= {rows[base.ord][3]: base for base in block.bases}
    return found


def test_written_equal_and_deleted_rows_leave_bases(make: Make) -> None:
    site = make(PART)
    site.application.execute("insert into part values (2, 'b', 'y')")
    _, upto = site.read()
    site.follow(State("part", (1, "a", "x"), base="-7"), State("part", (2, "b", "y"), base="8|(2,b,y|z)"), marker=upto)
    assert site.bases() == {"[1]": (0, "-7", None), "[2]": (0, "8", "(2,b,y|z)")}
    site.follow(State("part", (1,), gone=True), State("part", (5,), gone=True))
    assert site.bases() == {"[1]": (1, None, None), "[2]": (0, "8", "(2,b,y|z)")}


def test_a_row_passed_over_keeps_its_base(make: Make) -> None:
    site = make(PART)
    site.follow(State("part", (1, "a", "x"), base="1"))
    site.application.execute("update part set note = 'mine'")
    site.follow(State("part", (1, "a", "theirs"), base="2"))
    assert site.bases() == {"[1]": (0, "1", None)}
    blocks, _ = site.read()
    assert list(bases_of(blocks).values()) == [Base(blocks[0].rows[0][0], True, "1", None)]  # type: ignore[arg-type]


def test_bases_are_sent_with_the_first_change_only_and_forgotten_once_acknowledged(make: Make) -> None:
    site = make(PART)
    states = [State("part", (n, f"s{n}", "x"), base=str(n)) for n in (1, 2, 3)]
    site.follow(*states, State("part", (9, "gone", "x"), base="9"))
    site.follow(State("part", (9,), gone=True))
    site.application.executescript("update part set note = 'm' where id = 1; delete from part where id = 2;")
    site.application.execute("insert into part values (9, 'again', 'm')")
    blocks, upto = site.read()
    assert upto is not None
    found = bases_of(blocks)
    assert {key: (base.existed, base.checksum) for key, base in found.items()} == {
        1: (True, "1"), 2: (True, "2"), 9: (False, None),
    }  # fmt: skip
    assert bases_of(site.read()[0]) == found, "reading again gives the same"
    site.application.execute("update part set note = 'later' where id = 1")
    assert set(bases_of(site.read(upto)[0])) == set(), "the change before it has used it up, acknowledged or not"
    site.source.acknowledge_batch(upto)
    assert set(site.bases()) == {"[3]"}
    site.follow(marker=upto)
    site.application.execute("update part set note = 'm' where id = 3")
    assert set(bases_of(site.read(upto)[0])) == {3}


def test_a_base_written_meanwhile_stays(make: Make) -> None:
    """Only bases that were sent, and have not moved since, are forgotten."""
    site = make(PART)
    site.follow(State("part", (1, "a", "x"), base="1"))
    site.application.execute("update part set note = 'm'")
    _, upto = site.read()
    assert upto is not None
    site.follow(State("part", (1, "a", "theirs"), base="2"), marker=upto)
    site.source.acknowledge_batch(upto)
    assert site.bases() == {"[1]": (0, "2", None)}


def test_an_acknowledgement_that_was_lost_is_made_good(make: Make) -> None:
    site = make(PART)
    site.follow(State("part", (1, "a", "x"), base="1"), State("part", (2, "b", "x"), base="2"))
    site.application.execute("update part set note = 'm' where id = 1")
    _, first = site.read()
    site.crash()
    site.application.execute("update part set note = 'n'")
    blocks, second = site.read(first)
    assert second is not None
    assert set(bases_of(blocks)) == {2}
    site.source.acknowledge_batch(second)
    assert site.bases() == {}


def test_one_way_tables_have_none(make: Make) -> None:
    site = make(PART, direction=Direction.FROM_CENTRE, engine=Engine.SQLITE)
    site.follow(State("part", (1, "a", "x"), base="1"))
    assert site.bases() == {}
    assert site.application.execute("select count(*) from part").fetchone() == (1,)
    assert [name for name in SqliteInstaller(site.path).list_objects() if "trigger" in name] == []
    site.application.execute("update part set note = 'own'")
    site.follow(State("part", (1, "a", "theirs")))
    assert site.application.execute("select note from part").fetchone() == ("theirs",)


def test_keys_of_any_kind_find_their_bases(make: Make) -> None:
    site = make("create table w (a, b text collate nocase, v, primary key (a, b)) without rowid", engine=Engine.SQLITE)
    keys = [(1, "k"), (2.0, "k"), ("1", "ü'\"\\\0"), (b"\0\xff", ""), (-(2**63), "x" * 300)]
    site.follow(*(State("w", (*key, None), base=str(n)) for n, key in enumerate(keys)))
    site.application.execute("update w set v = 1")
    blocks, upto = site.read()
    rows = {row[0]: row[3:5] for block in blocks for row in block.rows}
    assert {rows[base.ord]: base.checksum for block in blocks for base in block.bases} == {
        key: str(n) for n, key in enumerate(keys)
    }
    assert upto is not None
    site.source.acknowledge_batch(upto)
    assert site.bases() == {}


def test_a_key_that_is_no_text_stops_nothing(make: Make) -> None:
    """Invariant 7: an application can write text that is not UTF-8, as a key as well."""
    site = make("create table k (a text primary key, v text)", engine=Engine.SQLITE)
    site.follow(State("k", ("fine", "x"), base="1"))
    site.application.execute("insert into k values (cast(x'ff41' as text), 'odd')")
    site.application.execute("update k set v = 'mine' where a = 'fine'")
    blocks, upto = site.read()
    assert [base.checksum for block in blocks for base in block.bases] == ["1"]
    site.follow(State("k", ("new", "y"), base="2"), State("k", ("fine", "theirs"), base="3"))
    assert site.application.execute("select v from k where a <> 'new' order by v").fetchall() == [("mine",), ("odd",)]
    assert upto is not None
    site.source.acknowledge_batch(upto)


def test_a_file_in_utf_16(make: Make) -> None:
    site = make("pragma encoding = 'UTF-16le'; create table k (a text primary key, v text)", engine=Engine.SQLITE)
    assert site.application.execute("pragma encoding").fetchone() == ("UTF-16le",)
    site.follow(State("k", ("ü", "x"), base="1"))
    site.application.execute("update k set v = 'mine'")
    site.follow(State("k", ("ü", "theirs"), base="2"))
    assert site.application.execute("select v from k").fetchone() == ("mine",)
    assert [base.checksum for block in site.read()[0] for base in block.bases] == ["1"]


def test_the_site_counts_as_later_what_it_writes_after_what_it_has_seen(make: Make) -> None:
    site, far = make(PART), 4_000_000_000_000_000
    site.follow(State("part", (1, "a", "x"), changed_at=far))
    site.application.execute("update part set note = 'own'")
    (stamp,) = site.application.execute("select max(changed_at) from replicator_outbox").fetchone()
    assert stamp > far


# --- install, retention -------------------------------------------------------------------------------------------


def test_an_installation_from_before_is_brought_up_to_a_fresh_one(sqlite_file: Callable[[str], Path]) -> None:
    old, new = sqlite_file("old"), sqlite_file("new")
    made = create(old, PART)
    first, *_ = planned.migrations()
    made.executescript(planned.migrate(*first).sql)
    fresh = make_follower(new, PART)
    installer = SqliteInstaller(old)
    for _ in range(2):
        installer.install(installer.plan_site(TOPOLOGY, fresh.up_plans))
    assert installer.plan_site(TOPOLOGY, fresh.up_plans).statements == ()
    installer.close()
    assert _schema(made) == _schema(fresh.application)
    upgraded = Follower(old, made, fresh.up_plans, fresh.down_plans)
    upgraded.follow(State("part", (1, "a", "x"), base="1"))
    assert upgraded.bases() == {"[1]": (0, "1", None)}
    for site in (upgraded, fresh):
        site.close()
        site.application.close()


def _schema(connection: sqlite3.Connection) -> set[tuple[object, ...]]:
    query = (
        "select m.type, m.name, c.name, c.type from sqlite_master as m left join pragma_table_info(m.name) as c"
        " where m.name not like 'sqlite%'"
    )
    return set(connection.execute(query))


def test_what_is_missing_at_a_site_is_made(sqlite_file: Callable[[str], Path], make: Make) -> None:
    site = make(PART + "create table detail (id integer primary key, part integer references part, v text);")
    empty = sqlite_file("empty")
    application = create(empty, "")
    installer = SqliteInstaller(empty)
    installer.install(installer.plan_centre(TOPOLOGY, site.down_plans))
    assert {name.name for name in read_catalogue(application).tables} == {"part", "detail"}
    assert installer.plan_centre(TOPOLOGY, site.down_plans).statements == ()
    installer.close()
    application.close()


def test_uninstall_forgets_the_bases_of_one_topology(make: Make) -> None:
    site = make(PART)
    site.follow(State("part", (1, "a", "x"), base="1"))
    capture(site.path, plans_of(site.path), "another")
    site.application.execute("insert into replicator_base values ('another/part', '[1]', 1, 0, '1', null)")
    installer = SqliteInstaller(site.path)
    installer.install(installer.plan_uninstall(TOPOLOGY))
    assert site.application.execute("select relation from replicator_base").fetchall() == [("another/part",)]
    assert site.application.execute("select count(*) from replicator_acknowledged").fetchone() == (0,)
    installer.install(installer.plan_uninstall("another"))
    assert installer.list_objects() == []
    installer.close()


def test_a_trigger_that_changes_rows_that_come_is_told_by_check(make: Make) -> None:
    site = make(PART)
    installer = SqliteInstaller(site.path)
    assert not any("to and fro" in finding.message for finding in installer.check(site.up_plans, as_source=True))
    site.application.execute(
        "create trigger stamp after update of serial on part begin update \"part\" set note = 'now' where id = new.id; end"
    )
    told = [finding for finding in installer.check(site.up_plans, as_source=True) if "to and fro" in finding.message]
    assert [finding.warning for finding in told] == [True]
    installer.close()


def test_pruning_does_not_wait_for_a_link_that_stayed_away(make: Make) -> None:
    site = make(PART)
    capture(site.path, plans_of(site.path), "away")
    away = SqliteSource(site.path, LinkName("away", "laptop"), plans_of(site.path), acknowledge_seconds=0)
    site.application.executescript(ROWS)
    with away.read_batch(None, 10) as batch:
        assert batch is not None
        list(batch.blocks())
        position = batch.upto
    away.acknowledge_batch(position)
    site.application.execute("update part set note = 'n'")
    _, upto = site.read()
    assert upto is not None
    site.follow(marker=upto)
    site.application.execute("update part set note = 'o'")

    def count() -> int:
        site.source.acknowledge_batch(upto)
        site.source.tidy()
        return len(site.outbox())

    before = count()
    site.application.execute(
        "update replicator_acknowledged set acknowledged_at = '2020-01-01T00:00:00Z' where topology = 'away'"
    )
    assert count() == before, "its changes have not been lying for long"
    site.application.execute("update replicator_outbox set changed_at = 1")
    assert count() < before
    with pytest.raises(BatchError, match="longer than the retention"), away.read_batch(position, 10):
        pass
    expired = site.application.execute("select topology from replicator_acknowledged where expired_at is not null")
    assert expired.fetchall() == [("away",)]
    with away.read_batch(None, 10) as batch:
        assert batch is not None
        assert sum(len(block.rows) for block in batch.blocks()) >= 3, "it is read anew"
        position = batch.upto
    away.acknowledge_batch(position)
    with away.read_batch(position, 10) as batch:
        assert batch is None
    away.close()


def test_a_site_whose_changes_are_not_known_any_more_is_not_overwritten(make: Make) -> None:
    site = make(PART)
    site.follow()
    site.application.execute(
        "update replicator_acknowledged set expired_at = '2026-01-01' where link = ?", (DOWN.text,)
    )
    with pytest.raises(BatchError, match="longer than the retention"):
        site.follow(State("part", (1, "a", "x")))
    with connect(site.path) as other:
        assert other.execute("select count(*) from part").fetchone() == (0,)
