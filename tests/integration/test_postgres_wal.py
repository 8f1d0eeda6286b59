"""Capture from the log: the same outbox rows as triggers write, in commit order, each once."""

from __future__ import annotations

import pytest

from replicator.engines.postgres.wal.filler import Filler
from replicator.engines.postgres.wal.outlet import Outlet
from replicator.engines.postgres.wal.stream import Stream
from replicator.errors import RetryableError
from replicator.model import RowFilter
from tests.integration.postgres_site import LINK, MakeSite, Site
from tests.integration.postgres_wal_site import make_wal_site

__all__ = ["make_wal_site"]

TABLE = "create table t (id int primary key, a text, n numeric)"


def test_every_kind_of_change_comes_with_its_images(make_wal_site: MakeSite) -> None:
    site = make_wal_site(TABLE)
    site.run("insert into t values (1, 'one', 1.50), (2, null, null), (3, '', 0)")
    site.run("update t set a = 'a \"b\", (c)\\d' where id = 1")
    site.run("update t set id = 30 where id = 3")
    site.run("update t set a = a")
    site.run("delete from t where id = 2")
    assert site.read() == [
        ("t", "i", None, ("1", "one", "1.50")),
        ("t", "i", None, ("2", None, None)),
        ("t", "i", None, ("3", "", "0")),
        ("t", "u", ("1", "one", "1.50"), ("1", 'a "b", (c)\\d', "1.50")),
        ("t", "k", ("3", "", "0"), ("30", "", "0")),
        ("t", "d", ("2", None, None), None),
    ]
    site.run("truncate t")
    assert site.read() == [("t", "t", None, None)]
    assert site.read() == []


def numbers(site: Site) -> list[tuple[object, ...]]:
    """Op and key of every outbox row, in order."""
    return site.rows("select op::text, coalesce(after, before) from replicator.outbox order by seq")


def test_rolled_back_work_is_not_captured(make_wal_site: MakeSite) -> None:
    """Invariant 2."""
    site = make_wal_site(TABLE)
    site.run("begin; insert into t values (1); rollback")
    site.run(
        "begin; insert into t values (2); savepoint s; "
        "insert into t values (3); rollback to s; insert into t values (4); commit"
    )
    assert [change[3] for change in site.read()] == [("2", None, None), ("4", None, None)]


def test_a_crash_between_writing_and_confirming_doubles_nothing(
    make_wal_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariants 2 and 3: the slot sends the transactions again, the place on record passes over them."""
    site = make_wal_site(TABLE)
    for number in range(5):
        site.run(f"insert into t values ({number})")

    def crash(self: Stream, lsn: int) -> None:
        raise ConnectionError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "confirm", crash)
        with pytest.raises(ConnectionError):
            Filler(site.url, LINK.topology).fill(1000)
    assert len(numbers(site)) == 5
    confirmed = (
        "select confirmed_flush_lsn < lsn from pg_replication_slots r join replicator.slot s on s.name = r.slot_name"
    )
    assert site.rows(confirmed) == [(True,)]
    site.run("insert into t values (5)")
    assert [change[3] for change in site.read()] == [(str(n), None, None) for n in range(6)]


def test_a_crash_before_writing_loses_nothing(make_wal_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 1."""
    site = make_wal_site(TABLE)
    site.run("insert into t select generate_series(1, 3)")

    def crash(self: Outlet) -> int:
        raise ConnectionError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(Outlet, "finish", crash)
        with pytest.raises(ConnectionError):
            Filler(site.url, LINK.topology).fill(1000)
    assert numbers(site) == []
    assert len(site.read()) == 3


def test_only_one_fills(make_wal_site: MakeSite) -> None:
    site = make_wal_site(TABLE)
    one, two = Filler(site.url, LINK.topology), Filler(site.url, LINK.topology)
    assert one.fill(10)
    with pytest.raises(RetryableError, match="active"):
        two.fill(10)
    one.close()


def test_the_place_moves_by_compare_and_set(make_wal_site: MakeSite) -> None:
    """Invariant 3: a filler that was thought dead writes nothing."""
    site = make_wal_site(TABLE)
    filler = Filler(site.url, LINK.topology)
    assert filler.fill(10)
    site.run("insert into t values (1)")
    site.run("update replicator.slot set lsn = '0/1'")
    with pytest.raises(RetryableError, match="another replicator"):
        filler.fill(10)
    assert numbers(site) == []


def test_a_transaction_is_never_split(make_wal_site: MakeSite) -> None:
    """Invariant 4: rows of one transaction have one transaction id of ours, however many there are."""
    site = make_wal_site(TABLE)
    site.run("insert into t select generate_series(1, 40000)")
    filler = Filler(site.url, LINK.topology)
    while not filler.fill(1000):
        continue
    filler.close()
    assert site.rows("select count(*), count(distinct xid) from replicator.outbox") == [(40000, 1)]


def test_truncate_of_several_tables_and_what_refers_to_them(make_wal_site: MakeSite) -> None:
    site = make_wal_site(
        f"{TABLE}; create table c (id int primary key, t int references t); create table u (id int primary key)"
    )
    site.run("insert into t values (1); insert into c values (1, 1)")
    site.read()
    site.run("truncate t, u cascade")
    assert sorted(site.read()) == [("c", "t", None, None), ("t", "t", None, None), ("u", "t", None, None)]


def test_partitions_are_captured_as_their_root(make_wal_site: MakeSite) -> None:
    site = make_wal_site(
        "create table p (id int, at int, a text, primary key (id, at)) partition by range (at); "
        "create table p1 partition of p for values from (0) to (10); "
        "create table p2 (a text, at int not null, id int not null); "
        "alter table p attach partition p2 for values from (10) to (20)"
    )
    site.run(
        "insert into p values (1, 1, 'a'), (2, 12, 'b'); update p set a = 'c'; "
        "update p set at = 15 where id = 1; delete from p where id = 2"
    )
    assert site.read() == [
        ("p", "i", None, ("1", "1", "a")),
        ("p", "i", None, ("2", "12", "b")),
        ("p", "u", ("1", "1", "a"), ("1", "1", "c")),
        ("p", "u", ("2", "12", "b"), ("2", "12", "c")),
        ("p", "d", ("1", "1", "c"), None),
        ("p", "i", None, ("1", "15", "c")),
        ("p", "d", ("2", "12", "c"), None),
    ]


def test_a_new_partition_without_full_identity_loses_no_change(make_wal_site: MakeSite) -> None:
    site = make_wal_site(
        "create table p (id int primary key, a text, b text) partition by range (id); "
        "create table p1 partition of p for values from (0) to (10)"
    )
    site.run("create table p2 partition of p for values from (10) to (20)")
    site.run("insert into p values (11, 'a', 'b')")
    site.run("update p set a = 'c'")
    site.run("update p set id = 12")
    site.run("delete from p")
    assert site.read() == [
        ("p", "i", None, ("11", "a", "b")),
        ("p", "u", ("11", None, None), ("11", "c", "b")),
        ("p", "k", ("11", None, None), ("12", "c", "b")),
        ("p", "d", ("12", None, None), None),
    ]
    findings = [f for f in site.installer.check(site.plans(), as_source=True) if f.subject == "public.p2"]
    assert findings
    site.install()
    site.run("insert into p values (13, 'a', 'b')")
    site.run("update p set a = 'c'")
    assert site.read()[-1] == ("p", "u", ("13", "a", "b"), ("13", "c", "b"))


def test_filters_and_left_out_columns(make_wal_site: MakeSite) -> None:
    """As triggers do: a row that comes into the filter is an insert, one that leaves it a delete."""
    site = make_wal_site("create table f (id int primary key, a text, secret int); create table g (id int primary key)")
    site.run("insert into f values (7, 'there', 6), (8, 'not', 5)")
    site.read()
    site.filters["f"] = RowFilter("secret > 5", ("", '."secret" > 5'))
    site.hidden = frozenset({"secret"})
    site.install(skip_existing=False)
    assert site.read() == [("f", "i", None, ("7", "there"))]
    site.run("insert into f values (1, 'in', 6), (2, 'out', 5), (3, 'null', null); insert into g values (1)")
    site.run(
        "update f set a = 'in2' where id = 1; update f set a = 'out2' where id = 2; update f set secret = 7 where id = 2"
    )
    site.run("update f set secret = 8 where id = 1; update f set secret = 0 where id = 1; delete from f where id < 3")
    site.run(
        "begin; insert into g values (2); insert into f values (4, 'x', 9); insert into g values (3); commit; truncate f"
    )
    assert site.read() == [
        ("f", "i", None, ("1", "in")),
        ("g", "i", None, ("1",)),
        ("f", "u", ("1", "in"), ("1", "in2")),
        ("f", "i", None, ("2", "out2")),
        ("f", "d", ("1", "in2"), None),
        ("f", "d", ("2", "out2"), None),
        ("g", "i", None, ("2",)),
        ("f", "i", None, ("4", "x")),
        ("g", "i", None, ("3",)),
        ("f", "t", None, None),
    ]
