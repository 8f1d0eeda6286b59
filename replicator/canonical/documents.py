"""JSON text spelled as PostgreSQL prints ``jsonb``: one spelling for every text that means the same document."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import NoReturn

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SPECIAL = re.compile(r'["\\\x00-\x1f]')
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Number(str):
    """A number's text as it stood."""

    __slots__ = ()


def jsonb_text(text: str) -> str:
    r"""The document as ``jsonb::text``: keys by length and bytes, the last of equal keys, numbers as numeric prints them.

    Raises ValueError for what jsonb does not take: bad syntax, ``\u0000``, lone surrogates, NaN. Documents nested deeper
    than Python's stack raise RecursionError.
    """
    document = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_refuse)
    pieces: list[str] = []
    _write(document, pieces)
    return "".join(pieces)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON value")


def _write(node: object, pieces: list[str]) -> None:
    match node:
        case _Number():
            pieces.append(_number(node))
        case str():
            pieces.append(_string(node))
        case dict():
            keys = sorted((len(raw := key.encode("utf-8", "surrogatepass")), raw, key) for key in node)
            pieces.append("{")
            for place, (_, _, key) in enumerate(keys):
                pieces.append((", " if place else "") + _string(key) + ": ")
                _write(node[key], pieces)
            pieces.append("}")
        case list():
            pieces.append("[")
            for place, item in enumerate(node):
                if place:
                    pieces.append(", ")
                _write(item, pieces)
            pieces.append("]")
        case _:
            pieces.append({None: "null", True: "true", False: "false"}[node])  # type: ignore[index]


def _number(text: str) -> str:
    number = Decimal(text)
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or abs(number.adjusted()) > 131_071 or -exponent > 16_383:
        raise ValueError("a number has more digits than numeric holds")
    if not number:
        return "0." + "0" * -exponent if exponent < 0 else "0"
    return format(number, "f")


def _string(text: str) -> str:
    if "\0" in text:
        raise ValueError("\\u0000 stands in a string")
    if _SURROGATE.search(text):
        raise ValueError("a lone surrogate stands in a string")
    return '"' + _SPECIAL.sub(lambda match: _ESCAPES.get(match.group(), f"\\u{ord(match.group()):04x}"), text) + '"'
