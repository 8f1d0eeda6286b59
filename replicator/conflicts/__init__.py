"""Recorded conflicts as a person handles them: found by number over all links, explained, resolved, decided again."""

from replicator.conflicts.explain import explain
from replicator.conflicts.find import Wanted, find_conflict, list_conflicts
from replicator.conflicts.record import left_row, marked_columns, sides, to_conflict
from replicator.conflicts.redo import Redone, apply_redone, other_plan, redo
from replicator.conflicts.resolve import Choice, Scene, chosen_row, look, settle

__all__ = [
    "Choice",
    "Redone",
    "Scene",
    "Wanted",
    "apply_redone",
    "chosen_row",
    "explain",
    "find_conflict",
    "left_row",
    "list_conflicts",
    "look",
    "marked_columns",
    "other_plan",
    "redo",
    "settle",
    "sides",
    "to_conflict",
]
