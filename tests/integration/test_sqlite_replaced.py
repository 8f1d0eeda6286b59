"""A SQLite file that is moved, or replaced by another, while the replicator has it open."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.engines.sqlite.source import SqliteSource
from replicator.errors import RetryableError
from tests.fixtures.sqlite_sites import LINK, Replica, assert_equal, capture, create, plans_of


def test_a_file_replaced_while_it_is_open_is_opened_anew(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection = create(
        path, "create table part (id integer primary key, name text); insert into part values (1, 'a');"
    )
    plans = plans_of(path)
    capture(path, plans)
    replica = Replica(SqliteSource(path, LINK, plans), plans)
    replica.catch_up()
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)
    later = sqlite3.connect(path, isolation_level=None)
    later.execute("insert into part values (4, 'd')")
    with pytest.raises(RetryableError, match="moved or replaced"):
        replica.catch_up()
    replica.source.close()
    replica.catch_up()
    assert_equal(later, replica)
    path.rename(path.with_suffix(".away"))
    with pytest.raises(RetryableError, match="moved or replaced"):
        replica.catch_up()
