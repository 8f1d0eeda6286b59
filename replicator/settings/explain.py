"""What pydantic found wrong, in words of ours: file, line, key, and what would be right. Never with a value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

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
        if kind == "extra_forbidden":
            known = _known_keys(finding["loc"], root)
            yield key, _UNKNOWN, f"known here: {', '.join(known)}" + suggest(loc[-1], known)
        else:
            if kind in ("enum", "literal_error") and key not in file.lines:
                key = key.rpartition(".")[0]
            yield key, *_told(finding, key, root)


def _told(finding: ErrorDetails, key: str, root: type[BaseModel]) -> tuple[str, str]:
    """What is wrong with a key that is known, and what would be right."""
    kind, loc, context = finding["type"], [str(part) for part in finding["loc"]], finding.get("ctx", {})
    if kind == "missing":
        told = "this key is required", REQUIRED.get(loc[-1], "see config/reference.yaml")
    elif kind in ("enum", "literal_error"):
        told = "not one of the allowed words", f"write {_allowed(context['expected'], loc)}"
    elif kind == "tuple_type":
        told = "a list belongs here", f"write [{loc[-1]}_1, {loc[-1]}_2]"
    elif kind == "value_error":
        told = str(context["error"]), ""
    elif key == "topology":
        told = "a topology's name is 1 to 32 of a-z, 0-9 and _, and starts with a letter", "try: bloodlab"
    elif kind in ("model_type", "model_attributes_type"):
        known = _known_keys((*finding["loc"], ""), root)
        told = "keys with values belong here", f"write {{{known[0]}: …}}; known here: {', '.join(known)}"
    elif kind in _BOUNDS:
        told = _BOUNDS[kind].format(*map(_plain, context.values())), "see config/reference.yaml"
    else:
        told = _WANTED.get(kind, (finding["msg"][:1].lower() + finding["msg"][1:], "see config/reference.yaml"))
    return told


_UNKNOWN = "unknown key"
_NUMBER = "a number belongs here", "write it without quotes, as in 30"
_WHOLE_NUMBER = "a whole number belongs here", "write it without quotes, as in 30"
_TEXT = ("one text belongs here, not a list or keys", 'write it plainly or in quotes, as in "2"')
_MAPPING = ("names with values belong here", 'write {name: "value"}')
_WANTED = {
    "float_parsing": _NUMBER, "float_type": _NUMBER, "finite_number": _NUMBER,
    "int_parsing": _WHOLE_NUMBER, "int_type": _WHOLE_NUMBER, "int_from_float": _WHOLE_NUMBER,
    "string_type": _TEXT, "dict_type": _MAPPING, "mapping_type": _MAPPING,
}  # fmt: skip
"""What pydantic asks for → what belongs here, and how it is written."""
_BOUNDS = {
    "greater_than": "has to be more than {}", "greater_than_equal": "has to be {} at least",
    "less_than": "has to be less than {}", "less_than_equal": "has to be {} at most",
    "string_too_short": "has to have {} character at least", "string_too_long": "has to have {} characters at most",
}  # fmt: skip
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


def _plain(bound: object) -> object:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _allowed(expected: str, loc: Sequence[str]) -> str:
    """The words that may stand at a place. Of policies those that need no more words: a rule is written as its text."""
    words = re.findall(r"'([^']*)'", expected)
    if "merge_columns" not in words:
        return expected
    refused = {"rule", "merge_columns" if "columns" in loc else "add"}
    own = "" if {"columns", "kinds"} & set(loc) else "; or your own rule: {sql: …}"
    return f"one of {', '.join(word for word in words if word not in refused)}{own}"


def suggest(word: str, known: Sequence[str]) -> str:
    """What a misspelt word may have meant, as the end of a hint; never the word itself."""
    close = difflib.get_close_matches(word, [each for each in known if each != word], 1)
    return f"; did you mean {close[0]}?" if close else ""
