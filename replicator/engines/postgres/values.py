"""SQLite values as PostgreSQL text, one by one: the careful way for values whose storage class or form is odd.

A value is passed on only when the target type holds exactly it; otherwise the reason is returned and the row is parked
(invariant 5). The column's canonical form, in which the audit will compare it, says whether it does: what PostgreSQL would
read as something else (``now`` as a date, the tenth digit of a second) has no form.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from replicator.canonical import Form, NoFormError, canonical_text
from replicator.model import ColumnPlan
from replicator.records import encode_record

_TEXTUAL = ("text", "character varying", "character", "citext", "name", "json", "jsonb", "xml")
_WHOLE = ("smallint", "integer", "bigint")
_FLOATS = ("double precision", "real")


def to_record(values: Sequence[object], columns: Sequence[ColumnPlan | None]) -> tuple[str, str]:
    r"""A row as a record literal, and why it cannot be the target's row (empty when it can).

    The literal is made in either case, so that a parked row can be looked at: bytes show as ``\x…``, undecodable text
    with its escapes.
    """
    texts: list[str | None] = []
    reason = ""
    for value, column in zip(values, columns, strict=True):
        text, problem = _to_text(value, column)
        texts.append(text)
        if not problem and column is not None and column.form:
            problem = _form_problem(value, Form(column.form))
        if problem and column is not None and not reason:
            reason = f"column {column.source}: {problem}, the target column {column.target} is {column.target_type}"
    return encode_record(texts), reason


def _form_problem(value: object, form: Form) -> str:
    if not isinstance(value, int | float | str | bytes | None):
        return f"a {type(value).__name__}"
    try:
        canonical_text(form, value)
    except NoFormError as error:
        return str(error)
    return ""


def _to_text(value: object, column: ColumnPlan | None) -> tuple[str | None, str]:
    kind = column.target_type.partition("(")[0] if column is not None else "text"
    loose = column is not None and column.form == Form.LOOSE_TEXT
    match value:
        case None:
            return None, ""
        case bytes() if type(value) is not bytes:
            return "\\x" + value.hex(), "text that is not valid UTF-8"
        case bytes():
            return "\\x" + value.hex(), "" if kind == "bytea" else "a blob"
        case bool() | int():
            return str(int(value)), "" if loose else _integer_problem(int(value), kind)
        case float():
            return _float_text(value), "" if loose else _float_problem(value, kind)
        case str():
            return _text(value, kind)
        case _:
            return str(value), f"a {type(value).__name__}"


def _integer_problem(value: int, kind: str) -> str:
    if kind in _FLOATS:
        return "" if int(float(value)) == value else "an integer with more than 53 bits"
    if kind == "boolean":
        return "" if value in (0, 1) else f"the number {value}"
    return "" if kind in (*_WHOLE, "numeric") else "an integer"


def _float_problem(value: float, kind: str) -> str:
    if kind in (*_FLOATS, "numeric"):
        return ""
    return f"the floating-point number {value!r}"


def _float_text(value: float) -> str:
    return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(repr(value), repr(value))


def _text(value: str, kind: str) -> tuple[str, str]:
    if "\x00" in value:
        return value.replace("\x00", "\\0"), "text with a NUL character, which PostgreSQL cannot store"
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace").decode(), "text that is not valid UTF-8"
    if kind in (*_WHOLE, *_FLOATS, "boolean", "bytea"):
        return value, "text"
    if kind == "uuid" and not value.startswith("urn:"):
        with suppress(ValueError):  # as PostgreSQL spells it, because keys are compared by their spelling
            return str(UUID(value)), ""
    return value, ""
