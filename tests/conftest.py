"""Fixture plugins of the whole suite, and what is left to `make test-all`. What each folder needs: tests/README.md."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.fixtures.servers", "tests.fixtures.databases", "tests.fixtures.pool", "tests.fixtures.pairs"]

_FROM_THE_LOG = ("postgres-wal", "postgres-bypass")
_ON_EVERY_CAPTURE = {"test_changes", "test_transactions", "test_both_ways", "test_crash"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What was captured from the log takes the same way from the outbox on: most of the contract is long for it."""
    for item in items:
        if item.path.parent.name != "contract" or item.path.stem in _ON_EVERY_CAPTURE:
            continue
        if any(f"[{name}-" in item.name or f"-{name}-" in item.name for name in _FROM_THE_LOG):
            item.add_marker(pytest.mark.long)
