"""What an audit says: dataclasses, their verdicts, and the two renderings (a JSON document and plain text lines)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from replicator.model import Direction

SCHEMA = "replicator.audit/1"
"""Name and version of the JSON document. New keys may come; a changed meaning makes a new version."""

_ARROWS: Mapping[Direction, str] = {Direction.TO_CENTRE: "→", Direction.FROM_CENTRE: "←", Direction.BOTH: "↔"}


class AuditVerdict(StrEnum):
    """What is known about a table, a site or a whole audit."""

    EQUAL = "equal"
    DIFFERENT = "different"
    NOT_PROVEN = "not proven"


EXIT_CODES: Mapping[AuditVerdict, int] = {AuditVerdict.EQUAL: 0, AuditVerdict.DIFFERENT: 1, AuditVerdict.NOT_PROVEN: 2}
EXIT_ERROR = 3
"""Exit code when the audit itself could not be run (a wrong YAML, no connection at all)."""


class Kind(StrEnum):
    """How a row differs."""

    DIFFERS = "differs"
    MISSING = "missing at centre"
    EXTRA = "extra at centre"
    MISSING_AT_SITE = "missing at site"
    EXTRA_AT_SITE = "extra at site"
    """The last two: of tables whose rows come from the centre only."""
    REPEATED = "key not unique"


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """Both values of one column for people to read; ``None`` is NULL. ``reason``: why a value has no canonical form."""

    column: str
    target_column: str
    source: str | None
    target: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RowDifference:
    """One row that differs. ``key``: source key column → value. ``parked``: the change that would mend it is set aside."""

    key: Mapping[str, str | None]
    kind: Kind
    columns: tuple[ColumnDifference, ...] = ()
    parked: bool = False


@dataclass(slots=True)
class TableReport:
    """One table of one site. ``source`` is its name at the site, ``target`` at the centre; ``direction`` is its rule's.

    ``missing`` and ``extra`` are said of the centre; of the site where the table's rows come from the centre only.
    ``compared``: rows of the source that were compared. ``differing``, ``missing``, ``extra``, ``parked`` and ``in_flight``
    are exact counts; a parked row counts only as parked. ``differences`` lists the first of them, ``cut`` says whether
    there are more. ``position_before`` and ``position_after`` are the link's positions when the table's audit began and
    ended: equal, and the verdict is about that position; else about rows not written in between.
    """

    site: str
    source: str
    target: str
    verdict: AuditVerdict = AuditVerdict.NOT_PROVEN
    reason: str = ""
    compared: int = 0
    rows_source: int = 0
    rows_target: int = 0
    differing: int = 0
    missing: int = 0
    extra: int = 0
    parked: int = 0
    in_flight: int = 0
    buckets: int = 0
    unequal_buckets: int = 0
    differences: list[RowDifference] = field(default_factory=list)
    cut: bool = False
    not_compared: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    position_before: str | None = None
    position_after: str | None = None
    began_at: str = ""
    seconds: float = 0.0
    direction: Direction = Direction.TO_CENTRE

    @property
    def wrong(self) -> int:
        """Rows that differ for no known reason."""
        return self.differing + self.missing + self.extra

    @property
    def only_site(self) -> int:
        """Rows the centre lacks."""
        return self.extra if self.direction is Direction.FROM_CENTRE else self.missing

    @property
    def only_centre(self) -> int:
        """Rows the site lacks."""
        return self.missing if self.direction is Direction.FROM_CENTRE else self.extra

    @property
    def only_target(self) -> int:
        """Rows a resync would remove: of a table that goes one way, those its source does not have."""
        return 0 if self.direction is Direction.BOTH else self.extra


@dataclass(slots=True)
class AuditReport:
    """All audited tables. ``forms_version``: of the canonical forms the digests were made with."""

    topology: str
    forms_version: int
    tables: list[TableReport] = field(default_factory=list)

    @property
    def verdict(self) -> AuditVerdict:
        """Different when any table is; else not proven when any table is, or when there was none."""
        verdicts = {table.verdict for table in self.tables}
        if AuditVerdict.DIFFERENT in verdicts:
            return AuditVerdict.DIFFERENT
        return AuditVerdict.EQUAL if verdicts == {AuditVerdict.EQUAL} else AuditVerdict.NOT_PROVEN

    @property
    def exit_code(self) -> int:
        """For the shell."""
        return EXIT_CODES[self.verdict]


def to_json(report: AuditReport) -> dict[str, object]:
    """The report as a document of plain values; see ``SCHEMA``."""
    return {
        "schema": SCHEMA,
        "topology": report.topology,
        "verdict": str(report.verdict),
        "forms_version": report.forms_version,
        "tables": [asdict(table) for table in report.tables],
    }


def to_lines(report: AuditReport) -> Iterator[str]:
    """The report as plain text: a line a table, what differs below it, the verdict last."""
    for table in report.tables:
        yield from table_lines(table)
    tables = f"{len(report.tables)} table{'' if len(report.tables) == 1 else 's'}"
    rows = sum(table.compared for table in report.tables)
    yield f"{report.verdict}: {tables}, {rows:,} rows compared"


def table_lines(table: TableReport) -> Iterator[str]:
    """One table's part of ``to_lines``."""
    arrow = _ARROWS[table.direction]
    yield f"{table.site}: {table.source} {arrow} {table.target}: {table.verdict} ({', '.join(_counts(table))})"
    if table.reason:
        yield f"  {table.reason}"
    if table.not_compared:
        yield f"  not compared: columns {', '.join(table.not_compared)}"
    yield from (f"  {note}" for note in table.notes)
    for row in table.differences:
        yield f"  {_key(row.key)}: {row.kind}{' (parked: see replicator parked list)' if row.parked else ''}"
        yield from (f"    {line}" for line in map(_column, row.columns))
    if table.cut:
        listed, counted = len(table.differences), table.wrong + table.parked
        yield f"  only {listed:,} of {counted:,} differing rows are listed"


def _counts(table: TableReport) -> Sequence[str]:
    counts = [f"{table.compared:,} rows"]
    place = "site" if table.direction is Direction.FROM_CENTRE else "centre"
    named = (
        ("differ", table.differing), (f"missing at {place}", table.missing), (f"extra at {place}", table.extra),
        ("parked", table.parked), ("in flight", table.in_flight),
    )  # fmt: skip
    return [*counts, *(f"{count:,} {name}" for name, count in named if count), f"{table.seconds:.1f} s"]


def _key(key: Mapping[str, str | None]) -> str:
    return ", ".join(f"{column} = {_value(value)}" for column, value in key.items())


def _column(column: ColumnDifference) -> str:
    name = column.column if column.column == column.target_column else f"{column.column} → {column.target_column}"
    reason = f" ({column.reason})" if column.reason else ""
    return f"{name}: {_value(column.source)} at the site, {_value(column.target)} at the centre{reason}"


def _value(value: str | None) -> str:
    if value is None:
        return "NULL"
    return value if value and value == value.strip() and value.isprintable() else repr(value)
