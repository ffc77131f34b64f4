"""Options that several commands share, so that their names and help texts are the same everywhere."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.complete import presets
from act2see.errors import ConfigError

if TYPE_CHECKING:
    from act2see.graphs.config import Config

Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        autocompletion=presets,
        help="A preset: micro (the default), paper, paper-24gb, laptop, laptop-transformers, ollama or api.",
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A YAML file with your own configuration.")
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="Another host name under which the server accepts requests; can be repeated.",
    ),
]
SavedTrace = Annotated[
    Path,
    typer.Argument(metavar="TRACE", help="A trace file, or a folder of `ask --save`.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file even if act2see did not write it.")]


class Source(StrEnum):
    """The sources of training questions and human chains of thought."""

    world = "world"
    minerva = "minerva"
    causalvqa = "causalvqa"
    social_genome = "social-genome"
    jsonl = "jsonl"


QuestionSource = Annotated[
    Source, typer.Argument(help="The source of the questions. `world`, the board world, needs no file.")
]
SourceFile = Annotated[Path | None, typer.Argument(help="The file of the data set.")]
VideoFolder = Annotated[
    Path | None,
    typer.Option(
        "--videos", metavar="DIR", help="The folder of the videos. Default: the folder of the file."
    ),
]


def chosen_config(preset: str | None, file: Path | None) -> Config:
    """Return the configuration that `--preset` or `--config` names; micro if neither is given.

    Args:
        preset: The value of `--preset`.
        file: The value of `--config`.

    Raises:
        ConfigError: Both options are given, or the configuration is invalid.
    """
    from act2see.graphs.config import load_config, preset_data

    if preset is not None and file is not None:
        raise ConfigError(
            "--preset and --config cannot be combined: "
            "to start from a preset, write `preset: NAME` in the file"
        )
    if file is not None:
        return load_config(file)
    return load_config(preset_data(preset or "micro"))


def config_option(preset: str | None, file: Path | None) -> str:
    """Return the option that selects the same configuration in a suggested command."""
    if file is not None:
        return f" --config {file}"
    return f" --preset {preset}" if preset is not None else ""


def picture_or_time(given: str) -> str | float:
    """Return a number as seconds, and anything else as a path. An existing file is always a path."""
    if Path(given).exists():
        return given
    with suppress(ValueError):
        return float(given)
    return given
