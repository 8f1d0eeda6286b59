"""Changes of tables written in SQL, read with PostgreSQL's own parser and said again in the dialect of another database. Pure.

Only what has the same meaning everywhere is taken: ALTER TABLE that adds, drops, renames or retypes columns or changes NOT
NULL. Everything else is refused with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import pglast
from pglast.stream import RawStream

from replicator import alters, types
from replicator.errors import SetupError
from replicator.model import ColumnShape, Engine, TableName, TableShape
from replicator.resolve import find_column


class Act(StrEnum):
    """What a change does."""

    ADD = "add column"
    DROP = "drop column"
    RENAME = "rename column"
    TYPE = "set type"
    NOT_NULL = "set not null"
    NULL = "drop not null"


@dataclass(frozen=True, slots=True)
class Alteration:
    """One change of one table, in names and types of the database it was written for.

    ``new``: the new name; ``shape``: the new column, or the new type alone.
    """

    act: Act
    table: TableName
    column: str
    new: str = ""
    shape: ColumnShape | None = None

    def __str__(self) -> str:
        more = f" to {self.new}" if self.new else f" ({self.shape.type})" if self.shape else ""
        return f"{self.act} {self.column} of {self.table}{more}"


def parse_changes(text: str, where: str) -> list[Alteration]:
    """The changes of a file in PostgreSQL's dialect. Raises SetupError naming the statement that is none."""
    try:
        parsed = pglast.parse_sql(text)
    except pglast.Error as error:
        raise SetupError(f"{where}: {error}", hint="write it as PostgreSQL would take it") from None
    return [change for raw in parsed for change in _read(raw.stmt, where)]


def _read(node: object, where: str) -> Iterator[Alteration]:
    if isinstance(node, pglast.ast.RenameStmt) and node.relation is not None:
        kinds = pglast.enums.ObjectType
        table = _table(node.relation)
        if node.renameType == kinds.OBJECT_COLUMN and node.relationType == kinds.OBJECT_TABLE:
            yield Alteration(Act.RENAME, table, str(node.subname), str(node.newname))
            return
    if isinstance(node, pglast.ast.AlterTableStmt) and node.relation is not None:
        for command in node.cmds or ():
            yield _command(_table(node.relation), command, where, node)
        return
    raise _refused(node, where)


def _command(table: TableName, command: object, where: str, node: object) -> Alteration:
    kinds = pglast.enums.AlterTableType
    kind, name = command.subtype, str(command.name or "")  # type: ignore[attr-defined]
    definition = command.def_  # type: ignore[attr-defined]
    if kind == kinds.AT_AddColumn:
        shape = _column(definition, where)
        return Alteration(Act.ADD, table, shape.name, shape=shape)
    if kind == kinds.AT_AlterColumnType and definition.raw_default is None:
        return Alteration(Act.TYPE, table, name, shape=ColumnShape(name, RawStream()(definition.typeName)))
    plain = {kinds.AT_DropColumn: Act.DROP, kinds.AT_SetNotNull: Act.NOT_NULL, kinds.AT_DropNotNull: Act.NULL}
    if kind in plain:
        return Alteration(plain[kind], table, name)
    raise _refused(node, where)


def _column(definition: object, where: str) -> ColumnShape:
    kind = RawStream()(definition.typeName)  # type: ignore[attr-defined]
    shape = ColumnShape(str(definition.colname), kind)  # type: ignore[attr-defined]
    kinds = pglast.enums.ConstrType
    for constraint in definition.constraints or ():  # type: ignore[attr-defined]
        if constraint.contype == kinds.CONSTR_NOTNULL:
            shape = replace(shape, not_null=True)
        elif constraint.contype == kinds.CONSTR_DEFAULT and _is_constant(constraint.raw_expr):
            shape = replace(shape, default=RawStream()(constraint.raw_expr))
        elif constraint.contype != kinds.CONSTR_NULL:
            raise _refused(constraint, where)
    return shape


def _is_constant(node: object) -> bool:
    return isinstance(node, pglast.ast.A_Const)


def _table(relation: object) -> TableName:
    return TableName(str(relation.schemaname or "public"), str(relation.relname))  # type: ignore[attr-defined]


def _refused(node: object, where: str) -> SetupError:
    try:
        text = str(RawStream()(node))
    except NotImplementedError:
        text = type(node).__name__
    hint = "add, drop, rename or retype columns (defaults must be constants); anything else is to be run at each place"
    if isinstance(node, pglast.ast.CreateStmt):
        hint = (
            "the YAML says which tables there are: create it where its rows come from, name it there, "
            "and run: replicator install"
        )
    elif isinstance(node, pglast.ast.RenameStmt) and node.renameType == pglast.enums.ObjectType.OBJECT_TABLE:
        hint = (
            "the YAML says what tables are called: rename it at each place, put the new name there, "
            "and run: replicator install"
        )
    return SetupError(f"{where}: {text}: is not carried to other databases", hint=hint)


def translated(
    change: Alteration, table: TableShape, engine: Engine, column: str, written_for: Engine
) -> tuple[str, str]:
    """The statement that makes a change of ``table`` in a database of ``engine``, and why there is none.

    Both empty: it is so already. ``column``: what the change's column is called there.
    """
    here, new = find_column(table, column, engine), find_column(table, change.new, engine)
    if change.act is Act.ADD and change.shape is not None:
        shape = replace(change.shape, name=column, type=types.centre_type(written_for, change.shape.type, engine))
        return ("" if here else alters.add_column(engine, table.name, shape)), ""
    if here is None:
        done = change.act is Act.DROP or (change.act is Act.RENAME and new is not None)
        return "", "" if done else f"{table.name} has no column {column}"
    if change.act is Act.RENAME:
        if column != change.column:
            return "", f"the YAML calls it {column} there: change columns.rename instead"
        return alters.rename_column(engine, table.name, here.name, change.new), ""
    if change.act is Act.DROP:
        if here.name in table.key:
            return "", f"{column} is of the key of {table.name}"
        return alters.drop_column(engine, table.name, here.name), ""
    return _retyped(change, table, here, engine, written_for)


def _retyped(
    change: Alteration, table: TableShape, here: ColumnShape, engine: Engine, written_for: Engine
) -> tuple[str, str]:
    kind = types.centre_type(written_for, change.shape.type, engine) if change.shape else ""
    if change.act is Act.TYPE:
        done = here.type.upper() == kind.upper() if engine is Engine.SQLITE else types.same_type(here.type, kind)
    else:
        done = here.not_null is (change.act is Act.NOT_NULL)
    if done:
        return "", ""
    if engine is Engine.SQLITE:
        return "", f"SQLite changes no column in place: rebuild {table.name} (copy and rename), or leave it as it is"
    if change.act is Act.TYPE:
        return alters.set_type(table.name, here.name, kind), ""
    make = alters.set_not_null if change.act is Act.NOT_NULL else alters.drop_not_null
    return make(table.name, here.name), ""


def after(table: TableShape, change: Alteration, column: str) -> TableShape:
    """A table as it will be once a change has been made."""
    here = [each for each in table.columns if each.name != column] if change.act is Act.DROP else list(table.columns)
    if change.act is Act.ADD and change.shape is not None and all(each.name != column for each in here):
        here.append(replace(change.shape, name=column))
    news = {
        Act.RENAME: {"name": change.new}, Act.NOT_NULL: {"not_null": True}, Act.NULL: {"not_null": False},
        Act.TYPE: {"type": change.shape.type if change.shape else ""},
    }.get(change.act, {})  # fmt: skip
    columns = tuple(replace(each, **news) if each.name == column else each for each in here)  # type: ignore[arg-type]
    return replace(table, columns=columns)
