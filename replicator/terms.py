"""The pieces of a row filter: terms with a family and a text per engine, and how two of them combine.

In the texts a ``NUL`` character stands for the row's alias (no identifier and no literal can hold one). A term without
an exact SQLite form carries the reason in ``obstacle`` and infects what is built on it. Families are those of
``replicator/types.py`` and three more: ``unknown`` (a text literal whose type its neighbour decides), ``null`` and
``any`` (a column whose type is not known yet).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from replicator import sqlfiles
from replicator.errors import SetupError

ALIAS = "\0"
_SQLITE = "sql/sqlite/filters.sql"
_POSTGRES = "sql/postgres/filter.sql"
NUMBERS = frozenset({"int", "numeric", "float", "float4"})
_OPEN = frozenset({"any", "other", "bits", "bytes", "interval", "timetz", "time", "jsonb"})
_WORDS = {**dict.fromkeys(("t", "true", "y", "yes", "on", "1"), True),
          **dict.fromkeys(("f", "false", "n", "no", "off", "0"), False)}  # fmt: skip
_INTEGER = re.compile(r"\s*[+-]?\d+\s*")
_DECIMAL = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(:\d\d)?(\.\d{1,6})?)?")
_ZONED = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Term:
    """A part of an expression. ``literal``: a constant's own text; ``computed``: arithmetic that can overflow."""

    family: str
    postgres: str
    sqlite: str = ""
    obstacle: str = ""
    literal: str | None = None
    computed: bool = False


def obstacle(*terms: Term) -> str:
    """The first reason why one of the terms has no SQLite form."""
    return next((term.obstacle for term in terms if term.obstacle), "")


def build(
    family: str, postgres: str, sqlite: Callable[[], str], *terms: Term, why: str = "", computed: bool | None = None
) -> Term:
    """A term made of others; its SQLite text is only built where every part has one and ``why`` is empty."""
    reason = obstacle(*terms) or why
    spread = any(term.computed for term in terms) if computed is None else computed
    return Term(family, postgres, "" if reason else sqlite(), reason, computed=spread)


def number(text: str) -> Term:
    """A number literal. SQLite reads 15 digits exactly, so longer ones have no SQLite form unless they are integers."""
    text = text.strip()
    shown = f"({text})" if text.startswith(("-", "+")) else text
    if _INTEGER.fullmatch(text) and -(2**63) < int(text) < 2**63:
        return Term("int", shown, shown, literal=text)
    digits = re.sub(r"[eE].*|[^0-9]", "", text).strip("0")
    size = abs(float(text))
    small = len(digits) <= 15 and (size == 0 or 1e-15 <= size <= 1e15)
    return Term(
        "numeric", shown, shown if small else "", "" if small else f"the number {text} is too long", literal=text
    )


def text(value: str) -> Term:
    """A text literal whose type is still open."""
    quoted = sqlfiles.literal(value)
    if "\\" not in value:
        return Term("unknown", quoted, quoted, literal=value)
    return Term("unknown", "E" + quoted.replace("\\", "\\\\"), quoted, literal=value)


def boolean(value: bool) -> Term:
    """True or false; SQLite knows them as 1 and 0."""
    return Term("bool", "true" if value else "false", "1" if value else "0", literal=str(value))


def settle(term: Term, family: str) -> Term:
    """An open text literal as a constant of ``family``; raises SetupError when the text is no such constant."""
    if term.family != "unknown":
        return term
    value = term.literal or ""
    if family in NUMBERS and (_INTEGER if family == "int" else _DECIMAL).fullmatch(value):
        return number(value)
    if family == "bool" and value.strip().lower() in _WORDS:
        return boolean(_WORDS[value.strip().lower()])
    if family in ("text", "unknown", "null"):
        return replace(term, family="text")
    if family in _OPEN:
        return replace(term, family=family, sqlite="", obstacle=f"a {family} constant has no SQLite form")
    if family == "uuid" and _UUID.fullmatch(value):
        return replace(term, family=family, sqlite=sqlfiles.literal(value.lower()))
    settled = _settle_moment(term, value, family)
    if settled is None:
        raise SetupError(f"{value!r} is not a {family} constant", hint=_CONSTANTS.get(family, ""))
    return settled


_CONSTANTS = {
    "date": "write dates as YYYY-MM-DD",
    "timestamp": "write timestamps as YYYY-MM-DD HH:MM:SS",
    "timestamptz": "write the offset too, YYYY-MM-DD HH:MM:SS+00: without it the meaning depends on the session",
}


def _settle_moment(term: Term, value: str, family: str) -> Term | None:
    try:
        if family == "date" and _DATE.fullmatch(value) and date.fromisoformat(value):
            return replace(term, family=family)
        found = _MOMENT.fullmatch(value)
        if family == "timestamp" and found and datetime.fromisoformat(value[:19]):
            day, minute, second, fraction = found.groups()
            spelled = f"{day} {minute or '00:00'}{second or ':00'}.{(fraction or '.')[1:]:0<6}"
            return replace(term, family=family, sqlite=sqlfiles.literal(spelled), literal=spelled)
    except ValueError:
        return None
    if family == "timestamptz" and _ZONED.fullmatch(value):
        return replace(term, family=family, sqlite="", obstacle="times with a zone are compared by PostgreSQL only")
    return None


def unify(terms: Sequence[Term], what: str) -> tuple[str, list[Term]]:
    """The common family of several terms, and the terms with open literals settled to it. Raises SetupError."""
    known = {term.family for term in terms} - {"unknown", "null"}
    if known <= NUMBERS and known:
        order = ("float", "float4", "numeric", "int")
        family = next(name for name in order if name in known)
    elif len(known) > 1 and "any" in known:
        family = "any"
    elif known == {"date", "timestamp"}:
        family = "timestamp"
    elif len(known) > 1:
        raise SetupError(f"{what} mixes {' and '.join(sorted(known))}", hint="compare values of one type")
    else:
        family = next(iter(known), "text")
    # A decimal constant beside an integer column is a number, not a mistake.
    settled = [settle(term, "numeric" if family == "int" and "." in (term.literal or "") else family) for term in terms]
    return family, settled


def mixed(terms: Sequence[Term], family: str) -> str:
    """Why terms of a common family cannot stand side by side in SQLite; empty when they can."""
    shown = {term.family for term in terms} - {"null"}
    if family == "numeric" and sum(term.literal is None for term in terms) > 1:
        return "two decimal columns are compared by PostgreSQL only"
    if shown <= NUMBERS and shown:
        columns = {term.family for term in terms if term.literal is None and term.family != "null"}
        if len(columns) > 1:
            return f"{' and '.join(sorted(columns))} columns are compared by PostgreSQL only"
        if columns != {"int"} and any(abs(float(t.literal)) > 1e15 for t in terms if t.literal and t.family != "null"):
            return "numbers beyond 15 digits are compared by PostgreSQL only"
    elif len(shown) > 1:
        return f"{' and '.join(sorted(shown))} values are compared by PostgreSQL only"
    return ""


def compare(operator: str, left: Term, right: Term) -> Term:
    """``left operator right`` for = <> < <= > >= and the two ``is [not] distinct from``."""
    if "null" in (left.family, right.family) and not operator.startswith("is"):
        raise SetupError(f"a comparison with NULL by {operator} is never true", hint="write IS NULL or IS NOT NULL")
    family, (left, right) = unify((left, right), f"a comparison by {operator}")
    if family == "json":
        raise SetupError("json values cannot be compared", hint="compare other columns")
    why = mixed((left, right), family) or _order(operator, family)
    if left.computed and right.computed:
        why = why or "two results of arithmetic are compared by PostgreSQL only"
    sign = {"is distinct from": "is not", "is not distinct from": "is"}.get(operator, operator)
    return build(
        "bool",
        f"({left.postgres} {operator} {right.postgres})",
        lambda: f"({comparable(left, family)} {sign} {comparable(right, family)})",
        left,
        right,
        why=why,
        computed=False,
    )


def cast(term: Term, block: str = "as_numeric", **more: str) -> str:
    """The PostgreSQL text of a term as another type: a block of ``sql/postgres/filter.sql``."""
    return _spell(_POSTGRES, block, value=term.postgres, **more)


def _spell(file: str, name: str, **fragments: str) -> str:
    lines = sqlfiles.statement(file, name).splitlines()
    return sqlfiles.render(" ".join(line.strip() for line in lines if not line.startswith("--")), fragments=fragments)


def _order(operator: str, family: str) -> str:
    if family in ("int", "numeric", "float", "bool", "date", "timestamp"):
        return ""
    if family == "text":
        return "the order of text depends on the collation" if operator[0] in "<>" and operator != "<>" else ""
    if family == "uuid" and not (operator[0] in "<>" and operator != "<>"):
        return ""
    return f"{family} values are compared by PostgreSQL only"


def comparable(term: Term, family: str) -> str:
    """The SQLite text of a term as it stands in a comparison: byte by byte, whatever the column's own collation."""
    if term.family == "null" or term.literal is not None:
        return term.sqlite
    if family == "timestamp":
        return _spell(_SQLITE, "moment", value=term.sqlite)
    if family == "uuid":
        return f"lower({term.sqlite})"
    return f"{term.sqlite} collate binary" if family in ("text", "date") else term.sqlite


def arithmetic(operator: str, left: Term, right: Term) -> Term:
    """``+ - * / %`` that cannot fail on PostgreSQL (overflow, zero): the filter runs in the user's statement."""
    family, (left, right) = unify((left, right), f"arithmetic by {operator}")
    if family not in ("int", "numeric", "any"):
        raise SetupError(f"arithmetic on {family} values is not allowed", hint="it could fail inside the application")
    inner = "one arithmetic step is translated, not two" if left.computed or right.computed else ""
    why = inner or ("" if family == "int" else "decimal arithmetic is done by PostgreSQL only")
    plain = f"({left.sqlite} {operator} {right.sqlite})"
    if operator in "/%":
        if right.literal is None or float(right.literal) in (0, -1):
            raise SetupError(f"{operator} is allowed only with a constant other than 0 and -1 on its right")
        if family == "int":
            shown = f"({cast(left, 'as_bigint')} {operator} {cast(right, 'as_bigint')})"
            if left.computed:
                raise SetupError(f"{operator} after other arithmetic is not allowed", hint="it could overflow")
            return build(family, shown, lambda: plain, left, right, why=why)
    shown = f"({cast(left)} {operator} {cast(right)})"
    return build(family, shown, lambda: _spell(_SQLITE, "whole", value=plain), left, right, why=why, computed=True)


def like(left: Term, pattern: Term, *, negated: bool, fold: bool) -> Term:
    """``[not] like`` and ``[not] ilike`` with a constant pattern; on SQLite as GLOB, which minds case."""
    left = settle(left, "text")
    if left.family not in ("text", "any") or pattern.literal is None or pattern.family not in ("unknown", "text"):
        raise SetupError("LIKE takes text on its left and a constant pattern on its right")
    glob = _glob(pattern.literal)
    operator = ("not " if negated else "") + ("ilike" if fold else "like")
    why = "ilike depends on the collation" if fold else "" if len(glob) < 10_000 else "the pattern is too long"
    sign = "not glob" if negated else "glob"
    shown = f"({left.postgres} {operator} {pattern.postgres})"
    return build("bool", shown, lambda: f"({left.sqlite} {sign} {sqlfiles.literal(glob)})", left, why=why)


def _glob(pattern: str) -> str:
    """A LIKE pattern in GLOB's spelling. Raises SetupError for a pattern PostgreSQL refuses."""
    pieces = []
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            character = next(characters, "")
            if not character:
                raise SetupError("a LIKE pattern must not end with a backslash")
        elif character in "%_":
            pieces.append("*" if character == "%" else "?")
            continue
        pieces.append(f"[{character}]" if character in "*?[" else character)
    return "".join(pieces)


def join(operator: str, terms: Sequence[Term]) -> Term:
    """Terms joined by ``and`` or ``or``; balanced, as SQLite limits the depth of an expression."""
    for term in terms:
        require_boolean(term, operator.upper())
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    left, right = join(operator, terms[:half]), join(operator, terms[half:])
    shown = f"({left.postgres} {operator} {right.postgres})"
    return build("bool", shown, lambda: f"({left.sqlite} {operator} {right.sqlite})", left, right, computed=False)


def require_boolean(term: Term, what: str) -> None:
    """Raises SetupError unless the term is a condition."""
    if term.family not in ("bool", "any", "null"):
        raise SetupError(f"{what} takes conditions, not {term.family} values", hint="compare it with something")
