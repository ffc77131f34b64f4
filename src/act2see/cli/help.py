"""Help that is whole at any width: the commands' own classes.

Typer's tables cut what does not fit. Here a name stands before its description where there is room, and above
it where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

_WIDEST = 100  # longer lines are hard to read
_NARROWEST = 60  # below this a description stands under its name
_COLUMN = 30  # a longer name gets a line of its own
_NUMBER = re.compile(r"<(?:int|float)(?: range)?>")
_TEXT = re.compile(r" ?<(?:str|path|list\[.*?\])>")


class _Helps:
    """What commands and groups share."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        console = Console(highlight=False)
        console.print(Text.assemble(("Usage: ", "bold"), _usage(self, ctx)))
        if self.help:
            for paragraph in re.split(r"\n\s*\n", self.help.strip()):
                console.print()
                console.print(Text.from_markup(" ".join(paragraph.split())), width=_width(console))
        for title, rows in _panels(self, ctx):
            console.print()
            console.print(Text(title, "bold"))
            _print_rows(console, rows)


class Command(_Helps, TyperCommand):
    """A command whose help is whole at any width."""


class Group(_Helps, TyperGroup):
    """A group of commands whose help is whole at any width."""


def set_classes(app: typer.Typer) -> None:
    """Give every command and every group under `app` a class of this file."""
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        group.cls = Group
        if group.typer_instance:
            set_classes(group.typer_instance)


def _usage(command: Any, ctx: Any) -> str:
    return " ".join(command.get_usage(ctx).removeprefix("Usage:").split())


def _panels(command: Any, ctx: Any) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """Arguments, options by their panels, commands: each with its rows."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None or getattr(parameter, "hidden", False):
            continue
        argument = parameter.param_type_name == "argument"
        title = getattr(parameter, "rich_help_panel", None) or ("Arguments" if argument else "Options")
        name = re.sub(r"(<float(?:,float)*>)", lambda m: ",".join("X" for _ in m[1].split(",")), record[0])
        name = _TEXT.sub("" if argument else " TEXT", _NUMBER.sub("N", name))
        panels.setdefault(title, []).append((name, record[1] or ""))
    commands = (
        [(n, command.get_command(ctx, n)) for n in command.list_commands(ctx)]
        if isinstance(command, TyperGroup)
        else []
    )
    shown = [(n, _first_sentences(c)) for n, c in commands if c is not None and not c.hidden]
    return [*panels.items(), *([("Commands", shown)] if shown else [])]


def _first_sentences(command: Any) -> str:
    """The first paragraph of a command's help."""
    paragraph = re.split(r"\n\s*\n", (command.help or "").strip())[0]
    return Text.from_markup(" ".join(paragraph.split())).plain


def _print_rows(console: Console, rows: list[tuple[str, str]]) -> None:
    width = _width(console)
    if width < _NARROWEST:
        for name, said in rows:
            console.print(Padding(Text(name, "cyan", overflow="fold"), (0, 0, 0, 2)), width=width)
            console.print(Padding(Text(said, overflow="fold"), (0, 0, 0, 6)), width=width)
        return
    column = min(_COLUMN, max(len(name) for name, _ in rows))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=column)
    table.add_column(overflow="fold")
    for name, said in rows:
        if len(name) > column:
            _print_table(console, table, width)
            console.print(Padding(Text(name, "cyan", overflow="fold"), (0, 0, 0, 2)), width=width)
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(width=column)
            table.add_column(overflow="fold")
            name = ""
        table.add_row(Text(name, "cyan"), Text(said))
    _print_table(console, table, width)


def _print_table(console: Console, table: Table, width: int) -> None:
    if table.row_count:
        console.print(Padding(table, (0, 0, 0, 2)), width=width)


def _width(console: Console) -> int:
    return min(console.width, _WIDEST)
