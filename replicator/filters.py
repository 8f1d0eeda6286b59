"""Row filters and conflict rules of the YAML as values: parsed once, written for either engine."""

from __future__ import annotations

from collections.abc import Mapping

from replicator import sqlfiles, terms
from replicator.errors import SetupError
from replicator.model import Engine, RowFilter, RuleExpression


def parse_expression(sql: str, columns: Mapping[str, str] | None, *, written: str = "") -> RowFilter:
    """The filter a YAML expression means for a table whose columns have these families (name → family).

    ``columns`` may be None while the table is not known: then every column name and type is accepted.
    ``written``: what the user wrote, where ``sql`` was made of it.
    Raises SetupError naming the construct that is not allowed, or the column the table does not have.
    """
    from replicator.expressions import ONE, read_condition  # the parser is large, and most topologies have no filter

    written = written or sql
    try:
        term = read_condition(sql, columns)
    except RecursionError:
        raise SetupError(f"row filter {_short(written)}: nested too deep", hint=ONE) from None
    except SetupError as error:
        raise SetupError(f"row filter {_short(written)}: {error.message}", hint=error.hint) from None
    sqlite = tuple(term.sqlite.split(terms.ALIAS)) if not term.obstacle else ()
    return RowFilter(written, tuple(term.postgres.split(terms.ALIAS)), sqlite, term.obstacle)


def require_sqlite(row_filter: RowFilter) -> None:
    """Raises SetupError naming the construct when the filter has no exact SQLite form."""
    if not row_filter.sqlite:
        raise SetupError(
            f"row filter {_short(row_filter.source)} would not mean the same on SQLite: {row_filter.obstacle}",
            hint="write the condition with constructs both engines share, or use it on PostgreSQL sites only",
        )


def render_postgres(row_filter: RowFilter, alias: str) -> str:
    """The condition for PostgreSQL with every column behind ``alias``; NULL means the row is left out."""
    return "(" + sqlfiles.quote(alias).join(row_filter.postgres) + ")"


def render_sqlite(row_filter: RowFilter, alias: str) -> str:
    """The condition for SQLite with every column behind ``alias``. Raises SetupError when there is no exact form."""
    require_sqlite(row_filter)
    return "(" + sqlfiles.quote(alias).join(row_filter.sqlite) + ")"


def compile_rule(sql: str, columns: Mapping[str, str] | None, centre: Engine = Engine.POSTGRES) -> RuleExpression:
    """The rule a YAML expression means for a target table whose columns have these families (name → family).

    It reads the rows ``site``, ``centre`` and ``base`` and gives a text. ``columns`` may be None while the table is not known.
    Raises SetupError naming what is not allowed, or why a SQLite centre would not mean the same.
    """
    from replicator.expressions import read_answer

    hint = "write one expression over site.…, centre.… and base.… that gives 'source', 'centre' or 'park'"
    try:
        term = read_answer(sql, columns)
    except RecursionError:
        raise SetupError(f"rule {_short(sql)}: nested too deep", hint=hint) from None
    except SetupError as error:
        raise SetupError(f"rule {_short(sql)}: {error.message}", hint=error.hint) from None
    if centre is Engine.SQLITE and term.obstacle:
        raise SetupError(
            f"rule {_short(sql)} would not mean the same on a SQLite centre: {term.obstacle}",
            hint="write it with constructs both engines share, or as a Python callable: python: module:callable",
        )
    return RuleExpression(sql, term.postgres, "" if term.obstacle else term.sqlite)


def _short(sql: str) -> str:
    line = " ".join(sql.split())
    return repr(line if len(line) <= 60 else line[:57] + "...")
