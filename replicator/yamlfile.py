"""Reads a YAML file into plain values and remembers the line of every key; puts secrets in.

Strict where PyYAML is not: a key written twice, a key that is no text and a merge key are errors. ``${NAME}`` is
replaced by an environment variable, ``${file:path}`` and a value ``file:path`` by a file's text (relative to the YAML
file), ``$${`` stands for ``${``. Messages never hold a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from replicator.errors import SettingsError

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
_REFERENCE = re.compile(r"\$(\$\{)|\$\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A read YAML file: ``values`` with secrets put in, and the 1-based line of every dotted key."""

    path: Path
    values: dict[str, Value]
    lines: Mapping[str, int] = field(repr=False)

    def line(self, key: str) -> int:
        """The line of a dotted key, else of the nearest key above it that stands in the file."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return self.lines.get(key, 1)

    def error(self, message: str, *, key: str = "", hint: str = "") -> SettingsError:
        """A SettingsError that names the file, the key's line and the key."""
        return SettingsError(message, file=str(self.path), line=self.line(key), key=key, hint=hint)


def read_yaml(path: Path, environment: Mapping[str, str], texts: re.Pattern[str]) -> YamlFile:
    """Read a YAML mapping. Values at keys that match ``texts`` stay as written (``007`` is text there).

    Raises SettingsError naming file, line and key.
    """
    try:
        written = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(
            f"cannot be read: {reason}", file=str(path), hint="give the path with -c, or write one: replicator init"
        ) from error
    reader = _Reader(path, environment, texts)
    try:
        node = yaml.compose(written, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SettingsError(f"not valid YAML: {error.problem}", file=str(path), line=line) from None
    except yaml.YAMLError as error:
        raise SettingsError(f"not valid YAML: {str(error).splitlines()[0]}", file=str(path)) from None
    if not isinstance(node, yaml.MappingNode):
        raise SettingsError("a topology is a mapping of keys", file=str(path), line=1, hint="see config/example.yaml")
    values = reader.build(node, "")
    assert isinstance(values, dict)
    return YamlFile(path, values, reader.lines)


class _Reader:
    """Turns YAML nodes into values while it notes lines."""

    def __init__(self, path: Path, environment: Mapping[str, str], texts: re.Pattern[str]) -> None:
        self.lines: dict[str, int] = {}
        self._path, self._environment, self._texts = path, environment, texts
        self._open: list[yaml.Node] = []
        self._loader = yaml.SafeLoader("")

    def build(self, node: yaml.Node, key: str) -> Value:
        self.lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        if any(node is outer for outer in self._open):
            raise self._error("an alias refers to what it stands in", key)
        self._open.append(node)
        built: Value
        if isinstance(node, yaml.SequenceNode):
            built = [self.build(item, f"{key}.{place}") for place, item in enumerate(node.value)]
        else:
            built = self._mapping(node, key)
        self._open.pop()
        return built

    def _mapping(self, node: yaml.Node, key: str) -> dict[str, Value]:
        built: dict[str, Value] = {}
        for key_node, value_node in node.value:
            name = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            inner = f"{key}.{name}" if key else str(name)
            line = key_node.start_mark.line + 1
            if name is None or key_node.tag == "tag:yaml.org,2002:merge":
                raise SettingsError("keys are plain text", file=str(self._path), line=line, key=key)
            if name in built:
                message = f"the key is written twice, first in line {self.lines[inner]}"
                raise SettingsError(message, file=str(self._path), line=line, key=inner, hint="keep one of them")
            self.lines[inner] = line
            built[name] = self.build(value_node, inner)
        return built

    def _scalar(self, node: yaml.ScalarNode, key: str) -> Value:
        plain = node.tag in _TAGS and not self._texts.fullmatch(key)
        if not plain:
            return self._fill(node.value, key)
        try:
            built: Value = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            raise self._error("not a valid number", key) from None
        return built

    def _fill(self, text: str, key: str) -> str:
        if text.startswith("file:"):
            return self._file(text[5:], key)
        return _REFERENCE.sub(lambda match: match.group(1) or self._reference(match.group(2), key), text)

    def _reference(self, name: str, key: str) -> str:
        if name.startswith("file:"):
            return self._file(name[5:], key)
        if name not in self._environment:
            hint = f"set {name} before starting replicator, or write $${{{name}}} if the braces are meant"
            raise self._error(f"the environment variable {name} is not set", key, hint)
        return self._environment[name]

    def _file(self, name: str, key: str) -> str:
        place = self._path.parent / name.strip()
        try:
            return place.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise self._error(
                f"the file {place} cannot be read: {reason}", key, "file: is relative to the YAML"
            ) from error

    def _error(self, message: str, key: str, hint: str = "") -> SettingsError:
        return SettingsError(message, file=str(self._path), line=self.lines.get(key, 0), key=key, hint=hint)


_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
