"""What is captured and where it goes, and what is to be installed for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from replicator.model.catalogue import TableName, TableShape
from replicator.model.words import ConflictKind, Direction, Engine, PolicyName, TruncatePolicy


@dataclass(frozen=True, slots=True)
class RowFilter:
    """One side-effect-free SQL expression over a table's columns, in both engines' spelling with the same meaning.

    ``source`` is as the user wrote it. ``postgres`` and ``sqlite`` are the texts between the places where the row's
    alias stands; ``filters.render_postgres`` and ``filters.render_sqlite`` put one in. ``sqlite`` is empty when the
    expression has no exact SQLite form (then only PostgreSQL sites may use it); ``obstacle`` says why.
    """

    source: str
    postgres: tuple[str, ...]
    sqlite: tuple[str, ...] = ()
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class RuleExpression:
    """A user's own rule as a SQL expression, in both engines' spelling; empty where the rule is none, or has no exact form.

    The text answers ``source``, ``centre`` or ``park``. Rows are read behind the aliases ``site`` (the site's change),
    ``centre`` (the row as it is there) and ``base`` (what the site started from); all columns are NULL where there is no row.
    """

    source: str
    postgres: str = ""
    sqlite: str = ""


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """Who decides the conflicts of one table.

    ``kinds``: another policy for these conflict kinds. ``columns``: target column → policy, where columns are merged.
    ``otherwise``: for columns that both sides changed and ``columns`` does not name, for merges without two rows, and for
    sites ``priority`` (places, the first wins, ``centre`` among them) does not tell apart. ``rule`` or ``python``
    (``module:callable``): the user's own. ``unsure``: what becomes of a ``newest_wins`` whose times are closer than the
    clocks are known: ``flag`` or ``park``.
    """

    name: PolicyName = PolicyName.SOURCE_WINS
    kinds: tuple[tuple[ConflictKind, PolicyName], ...] = ()
    columns: tuple[tuple[str, PolicyName], ...] = ()
    otherwise: PolicyName = PolicyName.NEWEST_WINS
    priority: tuple[str, ...] = ()
    rule: RuleExpression | None = None
    python: str = ""
    unsure: str = "flag"
    floats: tuple[str, ...] = ()
    """Target columns that hold floating-point numbers, among those ``columns`` has counters of."""
    by_engine: str = field(default="", compare=False)
    """The word the YAML has for ``name`` where it says it by engine; for messages."""

    @property
    def names(self) -> frozenset[PolicyName]:
        """Every policy that may come to decide."""
        used = {self.name, *(name for _, name in self.kinds), *(name for _, name in self.columns)}
        falls_back = used & {PolicyName.MERGE_COLUMNS, PolicyName.SITE_PRIORITY, PolicyName.RULE}
        return frozenset(used | ({self.otherwise} if falls_back else set()))

    @property
    def merges(self) -> bool:
        """Whether the base is needed value by value, not only as a checksum: for merges, own rules, and for people to see."""
        names = self.names
        asks = PolicyName.MANUAL in names or (self.unsure == "park" and PolicyName.NEWEST_WINS in names)
        return asks or bool(names & {PolicyName.MERGE_COLUMNS, PolicyName.RULE, PolicyName.ADD})

    @property
    def adds(self) -> bool:
        """Whether some column is a counter: then a change is one also where it makes the row what it is already.

        Two sites that both raise 5 to 6 make 7. So ``find_conflicts`` must hand out such a change (unless its own base is
        the same too: then it is none), not pass it over as already there.
        """
        return any(policy is PolicyName.ADD for _, policy in self.columns)


@dataclass(frozen=True, slots=True)
class RouteStep:
    """From a table to the one it follows: columns here, the parent, and its columns they refer to."""

    columns: tuple[str, ...]
    parent: TableName
    parent_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """How the rows of a centre table are divided among the sites: by ``columns`` of the table at the end of ``path``.

    No columns: every site may want every row. An empty path: the table itself. NULL, or a parent that is not there,
    concerns every site; what a site gets is decided when it reads, by its plan's condition. ``watched``: the other columns of
    the table at the end that some site's condition reads: when they change, the rows that follow are looked at, too.
    """

    columns: tuple[str, ...] = ()
    path: tuple[RouteStep, ...] = ()
    watched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CentralTable:
    """A table of the centre whose own changes are captured there.

    ``sent``: some site gets its rows. ``versioned``: the ledger keeps who wrote each row last, and when.
    """

    table: TableShape
    key: tuple[str, ...]
    route: Route = Route()
    sent: bool = True
    versioned: bool = True


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """One captured column and the target column its values go to (types as each catalogue spells them).

    Filled by the topology rules, read by the engines (which know no rules): ``staging_type`` is the target's type
    without the modifier that would round or cut in silence, empty when nothing can be lost; ``fits`` names the block of
    ``sql/sqlite/fits.sql`` that says whether a SQLite value fits the target; ``form`` is the audit's canonical form.
    """

    source: str
    source_type: str
    target: str
    target_type: str
    staging_type: str = ""
    fits: str = ""
    form: str = ""


@dataclass(frozen=True, slots=True)
class HeldColumn:
    """A column of the source that the target cannot take as it is: left out until it can, then all rows are looked at again.

    ``fix`` is the statement or command that mends it, to be run at ``place`` (a site's name, or ``centre``).
    """

    name: str
    reason: str
    place: str
    fix: str


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One captured table of one site and where its rows go: a topology's table rule compiled against the catalogues.

    ``columns`` come in source-column order; ``key`` names source columns. ``constants`` are target key columns with the
    value this site puts in (``keyed_by``), always text; the target's key is constants + key.
    ``ledgered``: the source gives no before images (SQLite key mode), so the target's ledger says what the site believed.
    ``target_shape`` is what the target has, or what ``install`` will create there.
    ``direction`` is the rule's. ``versioned``: the target's ledger also keeps who wrote each row last, and when.
    ``divided``: the site may write rows that its link from the centre does not give it.
    ``held``: columns left out because the target cannot take them. ``hold``: why no row of the table can be taken, with what
    to run; its changes are parked at the target until they can.

    On a link from the centre, ``source`` is the centre's table and ``target`` the site's. Then ``route`` and ``params``
    (this site's values of the route's columns) say which changes concern the site, and ``where`` which rows it gets (over
    the columns of the table at the end of ``route.path``); ``source_constants`` are centre columns with the value that
    this site's rows have there (``keyed_by``), they are part of the source's key.
    """

    source: TableShape
    target: TableName
    columns: tuple[ColumnPlan, ...]
    key: tuple[str, ...]
    source_engine: Engine
    target_engine: Engine
    target_shape: TableShape
    constants: tuple[tuple[str, str], ...] = ()
    where: RowFilter | None = None
    policy: PolicyPlan = PolicyPlan()
    truncate: TruncatePolicy = TruncatePolicy.REPLICATE
    direction: Direction = Direction.TO_CENTRE
    ledgered: bool = False
    versioned: bool = False
    divided: bool = False
    route: Route = Route()
    params: tuple[str, ...] = ()
    source_constants: tuple[tuple[str, str], ...] = ()
    held: tuple[HeldColumn, ...] = ()
    hold: str = ""

    @property
    def key_indexes(self) -> tuple[int, ...]:
        """Places of the key columns in ``columns``, in key order."""
        names = [column.source for column in self.columns]
        return tuple(names.index(name) for name in self.key)

    @property
    def share_mark(self) -> str:
        """On a link from the centre: another one whenever the site is to have other rows or columns than before."""
        where = (self.where.postgres, self.where.sqlite) if self.where else ()
        columns = sorted((column.source, column.target) for column in self.columns)
        share = (
            self.target,
            self.direction.value,
            columns,
            self.key,
            self.source_constants,
            self.route,
            self.params,
            where,
        )
        return hashlib.sha256(repr(share).encode()).hexdigest()[:32]

    @property
    def target_key(self) -> tuple[str, ...]:
        """The target's key columns: constants first."""
        return tuple(name for name, _ in self.constants) + tuple(self.columns[i].target for i in self.key_indexes)


@dataclass(frozen=True, slots=True)
class Relation:
    """A captured table *version* at a source: what the column places of an outbox row mean.

    ``id`` is the source's own number; ``columns`` are source column names in image order.
    """

    id: int
    table: TableName
    columns: tuple[str, ...]
    key: tuple[str, ...]
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class LinkName:
    """One site and the centre, in one direction."""

    topology: str
    site: str
    direction: Direction = Direction.TO_CENTRE

    @property
    def reverse(self) -> LinkName:
        """The site's other link."""
        other = Direction.FROM_CENTRE if self.direction.rises else Direction.TO_CENTRE
        return LinkName(self.topology, self.site, other)

    @property
    def origin(self) -> str:
        """How databases record who wrote what this link applies: ``<topology>/<site>``, or ``<topology>/centre``."""
        return f"{self.topology}/{self.site if self.direction.rises else 'centre'}"

    @property
    def writer(self) -> str:
        """Who writes, as people call it, what the link's source captures without an origin: the site, or ``centre``."""
        return self.site if self.direction.rises else "centre"

    @property
    def text(self) -> str:
        """How a source's ``acknowledged`` names it."""
        return f"{self.topology}/{self.site}/{self.direction}"

    def __str__(self) -> str:
        return f"{self.site}→centre" if self.direction.rises else f"centre→{self.site}"
