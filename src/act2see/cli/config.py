"""`act2see config`: prints and checks configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from act2see.cli.complete import config_sources
from act2see.cli.options import Preset
from act2see.cli.output import can_print, note, say

app = typer.Typer(no_args_is_help=True, help="Print and check configurations.")


@app.command("show")
def show(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="PRESET|FILE", autocompletion=config_sources, help="The name of a preset, or a YAML file."
        ),
    ] = None,
    preset: Preset = None,
) -> None:
    """Print a configuration as YAML, with all its defaults.

    Needs nothing: without a name it prints the preset micro. Redirect the output to a file to start your own
    configuration.
    """
    from act2see.errors import ConfigError
    from act2see.graphs.config import load_config

    if source and preset:
        raise ConfigError("PRESET|FILE and --preset cannot be combined: leave one out")
    config = load_config(source or preset or "micro")
    text = config.to_yaml()
    if not can_print(text):
        text = config.to_yaml(ascii=True)
    typer.echo(text, nl=False)


@app.command("check")
def check(file: Annotated[Path, typer.Argument(help="A YAML file.", show_default=False)]) -> None:
    """Check a configuration: its keys, its tools and their options, the kind of its weights, and its local
    weights.

    Needs a YAML file. [bold]act2see doctor --config FILE[/bold] checks whether this machine can run it.
    """
    from act2see.graphs.config import load_config
    from act2see.graphs.names import check_name
    from act2see.graphs.parts import build_parts

    config = load_config(file)
    build_parts(config)
    if warning := check_name(config.reasoner):
        note(f"warning: {warning}")
    say(f"ok: {file} ({config.name}, tools: {', '.join(config.tools) or 'none'})")
