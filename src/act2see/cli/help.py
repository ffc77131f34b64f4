"""Classes of commands and groups whose help fits any terminal width.

Typer's tables cut off text that does not fit. Here a name is printed beside its description if there is room
for both, and above it otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

_MAX_WIDTH = 100  # longer lines are hard to read
_MIN_WIDTH = 60  # in a narrower terminal, descriptions are printed below names
_MAX_NAME = 30  # a longer name gets a line of its own
_NUMBER = re.compile(r"<(?:int|float)(?: range)?>")
_NUMBERS = re.compile(r"<float(?:,float)*>")
_TEXT = re.compile(r" ?<(?:str|path|list\[.*?\])>")

Rows = list[tuple[str, str]]
"""Names and descriptions."""


class _Helps:
    """Mixin that prints the help of a command or a group."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        console = Console(highlight=False)
        usage = " ".join(self.get_usage(ctx).removeprefix("Usage:").split())
        console.print(Text.assemble(("Usage: ", "bold"), usage))
        for paragraph in _paragraphs(self):
            console.print()
            console.print(Text.from_markup(paragraph), width=_width(console))
        for title, rows in _panels(self, ctx).items():
            console.print()
            console.print(Text(title, "bold"))
            _print_rows(console, rows)


class Command(_Helps, TyperCommand):
    """A command whose help fits any width."""


class Group(_Helps, TyperGroup):
    """A group of commands whose help fits any width."""


def set_classes(app: typer.Typer) -> None:
    """Give every command and group of `app` a class of this module."""
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        group.cls = Group
        if group.typer_instance:
            set_classes(group.typer_instance)


def _paragraphs(command: Any) -> list[str]:
    """Return the paragraphs of a command's help, each on one line."""
    if not command.help:
        return []
    return [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", command.help.strip())]


def _panels(command: Any, ctx: Any) -> dict[str, Rows]:
    """Return the arguments, options and commands, by the title of their section."""
    panels: dict[str, Rows] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None or getattr(parameter, "hidden", False):
            continue
        is_argument = parameter.param_type_name == "argument"
        title = getattr(parameter, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
        panels.setdefault(title, []).append((_shorten_name(record[0], is_argument), record[1] or ""))
    if commands := list(_subcommands(command, ctx)):
        panels["Commands"] = commands
    return panels


def _shorten_name(name: str, is_argument: bool) -> str:
    """Replace Typer's types: `<int>` by `N`, `<float,float>` by `X,X`, `<str>` by `TEXT`."""
    name = _NUMBERS.sub(lambda found: ",".join("X" for _ in found[0].split(",")), name)
    name = _NUMBER.sub("N", name)
    return _TEXT.sub("" if is_argument else " TEXT", name)


def _subcommands(group: Any, ctx: Any) -> Iterator[tuple[str, str]]:
    """Yield the commands of a group with the first paragraphs of their help."""
    if not isinstance(group, TyperGroup):
        return
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is not None and not command.hidden:
            first = "".join(_paragraphs(command)[:1])
            yield name, Text.from_markup(first).plain


def _print_rows(console: Console, rows: Rows) -> None:
    width = _width(console)
    if width < _MIN_WIDTH:
        for name, description in rows:
            _print_name(console, name, width)
            console.print(Padding(Text(description, overflow="fold"), (0, 0, 0, 6)), width=width)
        return
    column = min(_MAX_NAME, max(len(name) for name, _ in rows))
    for name, description in rows:
        if len(name) > column:
            _print_name(console, name, width)
            name = ""
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=column)
        table.add_column(overflow="fold")
        table.add_row(Text(name, "cyan"), Text(description))
        console.print(Padding(table, (0, 0, 0, 2)), width=width)


def _print_name(console: Console, name: str, width: int) -> None:
    console.print(Padding(Text(name, "cyan", overflow="fold"), (0, 0, 0, 2)), width=width)


def _width(console: Console) -> int:
    return min(console.width, _MAX_WIDTH)
