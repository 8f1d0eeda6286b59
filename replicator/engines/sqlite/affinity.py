"""SQLite's column affinities: which class of value a declared type turns a value into. Pure."""

from __future__ import annotations

from enum import StrEnum


class Affinity(StrEnum):
    """The five affinities of SQLite columns."""

    INTEGER = "integer"
    REAL = "real"
    NUMERIC = "numeric"
    TEXT = "text"
    BLOB = "blob"
    """None: values stay as they are given."""


def affinity_of(declared: str) -> Affinity:
    """The affinity of a declared type, by the rules of https://sqlite.org/datatype3.html, section 3.1."""
    upper = declared.upper()
    if "INT" in upper:
        return Affinity.INTEGER
    if any(word in upper for word in ("CHAR", "CLOB", "TEXT")):
        return Affinity.TEXT
    if not upper or "BLOB" in upper:
        return Affinity.BLOB
    if any(word in upper for word in ("REAL", "FLOA", "DOUB")):
        return Affinity.REAL
    return Affinity.NUMERIC
