"""Fixture plugins of the whole suite, and what is left to `make test-all`. What each folder needs: tests/README.md."""

from __future__ import annotations

import re

import pytest

pytest_plugins = ["tests.fixtures.servers", "tests.fixtures.databases", "tests.fixtures.pool", "tests.fixtures.pairs"]

_ON_EVERY_CAPTURE = "test_changes"
_ON_EVERY_PAIR = {_ON_EVERY_CAPTURE, "test_transactions", "test_both_ways"}
_BYPASS = re.compile(r"\Wpostgres-bypass-")
_SELDOM = re.compile(r"\W(postgres-wal-postgres|postgres-bypass-postgres|postgres-sqlite|sqlite-sqlite)\b")
"""Engines meet each other in every contract on two pairs at least; what was captured from the log goes on as all else."""

_REPEATS = {
    "test_schema_changes": r"-False-|sqlite-postgres-\w+-True-both|postgres-sqlite-\w+-True-both|s-centre-True-to_centre",
    "test_schema_columns": r"\[row|renamed 1|swapped 3|(noticed|swapped_columns)\[log",
    "test_schema_gone": r"postgres-wal|on_both_sides\[|only_the_link\w+\[sqlite",
    "test_histories": r"\[bypass|\[wal-sqlite|idle|equal\]",
    "test_backfill_histories": "centre_wins",
    "test_postgres_backfill": "postgres-wal",
    "test_postgres_bypass": r"\[[12]\]",
    "test_moved_databases": r"\[wal\]|_backup|_dump",
    "test_rejoin": "postgres-bypass",
    "test_upgrade": r"work_goes_on\[spine\]|killed",
}
"""By module: cases that differ from another one in what matters least to it."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as long what repeats shorter tests on more engines, so that the suite ends in minutes."""
    for item in items:
        module = item.path.stem
        seldom = None
        if item.path.parent.name == "contract" and module != _ON_EVERY_CAPTURE:
            seldom = (_BYPASS if module in _ON_EVERY_PAIR else _SELDOM).search(item.name)
        if seldom or (module in _REPEATS and re.search(_REPEATS[module], item.name)):
            item.add_marker(pytest.mark.long)
