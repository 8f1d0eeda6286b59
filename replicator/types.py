"""Which type of one engine holds the values of a type of the other, and how exactly. The table is in sql/README.md.

Types are spelled as the catalogues spell them: ``format_type`` on PostgreSQL, the declared type on SQLite. Every type
belongs to a *family* (``int``, ``numeric``, ``float``, ``float4``, ``bool``, ``text``, ``bytes``, ``uuid``,
``timestamp``, ``timestamptz``, ``date``, ``time``, ``timetz``, ``interval``, ``json``, ``jsonb``, ``bits``, ``other``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from replicator.canonical import Form
from replicator.engines.sqlite.affinity import Affinity, affinity_of
from replicator.model import Engine

_INTS = {"smallint": 16, "integer": 32, "bigint": 64}
_POSTGRES_FAMILIES = {
    **dict.fromkeys(_INTS, "int"),
    "oid": "int",
    "numeric": "numeric",
    "double precision": "float",
    "real": "float4",
    "boolean": "bool",
    "text": "text",
    "character varying": "text",
    "character": "text",
    "bpchar": "text",
    "name": "text",
    '"char"': "text",
    "bytea": "bytes",
    "uuid": "uuid",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "date": "date",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "interval": "interval",
    "json": "json",
    "jsonb": "jsonb",
    "bit": "bits",
    "bit varying": "bits",
}
_OTHERS = """
    money xml inet cidr macaddr macaddr8 point line lseg box path polygon circle tsvector tsquery pg_lsn tid xid
    xid8 cid pg_snapshot txid_snapshot jsonpath int4range int8range numrange tsrange tstzrange daterange
    int4multirange int8multirange nummultirange tsmultirange tstzmultirange datemultirange
"""
_BUILT_IN = frozenset((*_POSTGRES_FAMILIES, *_OTHERS.split()))
_SPELLINGS = {
    "int": "bigint", "int2": "smallint", "int4": "integer", "int8": "bigint", "decimal": "numeric", "float4": "real",
    "float8": "double precision", "float": "double precision", "bool": "boolean", "varchar": "character varying",
    "char": "character", "varbit": "bit varying", "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone", "time": "time without time zone", "timetz": "time with time zone",
}  # fmt: skip
_MODIFIER = re.compile(r"\(([^)]*)\)")
_FIELDS = re.compile(r"^interval (year|month|day|hour|minute|second)\b.*$")

_TO_POSTGRES = {
    "int": "bigint",
    "numeric": "numeric",
    "float": "double precision",
    "bool": "boolean",
    "text": "text",
    "bytes": "bytea",
    "uuid": "uuid",
    "timestamp": "timestamp(6) without time zone",
    "timestamptz": "timestamp(6) with time zone",
    "date": "date",
    "time": "time(6) without time zone",
    "json": "json",
}
_TO_SQLITE = {
    "int": "INTEGER",
    "numeric": "DECIMAL_TEXT",
    "float": "REAL",
    "float4": "REAL",
    "bool": "BOOLEAN",
    "bytes": "BLOB",
    "uuid": "UUID_TEXT",
    "timestamp": "TIMESTAMP_TEXT",
    "timestamptz": "TIMESTAMPTZ_TEXT",
    "date": "DATE_TEXT",
    "time": "TIME_TEXT",
    "json": "JSON_TEXT",
    "jsonb": "JSON_TEXT",
}
_NUMBERS = frozenset({"int", "numeric", "float", "float4"})
_CLOCKS = frozenset({"time", "timetz"})
_DOCUMENTS = frozenset({"json", "jsonb"})
_MOMENTS = frozenset({"timestamp", "timestamptz", "date"})
_FORMS = {
    "int": Form.INTEGER,
    "numeric": Form.NUMERIC,
    "float4": Form.FLOAT4,
    "bool": Form.BOOLEAN,
    "bytes": Form.BYTES,
    "uuid": Form.UUID,
    "timestamp": Form.TIMESTAMP,
    "timestamptz": Form.TIMESTAMPTZ,
    "date": Form.DATE,
    "time": Form.TIME,
    "jsonb": Form.JSONB,
}
"""Families without an entry are compared as text."""


@dataclass(frozen=True, slots=True)
class _Type:
    """A PostgreSQL type taken apart: ``numeric(10,2)[]`` is base numeric, modifiers (10, 2), array."""

    base: str
    modifiers: tuple[int, ...]
    array: bool

    @property
    def family(self) -> str:
        return "other" if self.array else _POSTGRES_FAMILIES.get(self.base, "other")


def family(engine: Engine, type_name: str) -> str:
    """The family of a type; ``other`` for PostgreSQL types without one (arrays, ranges, enums, network types …)."""
    return _take_apart(type_name).family if engine is Engine.POSTGRES else _sqlite_family(type_name)


def centre_type(engine_from: Engine, type_name: str, engine_to: Engine) -> str:
    """The type a column gets at the other side when we create it: it holds every value of the source type exactly.

    Types the source's database made itself (enums, domains, composites, extensions) become text on PostgreSQL.
    """
    if engine_from is engine_to is Engine.SQLITE:
        return type_name
    if engine_to is Engine.SQLITE:
        return _TO_SQLITE.get(family(engine_from, type_name), "TEXT")
    if engine_from is Engine.SQLITE:
        return _TO_POSTGRES[_sqlite_family(type_name)]
    return type_name if _take_apart(type_name).base in _BUILT_IN else "text"


def canonical_form(source_engine: Engine, source_type: str, target_engine: Engine, target_type: str) -> Form:
    """The audit form in which a pair of columns is compared; equal values give equal text on both sides.

    The form is the coarser of the two types: a ``real`` beside a number is compared as ``real``, anything beside text
    as text.
    """
    source, target = family(source_engine, source_type), family(target_engine, target_type)
    if source_engine is target_engine is Engine.SQLITE:
        return Form.STORAGE
    if target_engine is Engine.SQLITE:
        loose = source == "text" and affinity_of(target_type) not in (Affinity.TEXT, Affinity.BLOB)
        return Form.LOOSE_TEXT if loose else _single_form(source, source_type, Form.FLOAT8_ZERO)
    if source_engine is Engine.SQLITE:
        if target == "text":
            typed = source == "text" and source_type.upper() not in ("", "ANY")
            return _single_form(target, target_type, Form.FLOAT8_ZERO) if typed else Form.LOOSE_TEXT
        return _single_form(target, target_type, Form.FLOAT8_ZERO)
    return _pair_form(source, source_type, target, target_type)


def _pair_form(source: str, source_type: str, target: str, target_type: str) -> Form:
    """PostgreSQL on both sides."""
    pair = {source, target}
    if source == target or pair <= _NUMBERS:
        if source == "text" and _take_apart(source_type).base in _PADDED:
            return Form.PADDED
        coarsest = next((name for name in ("float4", "numeric", "float") if name in pair and len(pair) > 1), target)
        whole = coarsest == "float4" and len(pair) == 1
        return Form.FLOAT8 if whole else _single_form(coarsest, target_type, Form.FLOAT8)
    if pair == _DOCUMENTS:
        return Form.JSONB
    if pair <= _MOMENTS:
        return Form.TIMESTAMPTZ if "timestamptz" in pair else Form.TIMESTAMP
    return Form.TEXT


def _single_form(name: str, type_name: str, float8: Form) -> Form:
    if name == "text" and _take_apart(type_name).base in _PADDED:
        return Form.PADDED
    return float8 if name == "float" else _FORMS.get(name, Form.TEXT)


_PADDED = frozenset({"character", "bpchar"})


def fits_form(source_type: str, target_type: str, target_engine: Engine = Engine.POSTGRES) -> str:
    """The block of ``sql/sqlite/fits.sql`` that says whether a SQLite value goes to the target column unchanged.

    ``source_type`` is the declared type; it decides only where the target is SQLite too.
    """
    if target_engine is Engine.SQLITE:
        wanted = affinity_of(target_type)
        return "any" if wanted in (Affinity.BLOB, affinity_of(source_type)) else _AFFINITY_FORMS[wanted]
    target = _take_apart(target_type)
    if target.family == "int":
        return f"int{_INTS[target.base]}" if target.base in _INTS else "none"
    return _FITS.get(target.family, "none")


_AFFINITY_FORMS = {Affinity.TEXT: "text_affinity", Affinity.REAL: "real_affinity",
                   Affinity.INTEGER: "numeric_affinity", Affinity.NUMERIC: "numeric_affinity"}  # fmt: skip
_OWN_FORM = ("numeric", "float4", "bool", "text", "bytes", "uuid", "timestamp", "timestamptz", "date", "time", "json")
_FITS = {"float": "float8", "jsonb": "jsonb", **{name: name for name in _OWN_FORM}}


def may_lose(source_type: str, target_type: str) -> bool:
    """Whether PostgreSQL would round or cut a value silently on its way from one type to the other."""
    return staging_type(source_type, target_type) != target_type


def staging_type(source_type: str, target_type: str) -> str:
    """The type a value is staged in so that it can be compared with its cast to ``target_type``.

    Equal to ``target_type`` when PostgreSQL cannot lose anything on the way, or refuses what does not fit.
    """
    source, target = _take_apart(source_type), _take_apart(target_type)
    if source == target or source_type == target_type:
        return target_type
    if source.array or target.array:
        bare = _staged(_Type(source.base, source.modifiers, False), _Type(target.base, target.modifiers, False), "")
        return bare + "[]" if target.array and bare else target_type
    return _staged(source, target, source_type) or target_type


def widest(target_type: str) -> str:
    """The staging type for values of an engine without types of its own.

    Empty when the target type by itself refuses what does not fit.
    """
    target = _take_apart(target_type)
    wide = "text" if target.family == "text" else target.base
    found = "" if target.array else staging_type(wide, target_type)
    return "" if found == target_type else found


def same_type(one: str, other: str) -> bool:
    """Whether two PostgreSQL types are one, however they are spelled."""
    return _take_apart(one) == _take_apart(other)


def incompatible(source_engine: Engine, source_type: str, target_engine: Engine, target_type: str) -> str:
    """Why values of one type have no meaning in the other; empty when they have (single values may still not fit)."""
    source, target = family(source_engine, source_type), family(target_engine, target_type)
    if target_engine is Engine.SQLITE or source == target:
        return ""
    if source_engine is Engine.SQLITE and ("bytes" not in (source, target) or not source_type):
        return ""  # declared types promise little on SQLite; every value is looked at on its way
    if "bytes" not in (source, target) and "text" in (source, target):
        return ""
    if any({source, target} <= group for group in (_NUMBERS, _MOMENTS, _CLOCKS, _DOCUMENTS)):
        return ""
    return f"{source_type or 'untyped'} values have no meaning as {target_type}"


@lru_cache(maxsize=4096)
def _take_apart(type_name: str) -> _Type:
    array = type_name.endswith("[]")
    bare = type_name[:-2] if array else type_name
    if bare.startswith('"') and bare != '"char"':
        return _Type(bare, (), array)
    found = _MODIFIER.search(bare)
    numbers = found.group(1).split(",") if found else []
    base = " ".join(_MODIFIER.sub("", bare).split())
    fields = _FIELDS.match(base)
    if fields:
        return _Type("interval", tuple(int(number) for number in numbers) or (-1,), array)
    modifiers = tuple(int(number) for number in numbers) if all(_is_number(n) for n in numbers) else ()
    return _Type(_SPELLINGS.get(base.lower(), base), modifiers, array)


def _is_number(text: str) -> bool:
    return text.strip().lstrip("-").isdigit()


def _staged(source: _Type, target: _Type, source_type: str) -> str:
    """The staging type where something can be lost, else empty."""
    kind, same = target.family, source.base == target.base
    if kind == "numeric":
        return "numeric" if target.modifiers and not _scale_fits(source, target) else ""
    if kind == "text":
        return _staged_text(source, target)
    if kind == "bits":
        return "" if target.base == "bit varying" and not target.modifiers else "bit varying"
    if kind in ("float", "float4"):
        exact = same or (source.base, target.base) in _EXACT_FLOATS
        return "" if exact else source_type or source.base
    if kind in ("timestamp", "timestamptz", "date", "time", "timetz", "interval"):
        if source.family != kind:
            return "" if source.base == "date" else source_type or source.base
        return target.base if _digits(target) < _digits(source) else ""
    return ""


_EXACT_FLOATS = frozenset({("smallint", "real"), ("smallint", "double precision"), ("integer", "double precision"),
                           ("real", "double precision")})  # fmt: skip


def _scale_fits(source: _Type, target: _Type) -> bool:
    scale = target.modifiers[1] if len(target.modifiers) > 1 else 0
    if source.family == "int":
        return scale >= 0
    if source.family != "numeric" or not source.modifiers:
        return False
    return scale >= (source.modifiers[1] if len(source.modifiers) > 1 else 0)


def _staged_text(source: _Type, target: _Type) -> str:
    """``bpchar`` for character targets, whose trailing blanks mean nothing; text where a length can cut."""
    if target.base == "text" or (target.base == "character varying" and not target.modifiers):
        return ""
    limit = target.modifiers[0] if target.modifiers else 63 if target.base == "name" else 1
    length = source.modifiers[0] if source.modifiers else 1 if source.base in ("character", '"char"') else 0
    if source.family == "text" and source.base in ("character", target.base) and 0 < length <= limit:
        return ""
    if target.base in ("character", "bpchar"):
        return "bpchar" if target.base == "character" else ""
    return "text"


def _digits(kind: _Type) -> int:
    """Fraction digits kept; -1 where whole fields are left out."""
    return 6 if not kind.modifiers else kind.modifiers[0]


def _sqlite_family(declared: str) -> str:
    """The family a declared SQLite type stands for; the order of the questions is SQLite's own where it has one."""
    name = " ".join(_MODIFIER.sub(" ", declared.upper()).split())
    if name in _SQLITE_EXACT:
        return _SQLITE_EXACT[name]
    if "BOOL" in name:
        return "bool"
    if name.startswith(("TIMESTAMP", "DATETIME")):
        return "timestamptz" if "TZ" in name or "WITH TIME ZONE" in name or "OFFSET" in name else "timestamp"
    numeric = "numeric" if name.startswith(("NUM", "DEC", "MONEY", "CURRENCY")) else "text"
    return _BY_AFFINITY.get(affinity_of(name), numeric) if name else "text"


_BY_AFFINITY = {Affinity.INTEGER: "int", Affinity.TEXT: "text", Affinity.BLOB: "bytes", Affinity.REAL: "float"}


_SQLITE_EXACT = {
    "DATE": "date", "TIME": "time", "JSON": "json", "JSONB": "json", "UUID": "uuid", "GUID": "uuid", "ANY": "text",
    "STRING": "text", "INTERVAL": "text", "POINT": "text", "DECIMAL_TEXT": "numeric", "UUID_TEXT": "uuid",
    "TIMESTAMP_TEXT": "timestamp", "TIMESTAMPTZ_TEXT": "timestamptz", "DATE_TEXT": "date", "TIME_TEXT": "time",
    "JSON_TEXT": "json",
}  # fmt: skip
