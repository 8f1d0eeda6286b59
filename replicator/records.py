"""Reads and writes PostgreSQL record literals: the text form of a row, such as ``(1,"a b",,"")``.

NULL is nothing between two commas, the empty string is ``""``. A record of one NULL and a record of no columns look
alike; here ``()`` is one NULL, as replicated tables always have a column.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SPECIAL = re.compile(r'[ \t\n\v\f\r"\\(),]')  # no other blanks: keys are compared with what PostgreSQL writes
_FIELD = re.compile(r'("(?:[^"\\]++|""|\\.)*+"|[^",()\\]*+),', re.DOTALL)
_QUOTED_ESCAPE = re.compile(r'""|\\(.)', re.DOTALL)
_PIECE = re.compile(r'"((?:[^"\\]++|""|\\.)*+)"|\\(.)|([^",()\\]++)', re.DOTALL)


_COPY_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_COPY_PLAIN = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def unescape(field: bytes) -> str:
    """A field of COPY text (not NULL) as the value it stands for."""
    return _COPY_ESCAPE.sub(lambda match: _COPY_PLAIN.get(match.group(1), match.group(1)), field).decode()


def encode_record(values: Sequence[str | None]) -> str:
    """The values as a record literal that ``record_in`` reads back unchanged."""
    return "(" + ",".join(["" if value is None else _encode(value) for value in values]) + ")"


def parse_record(text: str) -> list[str | None]:
    """The values of a record literal, by the rules of ``record_in``.

    Raises ValueError when the text is not a record literal.
    """
    body = text.strip()
    if len(body) < 2 or body[0] != "(" or body[-1] != ")":
        raise ValueError("a record literal stands in parentheses")
    body = body[1:-1] + ","
    fields: list[str] = _FIELD.findall(body)
    if sum(map(len, fields)) + len(fields) != len(body):  # something lies between them
        return _parse_mixed(body)
    return [_unescape(field[1:-1]) if field[:1] == '"' else field or None for field in fields]


def _encode(value: str) -> str:
    if value and not _SPECIAL.search(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '""') + '"'


def _unescape(quoted: str) -> str:
    if '"' not in quoted and "\\" not in quoted:
        return quoted
    return _QUOTED_ESCAPE.sub(lambda match: match.group(1) or '"', quoted)


def _parse_mixed(body: str) -> list[str | None]:
    """The careful way: fields written by hand, where quoted and unquoted pieces may follow one another."""
    values: list[str | None] = []
    pieces: list[str] = []
    place = 0
    while place < len(body):
        if body[place] == ",":
            values.append("".join(pieces) if pieces else None)
            pieces.clear()
            place += 1
            continue
        match = _PIECE.match(body, place)
        if match is None:
            raise ValueError(f"not a record literal at character {place + 1}")
        quoted, escaped, plain = match.groups()
        pieces.append(_unescape(quoted) if quoted is not None else escaped or plain)
        place = match.end()
    return values
