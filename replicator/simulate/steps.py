"""What can happen in a history: steps as plain data, told in words, written to JSON and read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

SECOND, DAY = 1_000_000, 86_400_000_000


@dataclass(frozen=True, slots=True)
class Action:
    """One statement of an application.

    ``what``: ``put`` (insert, or update when the row is there), ``set`` (some columns), ``delete``, ``rekey`` (becomes ``to``).
    ``row`` and ``to`` are numbers of rows of the table's small pool of keys; ``chance`` seeds the values.
    """

    what: str
    table: str
    row: int
    chance: int
    to: int = 0

    def __str__(self) -> str:
        to = f" to row {self.to}" if self.what == "rekey" else ""
        return f"{self.what} {self.table} row {self.row}{to}"


@dataclass(frozen=True, slots=True)
class Write:
    """An application's transaction at a place."""

    number: int
    place: str
    actions: tuple[Action, ...]
    given_up: bool = False

    def __str__(self) -> str:
        end = ", then gives up" if self.given_up else ""
        return f"{self.place} writes: {'; '.join(map(str, self.actions))}{end}"


@dataclass(frozen=True, slots=True)
class Move:
    """One batch of one link.

    ``fault``: ``crash`` (at gap ``at`` between two calls), ``lost`` (the acknowledgement never arrives), ``twice`` (it arrives
    twice), ``reread`` (the batch is read, dropped, and read again).
    """

    number: int
    site: str
    rises: bool
    limit: int
    fault: str = ""
    at: int = 0

    def __str__(self) -> str:
        fault = {"crash": f", crash at gap {self.at}", "lost": ", acknowledgement lost", "twice": ", acknowledged twice",
                 "reread": ", read twice"}.get(self.fault, "")  # fmt: skip
        return f"link {_link(self.site, self.rises)} moves a batch of about {self.limit}{fault}"


@dataclass(frozen=True, slots=True)
class Cut:
    """A link is away for so many steps."""

    number: int
    site: str
    rises: bool
    steps: int

    def __str__(self) -> str:
        return f"link {_link(self.site, self.rises)} is cut for {self.steps} steps"


@dataclass(frozen=True, slots=True)
class Jump:
    """A place's wall clock is wrong by ``days`` from now on."""

    number: int
    place: str
    days: float

    def __str__(self) -> str:
        return f"the clock of {self.place} is {self.days:+.1f} days wrong from now on"


@dataclass(frozen=True, slots=True)
class Restart:
    """The replicator of a site is stopped in order and started again."""

    number: int
    site: str

    def __str__(self) -> str:
        return f"the replicator of {self.site} is restarted"


@dataclass(frozen=True, slots=True)
class Heal:
    """Parked changes of a link are tried again."""

    number: int
    site: str
    rises: bool

    def __str__(self) -> str:
        return f"what is parked on link {_link(self.site, self.rises)} is tried again"


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill is ordered: later batches of the link bring its chunks.

    ``rows``: by key, these numbers of rows; none: the whole table. ``prefer`` as in an order, ``chunk``: rows of a chunk.
    """

    number: int
    site: str
    rises: bool
    table: str
    rows: tuple[int, ...] = ()
    prefer: str = "policy"
    chunk: int = 2

    def __str__(self) -> str:
        rows = f"rows {', '.join(map(str, self.rows))}" if self.rows else "all rows"
        prefer = "" if self.prefer == "policy" else f", prefer {self.prefer}"
        return f"a backfill of link {_link(self.site, self.rises)} is ordered: {self.table}, {rows}{prefer}"


@dataclass(frozen=True, slots=True)
class Backup:
    """A place's database is copied."""

    number: int
    site: str

    def __str__(self) -> str:
        return f"the database of {self.site} is copied"


@dataclass(frozen=True, slots=True)
class Restore:
    """A place's database is replaced by its copy."""

    number: int
    site: str

    def __str__(self) -> str:
        return f"the database of {self.site} is replaced by its copy"


Step = Write | Move | Cut | Jump | Restart | Heal | Backfill | Backup | Restore
_KINDS = {kind.__name__.lower(): kind for kind in (Write, Move, Cut, Jump, Restart, Heal, Backfill, Backup, Restore)}


def to_json(steps: Iterable[Step]) -> list[dict[str, object]]:
    """Steps as JSON documents."""
    return [{"step": type(step).__name__.lower(), **asdict(step)} for step in steps]


def from_json(documents: Sequence[Mapping[str, object]]) -> list[Step]:
    """What ``to_json`` wrote. Raises KeyError, TypeError or ValueError for anything else."""
    return [_read(document) for document in documents]


def _read(document: Mapping[str, object]) -> Step:
    kind = _KINDS[str(document["step"])]
    values = {name: value for name, value in document.items() if name != "step"}
    if unknown := values.keys() - {field.name for field in fields(kind)}:
        raise ValueError(f"a {document['step']} has no {sorted(unknown)[0]}")
    if kind is Write:
        actions = values["actions"]
        assert isinstance(actions, list | tuple)
        values["actions"] = tuple(Action(**action) for action in actions)
    if kind is Backfill:
        rows = values.get("rows", ())
        assert isinstance(rows, list | tuple)
        values["rows"] = tuple(rows)
    step: Step = kind(**values)  # type: ignore[arg-type]  # the dataclass's own fields, as written
    return step


def _link(site: str, rises: bool) -> str:
    return f"{site}→centre" if rises else f"centre→{site}"
