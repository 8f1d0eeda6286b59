"""A catalogue as text, for it to be kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from replicator.model.catalogue import Catalogue, ColumnShape, ForeignKeyShape, TableName, TableShape, UniqueShape
from replicator.model.words import Engine


def kept(catalogue: Catalogue) -> Catalogue:
    """What is kept of a catalogue: all but the row counts, which change all the time."""
    tables = {name: replace(shape, estimate=0) for name, shape in catalogue.tables.items()}
    return replace(catalogue, tables=tables)


def encode_catalogue(catalogue: Catalogue) -> str:
    """A catalogue as JSON."""
    tables = [asdict(shape) for shape in catalogue.tables.values()]
    return json.dumps({"engine": catalogue.engine, "version": catalogue.version, "tables": tables}, ensure_ascii=False)


def decode_catalogue(text: str) -> Catalogue:
    """The catalogue that ``encode_catalogue`` made the text of."""
    document = json.loads(text)
    shapes = [_shape(each) for each in document["tables"]]
    return Catalogue(Engine(document["engine"]), document["version"], {shape.name: shape for shape in shapes})


def _shape(given: Mapping[str, Any]) -> TableShape:
    foreign = [
        _tuples(each) | {"parent": TableName(**each["parent"]), "parent_columns": tuple(each["parent_columns"])}
        for each in given["foreign_keys"]
    ]
    return TableShape(
        name=TableName(**given["name"]),
        columns=tuple(ColumnShape(**each) for each in given["columns"]),
        key=tuple(given["key"]),
        uniques=tuple(UniqueShape(**_tuples(each)) for each in given["uniques"]),
        foreign_keys=tuple(ForeignKeyShape(**each) for each in foreign),
        kind=given["kind"],
        estimate=given["estimate"],
    )


def _tuples(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
