"""Fixture plugins of the whole suite, and what is left to `make test-all`. What each folder needs: tests/README.md."""

from __future__ import annotations

import re

import pytest

pytest_plugins = ["tests.fixtures.servers", "tests.fixtures.databases", "tests.fixtures.pool", "tests.fixtures.pairs"]

_ON_EVERY_PAIR = {"test_changes", "test_transactions", "test_both_ways"}
_SELDOM = re.compile(r"\W(postgres-wal|postgres-bypass|postgres-sqlite)\b")
"""What was captured from the log takes the same way from the outbox on; each engine meets the others elsewhere, too."""

_REPEATS = {
    "test_schema_changes": r"-False-|sqlite-postgres-\w+-True-both|postgres-sqlite-\w+-True-both|s-centre-True-to_centre",
    "test_schema_columns": r"\[row|renamed 1|swapped 3",
    "test_schema_gone": "postgres-wal",
    "test_histories": r"\[bypass-postgres-to_centre-centre|\[wal-",
    "test_postgres_bypass": r"\[[12]\]",
    "test_moved_databases": r"\[wal\]",
}
"""By module: cases that differ from another one in what matters least to it."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as long what repeats shorter tests on more engines, so that the suite ends in minutes."""
    for item in items:
        module = item.path.stem
        seldom = item.path.parent.name == "contract" and module not in _ON_EVERY_PAIR and _SELDOM.search(item.name)
        if seldom or (module in _REPEATS and re.search(_REPEATS[module], item.name)):
            item.add_marker(pytest.mark.long)
