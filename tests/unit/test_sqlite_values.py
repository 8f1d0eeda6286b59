"""What a SQLite table stores of a PostgreSQL value, in Python."""

from __future__ import annotations

import pytest

from replicator.engines.sqlite.values import SourceText, converter


@pytest.mark.parametrize("target", ["uuid", "date", "integer", "real", "numeric", "boolean"])
@pytest.mark.parametrize("text", ["00000000-0000-4000-8000-00000000000a", "2026-01-01", "abc", "7"])
def test_what_is_stored_is_of_a_class_of_sqlite(target: str, text: str) -> None:
    """A SourceText that went through would make a key that is another than the same key read from the table (invariant 6)."""
    convert = converter("uuid" if "-" in text else "text", target)
    assert convert is None or type(convert(SourceText(text))) in (str, int, float)
