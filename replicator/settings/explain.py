"""What pydantic found wrong, in words of ours: file, line, key, and what would be right. Never with a value."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError

from replicator.errors import SettingsError
from replicator.yamlfile import YamlFile


def explain(file: YamlFile, error: ValidationError, root: type[BaseModel]) -> SettingsError:
    """The findings about a ``root`` model as one SettingsError, the others listed below the first."""
    found = sorted(_findings(file, error, root), key=lambda finding: (file.line(finding[0]), finding[1] != _UNKNOWN))
    key, message, hint = found[0]
    others = [f"\n  also line {file.line(other)}: {other}: {text}" for other, text, _ in found[1:5]]
    return file.error(message + "".join(others), key=key, hint=hint)


def _findings(file: YamlFile, error: ValidationError, root: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    for finding in error.errors(include_input=False, include_url=False, include_context=True):
        loc = [str(part) for part in finding["loc"] if part != "[key]"]
        if loc[:2] == ["sites_from", "0"] and "sites_from.0" not in file.lines:
            del loc[1]
        key, kind = ".".join(loc), finding["type"]
        context = finding.get("ctx", {})
        if kind == "extra_forbidden":
            known = _known_keys(finding["loc"], root)
            yield key, _UNKNOWN, f"known here: {', '.join(known)}" + suggest(loc[-1], known)
        elif kind == "missing":
            yield key, "this key is required", REQUIRED.get(loc[-1], "see config/reference.yaml")
        elif kind in ("enum", "literal_error"):
            key = key if key in file.lines else key.rpartition(".")[0]
            yield key, "not one of the allowed words", f"write {context['expected']}"
        elif kind == "tuple_type":
            yield key, "a list belongs here", f"write [{loc[-1]}_1, {loc[-1]}_2]"
        elif kind == "value_error":
            yield key, str(context["error"]), ""
        elif key == "topology":
            yield key, "a topology's name is 1 to 32 of a-z, 0-9 and _, and starts with a letter", "try: bloodlab"
        else:
            yield key, finding["msg"][:1].lower() + finding["msg"][1:], "see config/reference.yaml"


_UNKNOWN = "unknown key"
REQUIRED = {
    "topology": "give the topology a name: topology: bloodlab",
    "centre": "say where everything goes: centre: {url: postgresql://localhost/central}",
    "tables": 'say which tables: tables: [{name: "*"}]',
    "name": "name the policy, or the table",
    "table": "name the table",
    "site": "name the column that holds the site's name",
    "url": "give a database URL: postgresql://host/name or sqlite:///file",
}


def _known_keys(loc: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """The keys the model at ``loc`` knows."""
    model = root
    for part in loc[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            inner = _model_in(model.model_fields[part].annotation)
            model = inner or model
    return list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)


def suggest(word: str, known: Sequence[str]) -> str:
    """What a misspelt word may have meant, as the end of a hint."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
