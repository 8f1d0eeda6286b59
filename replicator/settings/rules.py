"""What happens to tables: the rules, the policies, the defaults, and where the sites' parameters come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from replicator.model import Cap, ConflictKind, Direction, PolicyName, TruncatePolicy, WhenFull
from replicator.settings.databases import Model, Texts

Policy = Annotated[PolicyName, Field(strict=False)]
Kind = Annotated[ConflictKind, Field(strict=False)]
Way = Annotated[Direction, Field(strict=False)]
Truncate = Annotated[TruncatePolicy, Field(strict=False)]
Full = Annotated[WhenFull, Field(strict=False)]
_LEAST_MAX_SIZE = 1 << 20
_SIZE = "not a size: write 2GB, 500MB or a number of bytes"


class Columns(Model):
    """Which columns go, and how they are called at the centre. ``include`` and ``exclude`` take globs."""

    include: Texts = ("*",)
    exclude: Texts = ()
    rename: Mapping[str, str] = {}
    types: Mapping[str, str] = {}


class PolicyRule(Model):
    """Who decides conflicts, as written: a name, or a mapping with more. Compiled per table into a PolicyPlan.

    A mapping with ``sql`` or ``python`` and no ``name`` is the user's own rule.
    """

    name: Policy
    columns: Mapping[str, Policy] = {}
    kinds: Mapping[Kind, Policy] = {}
    otherwise: Policy = PolicyName.NEWEST_WINS
    priority: Texts = ()
    sql: str = ""
    python: str = ""
    unsure: Literal["flag", "park"] = "flag"

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, written: object) -> object:
        if isinstance(written, str):
            return {"name": written}
        if isinstance(written, dict) and "name" not in written and {"sql", "python"} & written.keys():
            return {**written, "name": str(PolicyName.RULE)}
        return written

    @property
    def names(self) -> frozenset[PolicyName]:
        """Every policy that may come to decide, as written."""
        used = {self.name, *self.kinds.values(), *self.columns.values()}
        falls_back = used & {PolicyName.MERGE_COLUMNS, PolicyName.SITE_PRIORITY, PolicyName.RULE}
        return frozenset(used | ({self.otherwise} if falls_back else set()))


class Follows(Model):
    """The parent table whose rows say which sites get this table's rows; ``via`` are the columns that refer to it."""

    table: str = Field(min_length=1)
    via: Texts = ()

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, written: object) -> object:
        return {"table": written} if isinstance(written, str) else written


class TableRule(Model):
    """One entry of ``tables``: a name or glob and what happens to the tables it matches. The first match wins.

    ``direction`` and ``policy`` may be unset: ask ``Settings.direction_of`` and ``Settings.policy_of``.
    """

    name: str = Field(min_length=1)
    key: Texts = ()
    columns: Columns = Columns()
    where: str = ""
    follows: Follows | None = None
    target: str = ""
    keyed_by: Texts = ()
    direction: Way | None = None
    policy: PolicyRule | None = None
    truncate: Truncate | None = None

    @property
    def is_glob(self) -> bool:
        """Whether the name can match several tables."""
        return any(character in self.name for character in "*?[")

    @model_validator(mode="after")
    def _target_of_one(self) -> TableRule:
        if self.target and self.is_glob:
            raise ValueError("target is for a rule that names one table; a glob would send several tables to one")
        return self


class ParamsFrom(Model):
    """A table at the centre with one row per site: column ``site`` names it, the others are its parameters."""

    table: str = Field(min_length=1)
    site: str = Field(min_length=1)


class OutboxRule(Model):
    """How large an outbox may get, in bytes: ``2GB`` or a number. ``max_size`` 0: as large as the disk allows."""

    max_size: int = 0
    keep_free: int = 512 << 20
    when_full: Full = WhenFull.WARN

    @field_validator("max_size", "keep_free", mode="before")
    @classmethod
    def _bytes(cls, written: object) -> object:
        if isinstance(written, bool) or not isinstance(written, str | int):
            raise ValueError(_SIZE)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", str(written).strip(), re.IGNORECASE)
        if found is None:
            raise ValueError(_SIZE)
        return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))

    @field_validator("max_size")
    @classmethod
    def _can_be_met(cls, found: int) -> int:
        if 0 < found < _LEAST_MAX_SIZE:
            raise ValueError("max_size is at least 1MB: an empty outbox may take up to 200 KB; 0 sets no limit")
        return found

    @property
    def cap(self) -> Cap:
        """The limits as the guard of an outbox takes them."""
        return Cap(self.max_size, self.keep_free, self.when_full)


class Defaults(Model):
    """What holds where a rule says nothing.

    ``truncate`` unset: replicate where the table's rows are one site's alone, else park.
    """

    direction: Way = Direction.TO_CENTRE
    policy: PolicyRule = PolicyRule(name=PolicyName.SOURCE_WINS)
    truncate: Truncate | None = None
    batch_changes: int = Field(default=50_000, ge=1, le=10_000_000)
    poll_seconds: float = Field(default=0.5, gt=0, le=3600, strict=False)
    retention_days: float = Field(default=30.0, gt=0, le=36_500, strict=False)
    outbox: OutboxRule = OutboxRule()
