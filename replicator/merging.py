"""Three-way merges: which side changed which column, and how two increments of a counter both count. Pure.

Values are texts as the databases spell them (None: NULL). A merge looks at the columns of the site's row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from enum import Enum
from typing import NamedTuple

Row = Mapping[str, object]

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")
# Wide enough for every number a database holds; what would have to be rounded all the same is not added.
_EXACT = Context(prec=200_000, Emax=10**9, Emin=-(10**9), traps=[Inexact, InvalidOperation, Overflow])


class Changed(Enum):
    """Who changed a column since the row was last the same on both sides."""

    NOBODY = "nobody"
    SITE = "site"
    CENTRE = "centre"
    ALIKE = "both, to the same value"
    BOTH = "both"


class Column(NamedTuple):
    """One column of a merge: what each side has, what the site started from, and who changed it.

    ``based``: whether ``base`` is known; else every column that differs counts as changed by both.
    """

    name: str
    base: str | None
    site: str | None
    centre: str | None
    changed: Changed
    based: bool


def columns(before: Row | None, after: Row, current: Row, counters: Collection[str] = ()) -> Iterator[Column]:
    """The columns somebody changed, among those both sides have; ``counters`` also where both inserted the same.

    ``before`` is None where there was none, or where it is not known.
    """
    for name, value in after.items():
        centre = current.get(name, value)
        if before is None or name not in before:
            if value != centre or name in counters:
                changed = Changed.NOBODY if value == centre else Changed.BOTH
                yield Column(name, None, text(value), text(centre), changed, False)
            continue
        base = before[name]
        if value == base:
            if centre == base:
                continue
            changed = Changed.CENTRE
        else:
            changed = Changed.SITE if centre == base else Changed.ALIKE if value == centre else Changed.BOTH
        yield Column(name, text(base), text(value), text(centre), changed, True)


def add(base: str | None, site: str | None, centre: str | None, *, floating: bool = False) -> str | None:
    """What the centre has plus what the site added to its base (none: zero); None where these are no numbers to add.

    The sum is exact, whatever the length. ``floating``: the column holds floats, so the nearest float, spelled as short as
    it can be; also where one of the numbers is written with an exponent.
    """
    base = "0" if base is None else base
    if site is None or centre is None or not (_number(base) and _number(site) and _number(centre)):
        return None
    try:
        total = _EXACT.add(Decimal(centre), _EXACT.subtract(Decimal(site), Decimal(base)))
    except (Inexact, InvalidOperation, Overflow):
        return None
    if floating or any(_FLOAT.fullmatch(each) for each in (base, site, centre)):
        nearest = float(total)
        return repr(nearest) if math.isfinite(nearest) else None
    return f"{total:f}"


def _number(value: str) -> bool:
    return bool(_PLAIN.fullmatch(value) or _FLOAT.fullmatch(value))


def text(value: object) -> str | None:
    """A value of an image as text; None for NULL."""
    return value if value is None or isinstance(value, str) else str(value)


def texts(row: Row) -> dict[str, str | None]:
    """An image with every value as text."""
    return {name: value if value is None or isinstance(value, str) else str(value) for name, value in row.items()}
