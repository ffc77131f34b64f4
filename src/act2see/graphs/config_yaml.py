"""Reading the YAML of a config file within bounds.

A config file may come from a stranger. Aliases can make a short file mean a billion values, brackets can nest
it until the interpreter's stack ends, and numbers can have thousands of digits. So the size of the file, the
number of its values (each alias counted with all that it repeats), their depth and the length of numbers are
limited. They are counted while the file is read: what is too large is never made.

Duplicate keys are rejected, because PyYAML silently takes the last one. A date stays text (`2024-10-21` is
the version of an API), since JSON and checkpoints have no dates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from act2see.errors import ConfigError
from act2see.tools.runtime.files import read_file
from act2see.tools.runtime.text import quote_text

_LARGEST = 128 << 10  # bytes: PyYAML needs about two seconds for them
_MOST_VALUES = 10_000
_DEEPEST = 32
_LONGEST_NUMBER = 100  # characters
_TAG = "tag:yaml.org,2002:"


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: The file cannot be read, is not YAML, is too large, has no keys, or has a duplicate key.
    """
    try:
        text = read_file(path, _LARGEST).decode()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as e:  # ValueError: a name with a NUL, or text that is not UTF-8
        why = getattr(e, "strerror", None) or e
        raise ConfigError(f"the config file {path} cannot be read: {why}") from e
    try:
        data = yaml.load(text.removeprefix("\ufeff"), Loader=_Loader)
    except _UnfitError as e:
        raise ConfigError(f"{path}, line {e.line}: {e}") from e
    except Exception as e:  # for a wrong value of an explicit tag (`!!int ""`) PyYAML raises any error
        raise ConfigError(f"{path} is not YAML: {quote_text(str(e), 300)}") from e
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold keys and values: `act2see config show` prints an example")
    return data


class _UnfitError(Exception):
    """The file is YAML, but not that of a configuration."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem)
        self.line = mark.line + 1


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits, without duplicate keys, and with dates as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own name
        first: [(tag, form) for tag, form in resolvers if tag != f"{_TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        # Of each node, by its id: the number of values and the depth, with all aliases in their places.
        self._sizes: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:  # it is not complete yet
                raise _UnfitError("a value cannot contain itself: remove the alias", mark)
            return node
        self._depth += 1
        self._check_depth(self._depth, mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None:
            self._measure(node)
        return node

    def _measure(self, node: yaml.Node) -> None:
        """Count the values of a node, whose parts are counted already."""
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        sizes = [self._sizes[id(part)] for part in parts]
        values = 1 + sum(values for values, _ in sizes)
        depth = 1 + max((depth for _, depth in sizes), default=0)
        if values > _MOST_VALUES:
            raise _UnfitError(
                f"there are more than {_MOST_VALUES:,} values, each alias counted in full: remove some",
                node.start_mark,
            )
        self._check_depth(depth, node.start_mark)
        self._sizes[id(node)] = values, depth

    def _check_depth(self, depth: int, mark: yaml.Mark) -> None:
        if depth > _DEEPEST:
            raise _UnfitError(f"values are nested more than {_DEEPEST} deep: write them flatter", mark)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # This runs before merge keys (`<<`) are resolved, because a mapping may override their keys.
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                problem = f"duplicate key {key.value!r}, first in line {lines[name]}; rename or remove one"
                raise _UnfitError(problem, key.start_mark)
            lines[name] = line
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Return a number. YAML has numbers to the base of 60, whose time grows with the square of length."""
        if len(node.value) > _LONGEST_NUMBER:
            raise _UnfitError(
                f"a number has more than {_LONGEST_NUMBER} characters: put it in quotes if it is text",
                node.start_mark,
            )
        is_int = node.tag == f"{_TAG}int"
        number: int | float = self.construct_yaml_int(node) if is_int else self.construct_yaml_float(node)
        return number


for _kind in ("int", "float"):
    _Loader.add_constructor(f"{_TAG}{_kind}", _Loader.construct_number)
