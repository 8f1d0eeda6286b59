"""``:site.parameter`` in row filters: found, replaced by a site's values, and read for what routes rows. Pure."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date

from replicator import sqlfiles
from replicator.engines.sqlite.affinity import Affinity, affinity_of
from replicator.errors import SetupError
from replicator.model import ColumnShape, Engine, RowFilter

NAME = "name"
"""The parameter every site has: its name."""

_TOKEN = re.compile(
    r"""
      (?: \b[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
        | --[^\n]* | /\*.*?\*/ | :: )
    | :site\.(?P<name>[A-Za-z_]\w*)
    | (?P<other>:[A-Za-z_][\w.]*)
    """,
    re.VERBOSE | re.DOTALL,
)
_MARK = "\x01:site."
_QUOTED = re.compile(r'\.("(?:[^"]|"")*")')


def parameters(sql: str) -> tuple[str, ...]:
    """The parameters a row filter names, each once, in the order they stand there.

    Raises SetupError for a ``:word`` that is no parameter of the site.
    """
    found: dict[str, None] = {}
    for match in _TOKEN.finditer(sql):
        if match["other"]:
            raise SetupError(
                f"{match['other']} is not known", hint="write :site.name, or :site. and a parameter's name"
            )
        if match["name"]:
            found[match["name"]] = None
    return tuple(found)


def fill(sql: str, values: Mapping[str, str]) -> str:
    """The row filter with every parameter as a text literal, which takes the type of what it is compared with."""
    return _TOKEN.sub(lambda match: sqlfiles.literal(values[match["name"]]) if match["name"] else match[0], sql)


def equalities(sql: str) -> tuple[dict[str, str], bool]:
    """Column as written → parameter, for the conditions ``column = :site.parameter`` that all rows have to meet.

    And whether that is all there is. The filter must have been parsed before, with its parameters filled in.
    """
    from pglast import ast, enums, parse_sql  # large, and most topologies have no parameters

    marked = _TOKEN.sub(lambda match: f"'{_MARK}{match['name']}'" if match["name"] else match[0], sql)
    template = sqlfiles.statement("sql/postgres/filter.sql", "expression")
    select = parse_sql(sqlfiles.render(template, fragments={"expression": marked}))[0].stmt

    def conditions(node: ast.Node) -> Iterator[ast.Node]:
        if isinstance(node, ast.BoolExpr) and node.boolop is enums.BoolExprType.AND_EXPR:
            for part in node.args:
                yield from conditions(part)
        else:
            yield node

    def parameter(node: ast.Node) -> str:
        value = node.val if isinstance(node, ast.A_Const) and not node.isnull else None
        written = value.sval if isinstance(value, ast.String) else ""
        return written.removeprefix(_MARK) if written.startswith(_MARK) else ""

    def equality(node: ast.Node) -> tuple[str, str] | None:
        plain = isinstance(node, ast.A_Expr) and node.kind is enums.A_Expr_Kind.AEXPR_OP and node.name[-1].sval == "="
        for one, other in ((node.lexpr, node.rexpr), (node.rexpr, node.lexpr)) if plain else ():
            if isinstance(one, ast.ColumnRef) and parameter(other):
                return one.fields[0].sval, parameter(other)
        return None

    found: dict[str, str] = {}
    alone = True
    for pair in map(equality, conditions(select.targetList[0].val)):
        alone = alone and pair is not None and pair[0] not in found
        if pair is not None:
            found.setdefault(*pair)
    return found, alone


def rename(row_filter: RowFilter, names: Mapping[str, str]) -> RowFilter:
    """The filter over columns that are called otherwise (name as parsed → new name)."""
    quoted = {sqlfiles.quote(old): sqlfiles.quote(new) for old, new in names.items()}

    def swap(pieces: tuple[str, ...]) -> tuple[str, ...]:
        return (
            *pieces[:1],
            *(_QUOTED.sub(lambda m: "." + quoted.get(m[1], m[1]), piece, count=1) for piece in pieces[1:]),
        )

    return replace(row_filter, postgres=swap(row_filter.postgres), sqlite=swap(row_filter.sqlite))


def columns_read(row_filter: RowFilter) -> tuple[str, ...]:
    """The columns a filter reads, each once."""
    found = [_QUOTED.match(piece) for piece in row_filter.postgres[1:]]
    return tuple(dict.fromkeys(match[1][1:-1].replace('""', '"') for match in found if match))


def can_route(engine: Engine, column: ColumnShape, family: str) -> bool:
    """Whether a centre's column can route: equal values must look the same everywhere.

    These are integers and plain text, on PostgreSQL uuid and date as well.
    """
    if engine is Engine.SQLITE:
        kind, plain = affinity_of(column.type), column.collation.lower() in ("", "binary")
        return plain and (family, kind) in (("int", Affinity.INTEGER), ("text", Affinity.TEXT))
    padded = column.type.partition("(")[0] in ("character", "bpchar", "name", '"char"')
    return family in ("int", "text", "uuid", "date") and not padded and not column.collation


def spell(family: str, value: str) -> str:
    """A parameter as a routing column of this family spells it. Raises ValueError when it is no such value."""
    if family == "int":
        return str(int(value))
    if family == "uuid":
        return str(uuid.UUID(value))
    return date.fromisoformat(value).isoformat() if family == "date" else value
