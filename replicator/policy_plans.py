"""The policy of a rule compiled for one table of one site. Pure."""

from __future__ import annotations

from replicator import filters, types
from replicator.errors import SetupError
from replicator.model import Engine, PolicyName, PolicyPlan, RuleExpression, TableShape
from replicator.resolve import find_column, listed, same_name
from replicator.settings import PolicyRule, Settings
from replicator.shapes import Feed

DEFAULTS = -1
"""Stands for the defaults where a rule's place is asked for."""
_ADDABLE = frozenset({"int", "numeric", "float", "float4"})
_ENGINES = {PolicyName.POSTGRESQL_WINS: Engine.POSTGRES, PolicyName.SQLITE_WINS: Engine.SQLITE}


def check_rule(settings: Settings, key: str, written: PolicyRule) -> None:
    """Parse a rule in SQL before any table is known. Raises SettingsError with its line."""
    if not written.sql:
        return
    try:
        filters.compile_rule(written.sql, None)
    except SetupError as error:
        raise settings.error(error.message, key=f"{key}.sql", hint=error.hint) from None


def compile_policy(
    settings: Settings, feed: Feed, shape: TableShape, centre: Engine, used: set[tuple[int, str]]
) -> PolicyPlan:
    """Who decides the conflicts of a table: policies by engine told apart, columns by their names at the centre.

    ``used`` takes (rule, word) for every column word that met a column. Raises SettingsError at the rule's line.
    """
    rule = settings.tables[feed.rule]
    written = settings.policy_of(rule)
    key = "defaults.policy" if rule.policy is None else f"tables.{feed.rule}.policy"

    def settled(name: PolicyName, inner: str) -> PolicyName:
        return _by_engine(settings, feed, centre, name, f"{key}.{inner}")

    columns = []
    for word, name in written.columns.items():
        target = _target(settings, feed, shape, centre, word, key)
        if target:
            used.add((DEFAULTS if rule.policy is None else feed.rule, f"policy {word}"))
            if name is PolicyName.ADD:
                _check_addable(settings, feed, shape, centre, target, f"{key}.columns.{word}")
            columns.append((target, settled(name, f"columns.{word}")))
    return PolicyPlan(
        name=settled(written.name, "name"),
        kinds=tuple((kind, settled(name, f"kinds.{kind}")) for kind, name in written.kinds.items()),
        columns=tuple(columns),
        otherwise=settled(written.otherwise, "otherwise"),
        priority=written.priority,
        rule=_expression(settings, feed, shape, centre, written.sql, f"{key}.sql") if written.sql else None,
        python=written.python,
        by_engine=str(written.name) if written.name in _ENGINES else "",
        unsure=written.unsure,
        floats=tuple(name for name, policy in columns if policy is PolicyName.ADD and _floats(shape, centre, name)),
    )


def _floats(shape: TableShape, centre: Engine, column: str) -> bool:
    """Whether a centre column holds floating-point numbers, which are added as such."""
    return types.family(centre, shape.column(column).type) in ("float", "float4")


def _by_engine(settings: Settings, feed: Feed, centre: Engine, name: PolicyName, key: str) -> PolicyName:
    winner = _ENGINES.get(name)
    if winner is None:
        return name
    if feed.engine is centre:
        hint = f"write {PolicyName.SOURCE_WINS} or {PolicyName.CENTRE_WINS}"
        raise settings.error(f"{name} does not say who: {feed} and the centre are both {centre}", key=key, hint=hint)
    return PolicyName.SOURCE_WINS if feed.engine is winner else PolicyName.CENTRE_WINS


def _target(settings: Settings, feed: Feed, shape: TableShape, centre: Engine, word: str, key: str) -> str:
    """The centre's name of a column; empty when the table has none of that name."""
    wanted = next((name for source, name in feed.names.items() if same_name(word, source, feed.engine)), "")
    wanted = wanted or next((name for name in feed.names.values() if same_name(word, name, centre)), "")
    if wanted in feed.target_key or any(same_name(word, name, centre) for name, _ in feed.constants):
        raise settings.error(
            f"{feed}: {word!r} is a key column, which cannot be merged",
            key=f"{key}.columns.{word}",
            hint=f"leave it out; the key is ({listed(feed.target_key)})",
        )
    found = find_column(shape, wanted, centre) if wanted else None
    return found.name if found is not None else ""


def _check_addable(settings: Settings, feed: Feed, shape: TableShape, centre: Engine, target: str, key: str) -> None:
    kind = shape.column(target).type
    if types.family(centre, kind) not in _ADDABLE:
        message = f"{feed}: column {target!r} is {kind or 'untyped'} at the centre, and only numbers can be added"
        raise settings.error(message, key=key, hint="choose another policy for it")


def _expression(
    settings: Settings, feed: Feed, shape: TableShape, centre: Engine, sql: str, key: str
) -> RuleExpression:
    found = [find_column(shape, name, centre) for name in dict.fromkeys((*feed.target_key, *feed.names.values()))]
    families = {column.name: types.family(centre, column.type) for column in found if column is not None}
    try:
        return filters.compile_rule(sql, families, centre)
    except SetupError as error:
        raise settings.error(f"{feed}: {error.message}", key=key, hint=error.hint) from None
