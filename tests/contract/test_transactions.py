"""Invariants 1 to 4 on every engine pair: transactions arrive once, whole, and only when they were committed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import psycopg
import pytest

from replicator.errors import LeaseError, RetryableError, StaleError
from replicator.model import ChunkRequest, Outcome, Position
from replicator.pipeline import run_once
from replicator.ports import Batch, Source
from tests.fixtures.pairs import MakePair, Pair, PostgresPlace

ACCOUNT = "create table account (id integer primary key, balance bigint not null)"


@pytest.fixture
def account(pair: Pair) -> Pair:
    """Ten accounts whose balances add up to nothing."""
    pair.site.run(ACCOUNT, *(f"insert into account values ({n}, 0)" for n in range(10)))
    pair.install("account")
    pair.sync()
    return pair


def _transfer(pair: Pair, n: int) -> None:
    pair.site.commit(
        f"update account set balance = balance - {n} where id = {n % 10}",
        f"update account set balance = balance + {n} where id = {(n * 7 + 3) % 10}",
    )


class Overtaken:
    """A source beside which something happens between the reading of the position and the batch."""

    def __init__(self, source: Source, happens: Callable[[], None]) -> None:
        self._source, self._happens = source, happens

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

    def read_batch(
        self, after: Position | None, limit: int, wanted: ChunkRequest | None = None
    ) -> AbstractContextManager[Batch | None]:
        """Lets it happen, then reads."""
        self._happens()
        return self._source.read_batch(after, limit)


class Failing:
    """A target or source with one method that fails."""

    def __init__(self, inner: object, method: str) -> None:
        self._inner, self._method = inner, method

    def __getattr__(self, name: str) -> object:
        if name == self._method:
            raise RetryableError(f"{name} failed")
        return getattr(self._inner, name)


def test_invariant_1_a_transaction_that_commits_late_is_not_missed(make_pair: MakePair) -> None:
    """Its outbox rows have lower numbers than those that were read before it was seen."""
    for target in ("postgres", "sqlite"):
        pair = make_pair("postgres", target)
        pair.site.run(ACCOUNT)
        pair.install("account")
        with psycopg.connect(pair.site.url) as slow:
            slow.execute("insert into account values (1, 1)")
            pair.site.run("insert into account values (2, 2)")
            pair.sync()
            assert pair.centre.rows("select id from account") == [(2,)]
            pair.site.run("insert into account values (3, 3)")
            pair.sync()
        pair.sync()
        pair.assert_equal("account")


def test_invariant_2_nothing_rolled_back_arrives(account: Pair) -> None:
    class Undo(Exception):
        pass

    def undone(*statements: str) -> None:
        with account.site.session() as run:
            for statement in statements:
                run(statement)
            raise Undo

    with pytest.raises(Undo):
        undone("insert into account values (77, 7)", "delete from account where id = 1")
    with account.site.session() as run:
        run("update account set balance = 5 where id = 2")
        run("savepoint s")
        run("update account set balance = 6 where id = 3")
        run("insert into account values (78, 8)")
        run("rollback to savepoint s")
        run("update account set balance = 7 where id = 4")
    account.sync()
    account.assert_equal("account")
    assert account.centre.rows("select count(*) from account where id in (77, 78)") == [(0,)]


def test_invariant_3_a_batch_whose_acknowledgement_fails_is_not_applied_twice(account: Pair) -> None:
    account.site.run("update account set balance = 1 where id = 1", "insert into account values (20, 20)")
    with account.ends() as ends, pytest.raises(RetryableError):
        run_once(Failing(ends.source, "acknowledge_batch"), ends.target, 1000)  # type: ignore[arg-type]
    account.assert_equal("account")
    account.centre.run("update account set balance = 500 where id = 1")
    assert sum(outcome.net for outcome in account.sync()) == 0
    assert account.centre.rows("select balance from account where id = 1") == [(500,)]


@pytest.mark.parametrize("step", ["stage_batch", "spans", "find_conflicts", "check_constraints", "record_batch"])
def test_invariant_3_a_batch_that_fails_at_any_step_leaves_nothing_and_goes_in_once(account: Pair, step: str) -> None:
    before = account.centre.rows("select * from account order by id")
    account.site.run("update account set balance = balance + 1", "insert into account values (20, 20)")
    with account.ends() as ends:
        with pytest.raises(RetryableError):
            run_once(ends.source, Failing(ends.target, step), 1000)  # type: ignore[arg-type]
        assert account.centre.rows("select * from account order by id") == before
        outcome = run_once(ends.source, ends.target, 1000)
        assert outcome is not None
        assert outcome.net == 11
    account.assert_equal("account")
    assert account.conflicts() == []


def test_invariant_3_a_position_moved_by_another_stops_the_batch(account: Pair) -> None:
    account.site.run("update account set balance = 1 where id = 1")
    (before,) = account.centre.rows(f"select position from {account.ours('link')}")

    def moved() -> None:
        account.centre.run(f"update {account.ours('link')} set position = position || '0'")

    with account.ends() as ends, pytest.raises(StaleError):
        run_once(Overtaken(ends.source, moved), ends.target, 1000)  # type: ignore[arg-type]
    assert account.centre.rows("select balance from account where id = 1") == [(0,)]
    account.centre.run(f"update {account.ours('link')} set position = '{before[0]}'")
    account.sync()
    account.assert_equal("account")


def test_invariant_3_two_replicators_cannot_work_on_one_link(account: Pair) -> None:
    account.site.run("update account set balance = 1 where id = 1")
    with account.ends() as first:
        first.target.take_lease()
        first.target.take_lease()
        with account.ends() as second:
            with pytest.raises(LeaseError):
                second.target.take_lease()
            with pytest.raises(LeaseError):
                run_once(second.source, second.target, 1000)
        assert account.centre.rows("select balance from account where id = 1") == [(0,)]
        assert run_once(first.source, first.target, 1000) is not None
    account.site.run("update account set balance = 2 where id = 1")
    account.sync()
    account.assert_equal("account")


def test_invariant_4_every_batch_ends_at_a_transactions_end(account: Pair) -> None:
    for n in range(60):
        _transfer(account, n)
    with account.ends() as ends:
        while run_once(ends.source, ends.target, 1) is not None:
            assert account.centre.rows("select sum(balance) from account") == [(0,)]
    account.assert_equal("account")


def test_invariant_4_a_transaction_larger_than_the_limit_comes_whole(account: Pair) -> None:
    account.site.commit(
        *(f"insert into account values ({n}, 1)" for n in range(100, 400)), "delete from account where id = 5"
    )
    with account.ends() as ends:
        outcome = run_once(ends.source, ends.target, 7)
    assert outcome is not None
    assert account.centre.rows("select count(*) from account where id >= 100") == [(300,)]
    account.sync()
    account.assert_equal("account")


def test_invariant_4_a_reader_at_the_target_sees_only_whole_transactions(account: Pair) -> None:
    stop = threading.Event()
    seen: set[tuple[object, ...]] = set()

    def watch() -> None:
        with _reader(account) as read:
            while not stop.is_set():
                seen.add(read())

    reader = threading.Thread(target=watch)
    reader.start()
    try:
        for n in range(40):
            _transfer(account, n)
            _replace(account, n % 10, (n + 1) % 10)
            if n % 8 == 7:
                account.sync(limit=3)
    finally:
        stop.set()
        reader.join()
    account.sync()
    account.assert_equal("account")
    assert seen == {(10, 0)}


def _replace(pair: Pair, old: int, heir: int) -> None:
    """Rows stay ten and their sum nothing."""
    pair.site.commit(
        f"update account set balance = balance + (select balance from account where id = {old}) where id = {heir}",
        f"delete from account where id = {old}",
        f"insert into account values ({old}, 0)",
    )


@contextmanager
def _reader(pair: Pair) -> Iterator[Callable[[], tuple[object, ...]]]:
    """Reads number and sum over and over; on PostgreSQL on one connection."""
    query = "select count(*), cast(sum(balance) as integer) from account"
    if isinstance(pair.centre, PostgresPlace):
        with psycopg.connect(pair.centre.url, autocommit=True) as connection:
            yield lambda: connection.execute(query).fetchall()[0]
    else:
        yield lambda: pair.centre.rows(query)[0]


def test_outcomes_tell_what_happened(account: Pair) -> None:
    account.site.run("insert into account values (30, 1), (31, 2)", "delete from account where id = 1")
    (outcome,) = account.sync()
    assert replace(outcome, upto=Position(""), newest_changed_at=0) == Outcome(Position(""), changes=3, net=3)
    assert outcome.newest_changed_at > 1_600_000_000_000_000
