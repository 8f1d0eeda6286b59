"""SQL conditions from the YAML, read with PostgreSQL's own parser and written anew for both engines.

The text is never passed on: the parsed tree is walked, everything but the constructs below is refused by name, and
both engines' spellings are written anew with qualified, quoted columns. A filter cannot fail at run time on PostgreSQL
(it runs inside the application's statement): no overflow, no division by zero, no cast that can refuse a value.

For SQLite the text means the same for every value that fits the column's type at the centre, or there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pglast import ast, enums, parse_sql
from pglast.parser import ParseError

from replicator import sqlfiles, terms
from replicator.errors import SetupError
from replicator.terms import Term

_KINDS = enums.A_Expr_Kind
ONE = "write exactly one condition over the table's columns"
ROWS = ("site", "centre", "base")
"""The rows a conflict rule reads: what the site wrote, what the centre has, what the site started from."""

_FUNCTIONS: Mapping[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(("lower", "upper", "btrim", "ltrim", "rtrim", "reverse", "md5"), (("text",), "text")),
    **dict.fromkeys(("length", "char_length", "octet_length"), (("text",), "int")),
    **dict.fromkeys(("abs", "round", "ceil", "ceiling", "floor", "trunc", "sign"), (("number",), "same")),
    "left": (("text", "int"), "text"),
    "right": (("text", "int"), "text"),
    "starts_with": (("text", "text"), "bool"),
}
"""Immutable functions of pg_catalog that accept every value of their argument types."""

_CASTS = {"bool": "bool", "int2": "int", "int4": "int", "int8": "int", "numeric": "numeric", "float4": "float4",
          "float8": "float", "text": "text", "varchar": "text", "date": "date", "timestamp": "timestamp",
          "timestamptz": "timestamptz", "uuid": "uuid"}  # fmt: skip
_SAFE_CASTS = {"text": {"text", "int", "bool", "uuid", "numeric"}, "numeric": {"int", "numeric"},
               "int8": {"int"}, "float8": {"int", "float", "float4"}, "timestamp": {"date", "timestamp"}}  # fmt: skip

_NAMES = {
    "SubLink": "a subquery", "ParamRef": "a parameter", "SQLValueFunction": "a value of the session or the clock",
    "A_ArrayExpr": "an array", "RowExpr": "a row", "A_Indirection": "a subscript or field", "CollateClause": "COLLATE",
    "SetToDefault": "DEFAULT", "GroupingFunc": "GROUPING", "XmlExpr": "an XML expression", "A_Star": "*",
    "JsonFuncExpr": "a JSON function", "NamedArgExpr": "a named argument",
}  # fmt: skip


def read_condition(sql: str, columns: Mapping[str, str] | None) -> Term:
    """The condition of one expression. Raises SetupError naming what is not allowed, RecursionError when nested too deep."""
    return _Walk(columns).condition(_parse(sql))


def read_answer(sql: str, columns: Mapping[str, str] | None) -> Term:
    """A text made of the columns of several ROWS. Raises what ``read_condition`` raises."""
    term = terms.settle(_Walk(columns, ROWS).term(_parse(sql)), "text")
    if term.family not in ("text", "any"):
        found = "nothing but NULL" if term.family == "null" else f"a {term.family} value"
        raise SetupError(f"it gives {found}", hint="it must give a text: 'source', 'centre' or 'park'")
    return term


def _parse(sql: str) -> ast.Node:
    if "\0" in sql or not sql.strip():
        raise SetupError("it is empty or holds a NUL character", hint=ONE)
    template = sqlfiles.statement("sql/postgres/filter.sql", "expression")
    try:
        statements = parse_sql(sqlfiles.render(template, fragments={"expression": sql}))
    except ParseError as error:
        raise SetupError(f"it does not parse: {error.args[0]}", hint=ONE) from None
    if len(statements) != 1:
        raise SetupError("it is more than one statement", hint=ONE)
    select = statements[0].stmt
    for clause in ("fromClause", "whereClause", "groupClause", "havingClause", "windowClause", "sortClause",
                   "limitCount", "limitOffset", "lockingClause", "withClause", "valuesLists", "larg", "distinctClause",
                   "intoClause"):  # fmt: skip
        if not isinstance(select, ast.SelectStmt) or getattr(select, clause):
            raise SetupError("it is more than an expression", hint=ONE)
    if len(select.targetList or ()) != 1 or select.targetList[0].name:
        raise SetupError("it is more than one expression, or has a name", hint=ONE)
    node: ast.Node = select.targetList[0].val
    return node


class _Walk:
    """Turns a parsed expression into a term; refuses by name what it does not know."""

    def __init__(self, columns: Mapping[str, str] | None, rows: Sequence[str] = ()) -> None:
        self._columns, self._rows = columns, rows
        self._ways: Mapping[type[ast.Node], Callable[[ast.Node], Term]] = {
            ast.ColumnRef: self._column, ast.A_Const: self._constant, ast.BoolExpr: self._logic,
            ast.NullTest: self._null_test, ast.BooleanTest: self._boolean_test, ast.A_Expr: self._operator,
            ast.TypeCast: self._cast, ast.CoalesceExpr: self._coalesce, ast.MinMaxExpr: self._extreme,
            ast.CaseExpr: self._case, ast.FuncCall: self._call,
        }  # fmt: skip

    def condition(self, node: ast.Node) -> Term:
        term = terms.settle(self.term(node), "bool")
        terms.require_boolean(term, "WHEN" if self._rows else "a row filter")
        return term

    def term(self, node: ast.Node) -> Term:
        way = self._ways.get(type(node))
        if way is None:
            name = type(node).__name__
            raise SetupError(f"{_NAMES.get(name, name)} is not allowed", hint=ONE)
        return way(node)

    def _column(self, node: ast.Node) -> Term:
        row, written = self._named(node.fields)
        name, family = written, "any"
        if self._columns is not None:
            same = [column for column in self._columns if column.lower() == written.lower()]
            name = written if written in self._columns else same[0] if len(same) == 1 else ""
            if not name:
                raise SetupError(f"the table has no column {written!r}", hint=f"columns: {', '.join(self._columns)}")
            family = self._columns[name]
        shown = f"{row}.{sqlfiles.quote(name)}"
        return Term(family, shown, shown)

    def _named(self, fields: Sequence[ast.Node]) -> tuple[str, str]:
        """The row a column is written behind, and its name."""
        names = [field.sval if isinstance(field, ast.String) else "*" for field in fields]
        if not self._rows and len(names) == 1 and names != ["*"]:
            return terms.ALIAS, names[0]
        if not self._rows:
            raise SetupError("columns are written without a table name, and * is not allowed", hint=ONE)
        if len(names) != 2 or names[0] not in self._rows or names[1] == "*":
            behind = ", ".join(f"{row}.{names[-1].replace('*', 'column')}" for row in self._rows)
            raise SetupError(f"{'.'.join(names)} does not say of which row it is", hint=f"write one of {behind}")
        return names[0], names[1]

    def _constant(self, node: ast.Node) -> Term:
        if node.isnull:
            return Term("null", "null", "null")
        value = node.val
        if isinstance(value, ast.String):
            return terms.text(value.sval)
        if isinstance(value, ast.Boolean):
            return terms.boolean(bool(value.boolval))
        if isinstance(value, ast.Integer):
            return terms.number(str(value.ival or 0))
        if isinstance(value, ast.Float):
            return _float(value.fval)
        raise SetupError("a bit string is not allowed", hint=ONE)

    def _logic(self, node: ast.Node) -> Term:
        parts = [terms.settle(self.term(part), "bool") for part in node.args]
        if node.boolop is not enums.BoolExprType.NOT_EXPR:
            return terms.join("and" if node.boolop is enums.BoolExprType.AND_EXPR else "or", parts)
        (part,) = parts
        terms.require_boolean(part, "NOT")
        return terms.build("bool", f"(not {part.postgres})", lambda: f"(not {part.sqlite})", part)

    def _null_test(self, node: ast.Node) -> Term:
        part = self.term(node.arg)
        test = "is null" if node.nulltesttype is enums.NullTestType.IS_NULL else "is not null"
        return terms.build("bool", f"({part.postgres} {test})", lambda: f"({part.sqlite} {test})", part, computed=False)

    def _boolean_test(self, node: ast.Node) -> Term:
        part = terms.settle(self.term(node.arg), "bool")
        terms.require_boolean(part, "IS TRUE")
        _, *words = node.booltesttype.name.lower().split("_")
        spelled = {"true": "1", "false": "0", "unknown": "null", "not": "not", "is": "is"}
        shown = f"({part.postgres} is {' '.join(words)})"
        return terms.build("bool", shown, lambda: f"({part.sqlite} is {' '.join(spelled[w] for w in words)})", part)

    def _operator(self, node: ast.Node) -> Term:
        kind, name = node.kind, node.name[-1].sval
        if len(node.name) > 1:
            raise SetupError("an operator with a schema is not allowed", hint=ONE)
        if kind is _KINDS.AEXPR_OP:
            return self._plain_operator(node, "<>" if name == "!=" else name)
        left = self.term(node.lexpr)
        if kind in (_KINDS.AEXPR_DISTINCT, _KINDS.AEXPR_NOT_DISTINCT):
            sign = "is distinct from" if kind is _KINDS.AEXPR_DISTINCT else "is not distinct from"
            return terms.compare(sign, left, self.term(node.rexpr))
        if kind is _KINDS.AEXPR_IN:
            sign, joint = ("=", "or") if name == "=" else ("<>", "and")
            return terms.join(joint, [terms.compare(sign, left, self.term(item)) for item in node.rexpr])
        if kind in (_KINDS.AEXPR_BETWEEN, _KINDS.AEXPR_NOT_BETWEEN):
            low, high = (self.term(item) for item in node.rexpr)
            if kind is _KINDS.AEXPR_BETWEEN:
                return terms.join("and", [terms.compare(">=", left, low), terms.compare("<=", left, high)])
            return terms.join("or", [terms.compare("<", left, low), terms.compare(">", left, high)])
        if kind in (_KINDS.AEXPR_LIKE, _KINDS.AEXPR_ILIKE):
            pattern = self.term(node.rexpr) if not isinstance(node.rexpr, ast.FuncCall) else None
            if pattern is None:
                raise SetupError("LIKE ... ESCAPE is not allowed", hint="use the backslash")
            return terms.like(left, pattern, negated=name.startswith("!"), fold=kind is _KINDS.AEXPR_ILIKE)
        if kind is _KINDS.AEXPR_NULLIF:
            return self._nullif(left, self.term(node.rexpr))
        raise SetupError(f"{kind.name.removeprefix('AEXPR_').replace('_', ' ')} is not allowed", hint=ONE)

    def _plain_operator(self, node: ast.Node, name: str) -> Term:
        right = self.term(node.rexpr)
        if node.lexpr is None:
            if name == "-":
                return terms.arithmetic("-", terms.number("0"), right)
            raise SetupError(f"the operator {name} is not allowed", hint=ONE)
        left = self.term(node.lexpr)
        if name in ("=", "<>", "<", "<=", ">", ">="):
            return terms.compare(name, left, right)
        if name in ("+", "-", "*", "/", "%"):
            return terms.arithmetic(name, left, right)
        if name == "||":
            left, right = terms.settle(left, "text"), terms.settle(right, "text")
            if not {left.family, right.family} <= {"text", "any"}:
                raise SetupError("|| takes text on both sides", hint="cast the other side to text")
            joined = f"({left.sqlite} || {right.sqlite})"
            return terms.build("text", f"({left.postgres} || {right.postgres})", lambda: joined, left, right)
        raise SetupError(f"the operator {name} is not allowed", hint=ONE)

    def _nullif(self, left: Term, right: Term) -> Term:
        test = terms.compare("=", left, right)
        _, (left, right) = terms.unify((left, right), "NULLIF")
        shown = f"nullif({left.postgres}, {right.postgres})"
        family = left.family
        return terms.build(
            family, shown, lambda: f"(case when {test.sqlite} then null else {left.sqlite} end)", left, right,
            why=test.obstacle,
        )  # fmt: skip

    def _coalesce(self, node: ast.Node) -> Term:
        family, parts = terms.unify([self.term(part) for part in node.args], "COALESCE")
        shown = ", ".join(part.postgres for part in parts)
        texts = ", ".join(part.sqlite for part in parts)
        why = terms.mixed(parts, family)
        return terms.build(family, f"coalesce({shown})", lambda: f"coalesce({texts})", *parts, why=why)

    def _extreme(self, node: ast.Node) -> Term:
        name = "greatest" if node.op is enums.MinMaxOp.IS_GREATEST else "least"
        family, parts = terms.unify([self.term(part) for part in node.args], name.upper())
        shown = f"{name}({', '.join(part.postgres for part in parts)})"
        return terms.build(family, shown, str, *parts, why=f"SQLite has no {name} that passes over NULL")

    def _case(self, node: ast.Node) -> Term:
        if node.arg is not None:
            raise SetupError("CASE with a value is not allowed", hint="write CASE WHEN condition THEN …")
        tests = [self.condition(branch.expr) for branch in node.args]
        results = [self.term(branch.result) for branch in node.args]
        results.append(self.term(node.defresult) if node.defresult else Term("null", "null", "null"))
        family, results = terms.unify(results, "CASE")

        def write(texts: Sequence[str], ends: Sequence[str]) -> str:
            arms = " ".join(f"when {test} then {end}" for test, end in zip(texts, ends, strict=False))
            return f"(case {arms} else {ends[-1]} end)"

        shown = write([test.postgres for test in tests], [result.postgres for result in results])
        spelled = write([test.sqlite for test in tests], [result.sqlite for result in results])
        computed = any(result.computed for result in results)
        why = terms.mixed(results, family)
        return terms.build(family, shown, lambda: spelled, *tests, *results, why=why, computed=computed)

    def _cast(self, node: ast.Node) -> Term:
        name = node.typeName.names[-1].sval
        family = _CASTS.get(name)
        if family is None or node.typeName.typmods or node.typeName.arrayBounds or node.typeName.setof:
            raise SetupError(f"a cast to {name} is not allowed", hint=f"allowed: {', '.join(_CASTS)} without lengths")
        part = self.term(node.arg)
        if part.family == "unknown":
            part = terms.settle(part, family)
            return Term(family, f"({terms.cast(part, 'as_type', type=name)})", part.sqlite, part.obstacle, part.literal)
        if part.family not in (*_SAFE_CASTS.get(name, ()), "any", "null"):
            raise SetupError(f"a cast from {part.family} to {name} is not allowed", hint="it could refuse a value")
        same = part.family == family or (part.family, family) == ("int", "numeric")
        why = "" if same else f"a cast from {part.family} to {name} is done by PostgreSQL only"
        return terms.build(family, f"({terms.cast(part, 'as_type', type=name)})", lambda: part.sqlite, part, why=why)

    def _call(self, node: ast.Node) -> Term:
        names = [part.sval for part in node.funcname]
        known = _FUNCTIONS.get(names[-1]) if len(names) == 1 or names[0] == "pg_catalog" else None
        plain = not (node.agg_star or node.agg_distinct or node.agg_filter or node.agg_order or node.over
                     or node.func_variadic or node.agg_within_group)  # fmt: skip
        if known is None or not plain:
            allowed = ", ".join(sorted((*_FUNCTIONS, "coalesce", "nullif", "greatest", "least")))
            raise SetupError(f"the function {'.'.join(names)} is not allowed here", hint=f"allowed: {allowed}")
        wanted, result = known
        parts = [self.term(part) for part in node.args or ()]
        if len(parts) != len(wanted):
            raise SetupError(f"{names[-1]} takes {len(wanted)} arguments", hint=ONE)
        parts = [_argument(names[-1], part, want) for part, want in zip(parts, wanted, strict=True)]
        shown = [terms.cast(part) if want == "number" and part.family == "int" else part.postgres
                 for part, want in zip(parts, wanted, strict=True)]  # fmt: skip
        family = parts[0].family if result == "same" else result
        text = f"pg_catalog.{names[-1]}({', '.join(shown)})"
        counted = names[-1] in ("length", "char_length")
        why = "" if counted else f"{names[-1]}() is not the same function on SQLite"
        return terms.build(family, text, lambda: f"length({parts[0].sqlite})", *parts, why=why)


def _float(written: str) -> Term:
    cleaned = written.replace("_", "")
    if cleaned.lower().startswith(("0x", "0o", "0b")):
        return terms.number(str(int(cleaned, 0)))
    return terms.number(cleaned)


def _argument(name: str, part: Term, want: str) -> Term:
    part = terms.settle(part, "numeric" if want == "number" else want)
    fits = part.family in terms.NUMBERS if want == "number" else part.family == want
    if not fits and part.family not in ("any", "null"):
        raise SetupError(f"{name} takes {want} values, not {part.family}", hint=ONE)
    if want == "int" and part.literal is None:
        raise SetupError(f"{name} takes a constant length", hint=ONE)
    return part
