"""House rules that a syntax tree can check: no SQL text in Python, short files, docstrings, no silent except.

The SQL gate reads every string constant, and every f-string with its holes as ``?``, docstrings apart. A sentence for
people that trips it is best put into other words; there is no list of exceptions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "replicator").rglob("*.py"))
ALL = SHIPPED + sorted((ROOT / "tests").rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

_EVERYTHING = frozenset({"Exception", "BaseException"})
_SQL = re.compile(
    r"""
      \bselect\b .* \bfrom\b          | ^\s*select\s+[\w.]+\s*\(       | ^\s*with\s+(recursive\s+)?\w+\s+as\b
    | \binsert\s+into\b               | \bdelete\s+from\b              | \bupdate\s+\S+\s+set\b
    | ^\s*(create|alter|drop|comment\s+on)\s+(or\s+replace\s+|temp\s+|temporary\s+|unique\s+|if\s+exists\s+)*
      (table|index|schema|function|procedure|trigger|view|database|publication|role|type|sequence|extension)\b
    | ^\s*(begin|commit|rollback|end)\s*(immediate|exclusive|deferred|transaction|work|to\b.*|;|$)
    | ^\s*(savepoint|listen|unlisten|release|truncate)\s+["\w?]+\s*;?\s*$
    | ^\s*truncate\s+table\b          | ^\s*pragma\s+\w+               | ^\s*set\s+(local|session|constraints)\b
    | ^\s*copy\s+\S+\s*(\(.*\)\s*)?(from|to)\s+(stdin|stdout)          | ^\s*lock\s+table\b
    | \bon\s+conflict\s*(\(|do\b)     | \bvalues\s*\(                  | \b(order|group|partition)\s+by\b
    | \bwhere\s+[\w."?]+\s*(=|<|>|in\b|is\b)                           | \b(left|inner|cross|full)\s+join\b
    | ::\s*(text|bytea|jsonb?|regclass|(big|small)?int|integer|numeric|boolean)\b
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_sql_text_in_python(path: Path) -> None:
    found = [f"{path}:{line}: {text!r}" for line, text in _strings(_tree(path)) if _SQL.search(text)]
    assert not found, "SQL belongs into sql/ or triggers/:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("text", "is_sql"),
    [
        ("select 1 from t", True),
        ("SELECT pg_sleep(1)", True),
        ("insert into t values (1)", True),
        ("update ? set a = 1", True),
        ("create temp table x (a)", True),
        ("pragma data_version", True),
        ("begin immediate", True),
        ("commit", True),
        ("copy t (a, b) from stdin", True),
        ("a = ? where id = ?", True),
        ("?::text", True),
        ("select the tables you want", False),
        ("update the topology file and set a password", False),
        ("begin with the smallest site", False),
        ("delete the file by hand", False),
        ("cannot create the table", False),
        ("from factory_a", False),
    ],
)
def test_the_sql_gate_tells_sql_from_sentences(text: str, is_sql: bool) -> None:
    assert bool(_SQL.search(text)) is is_sql


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short_and_modules_have_docstrings(path: Path) -> None:
    tree = _tree(path)
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{path}: {lines} lines"
    long = [
        f"{path}:{node.lineno}: {node.name} has {length} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)
    assert ast.get_docstring(tree), f"{path}: no module docstring"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_except_is_bare_or_silent(path: Path) -> None:
    found = [f"{path}:{line}: {why}" for line, why in _silent(_tree(path))]
    assert not found, "\n".join(found)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every string constant and f-string with its line; bare strings as statements are documentation."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in told or id(node) in inside:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "?" for part in node.values)
            yield node.lineno, "".join(str(part) for part in parts)


def _silent(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield node.lineno, "bare except"
            elif all(isinstance(part, ast.Pass) or _is_ellipsis(part) for part in node.body):
                yield node.lineno, "silent except"
            elif _names(node.type) & _EVERYTHING and not _speaks(node):
                yield node.lineno, "catches everything, and neither raises nor uses what it caught"
        elif isinstance(node, ast.Call) and "suppress" in _names(node.func) and _names(node) & _EVERYTHING:
            yield node.lineno, "suppresses everything"


def _is_ellipsis(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...


def _names(node: ast.AST) -> set[str]:
    return {getattr(each, "id", None) or getattr(each, "attr", "") for each in ast.walk(node)}


def _speaks(handler: ast.ExceptHandler) -> bool:
    inside = [node for part in handler.body for node in ast.walk(part)]
    used = any(isinstance(node, ast.Name) and node.id == handler.name for node in inside)
    return used or any(isinstance(node, ast.Raise) for node in inside)
