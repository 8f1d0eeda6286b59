"""What one key of the YAML demands of another, checked once all of it is read."""

from __future__ import annotations

from replicator.model import Direction
from replicator.settings.databases import CENTRE
from replicator.settings.explain import REQUIRED, suggest
from replicator.settings.model import Settings
from replicator.settings.policies import check_policy
from replicator.settings.rules import TableRule

_SITE = "site"


def check(settings: Settings) -> None:
    """Raise a SettingsError for the first thing that does not fit."""
    _check_sites(settings)
    check_policy(settings, "defaults.policy", settings.defaults.policy)
    for place, rule in enumerate(settings.tables):
        _check_rule(settings, place, rule)
    if settings.params_known:
        check_params(settings)


def _check_sites(settings: Settings) -> None:
    if not settings.sites:
        raise settings.error("there is no site", key="sites", hint="add sites: {name: {url: sqlite:///file}}")
    if not settings.tables:
        raise settings.error("there is no table", key="tables", hint=REQUIRED["tables"])
    taken = {settings.centre.identity: "the centre"}
    for name, site in settings.sites.items():
        key = f"sites.{name}"
        if not name.strip() or len(name) > 63 or not name.isprintable():
            raise settings.error("a site's name has 1 to 63 printable characters", key=key)
        if name == CENTRE:
            raise settings.error("this name stands for the centre", key=key, hint="call the site something else")
        if site.identity in taken:
            hint = "each database is one site, and the centre is none of them"
            raise settings.error(f"the same database as {taken[site.identity]}: {site.shown}", key=key, hint=hint)
        taken[site.identity] = f"site {name}"
        if site.outbox == "bypass" and any(settings.direction_of(rule).falls for rule in settings.tables):
            raise settings.error(
                "a site that gets changes from the centre needs its own changes in its outbox",
                key=f"{key}.outbox",
                hint="leave outbox out, or set direction: to_centre for all tables",
            )


def _check_rule(settings: Settings, place: int, rule: TableRule) -> None:
    key, direction = f"tables.{place}", settings.direction_of(rule)
    if len(set(rule.keyed_by)) != len(rule.keyed_by):
        raise settings.error("a name stands there twice", key=f"{key}.keyed_by")
    if rule.policy is not None:
        check_policy(settings, f"{key}.policy", rule.policy)
    if not direction.rises:
        for name, written in (("policy", rule.policy), ("truncate", rule.truncate)):
            if written is not None:
                message = f"{name} is never asked: the table only goes from the centre to the sites"
                raise settings.error(message, key=f"{key}.{name}", hint=f"leave {name} out, or set direction: both")
    if rule.follows is None:
        return
    if direction is Direction.TO_CENTRE:
        raise settings.error(
            "follows says which sites get a row of the centre, and this table only goes to the centre",
            key=f"{key}.follows",
            hint="set direction: both or from_centre, or leave follows out",
        )
    if rule.where:
        raise settings.error(
            "a rule with follows cannot have a row filter of its own yet",
            key=f"{key}.where",
            hint="put the condition on the table it follows, or leave follows out",
        )


def check_params(settings: Settings) -> None:
    """Raise a SettingsError where a site lacks a parameter that ``keyed_by`` names."""
    for place, rule in enumerate(settings.tables):
        for word in rule.keyed_by:
            if word != _SITE:
                require_param(settings, word, f"tables.{place}.keyed_by", f"use {_SITE}")


def require_param(settings: Settings, word: str, key: str, instead: str) -> None:
    """Raise a SettingsError at ``key`` when some site has no parameter ``word``; ``instead``: what else would do."""
    lacking = [name for name, site in settings.sites.items() if word not in site.params]
    if lacking:
        known = sorted({_SITE, *(param for site in settings.sites.values() for param in site.params)})
        line = settings.error("", key=f"sites.{lacking[0]}").line
        table = f" or in its row of {settings.params_from.table}" if settings.params_from else ""
        hint = f"give it in params of that site (line {line}){table}, or {instead}" + suggest(word, known)
        raise settings.error(f"site {lacking[0]} has no parameter {word!r}", key=key, hint=hint)
