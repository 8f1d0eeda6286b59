"""Fixture plugins of the whole suite. What each test folder needs is told in tests/README.md."""

pytest_plugins = ["tests.fixtures.servers", "tests.fixtures.databases", "tests.fixtures.pool", "tests.fixtures.pairs"]
