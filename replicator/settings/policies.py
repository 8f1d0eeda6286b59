"""Policies as written: which words go where, that named sites exist, that a Python rule can be called."""

from __future__ import annotations

import importlib
import sys

from replicator.model import PolicyName
from replicator.settings.databases import CENTRE
from replicator.settings.explain import suggest
from replicator.settings.model import Settings
from replicator.settings.rules import PolicyRule

_WHOLE = frozenset(PolicyName) - {PolicyName.ADD}
_COLUMN = frozenset(PolicyName) - {PolicyName.MERGE_COLUMNS}
_LAST = _WHOLE - {PolicyName.MERGE_COLUMNS}


def check_policy(settings: Settings, key: str, policy: PolicyRule) -> None:
    """Raise a SettingsError at the key that is wrong."""
    _allow(settings, f"{key}.name", policy.name, _WHOLE)
    for kind, name in policy.kinds.items():
        _allow(settings, f"{key}.kinds.{kind}", name, _WHOLE)
    for column, name in policy.columns.items():
        _allow(settings, f"{key}.columns.{column}", name, _COLUMN)
    _allow(settings, f"{key}.otherwise", policy.otherwise, _LAST - {policy.name} if _falls_back(policy) else _LAST)
    _check_rule(settings, key, policy)
    _check_company(settings, key, policy)
    for place in policy.priority:
        if place != CENTRE and place not in settings.sites:
            known = [CENTRE, *settings.sites]
            hint = f"sites are: {', '.join(settings.sites)}; the centre is {CENTRE}" + suggest(place, known)
            raise settings.error(f"there is no site {place!r}", key=f"{key}.priority", hint=hint)
    if len(set(policy.priority)) != len(policy.priority):
        raise settings.error("a name stands there twice", key=f"{key}.priority")


def _falls_back(policy: PolicyRule) -> bool:
    return policy.name in (PolicyName.SITE_PRIORITY, PolicyName.RULE)


def _allow(settings: Settings, key: str, name: PolicyName, allowed: frozenset[PolicyName]) -> None:
    if name not in allowed:
        words = ", ".join(word for word in PolicyName if word in allowed - {PolicyName.RULE})
        raise settings.error(f"{name} cannot stand here", key=settings.nearest(key), hint=f"write one of {words}")


def _check_rule(settings: Settings, key: str, policy: PolicyRule) -> None:
    given = [name for name, text in (("sql", policy.sql), ("python", policy.python)) if text]
    asked = PolicyName.RULE in policy.names
    if asked and not given:
        raise settings.error("the rule itself is missing", key=key, hint="give it as sql: or python:")
    if given and not asked:
        hint = f"leave name out, or set it to {PolicyName.RULE}"
        raise settings.error("this rule is never asked", key=f"{key}.{given[0]}", hint=hint)
    if len(given) > 1:
        raise settings.error("a rule is written in SQL or in Python, not both", key=f"{key}.python", hint="keep one")
    if policy.python:
        _check_callable(settings, f"{key}.python", policy.python)


def _check_company(settings: Settings, key: str, policy: PolicyRule) -> None:
    """Words that only mean something beside others."""
    names = policy.names
    if policy.columns and PolicyName.MERGE_COLUMNS not in names:
        message = "a policy by column needs columns that are merged"
        raise settings.error(message, key=f"{key}.columns", hint=f"set name: {PolicyName.MERGE_COLUMNS}")
    if PolicyName.SITE_PRIORITY in names and not policy.priority:
        message = f"{PolicyName.SITE_PRIORITY} needs the order of the sites"
        hint = f"add priority: [{', '.join([CENTRE, *list(settings.sites)[:2]])}]; the first wins"
        raise settings.error(message, key=key, hint=hint)
    if policy.priority and PolicyName.SITE_PRIORITY not in names:
        message = "this order is never asked"
        raise settings.error(message, key=f"{key}.priority", hint=f"set name: {PolicyName.SITE_PRIORITY}")
    if "unsure" in policy.model_fields_set and PolicyName.NEWEST_WINS not in names:
        message = f"only {PolicyName.NEWEST_WINS} can be unsure, and it is not used here"
        raise settings.error(message, key=f"{key}.unsure", hint="leave it out")


def _check_callable(settings: Settings, key: str, written: str) -> None:
    module, colon, path = written.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        raise settings.error("not a Python callable", key=key, hint="write module:function")
    folder = str(settings.file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # a rule may lie beside the YAML; behind all else, so that it hides no other module
    try:
        found: object = importlib.import_module(module)
    except Exception as error:  # the module is the user's: whatever it raises is the answer
        hint = f"put {module}.py beside the YAML or on PYTHONPATH, and see that it imports by itself"
        message = f"the module {module} cannot be imported: {type(error).__name__}: {error}"
        raise settings.error(message, key=key, hint=hint) from error
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        what = "has no such name" if found is None else "has it, but it cannot be called"
        raise settings.error(f"{path!r}: the module {module} {what}", key=key, hint="write module:function")
