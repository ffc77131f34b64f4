"""Options that several commands share, so that each has one name and one help text everywhere."""

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
        help="A preset: micro (the default), paper, paper-24gb, laptop or api.",
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Your own configuration, as a YAML file.")
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="Accept requests under this host name, too; can be repeated.",
    ),
]
SavedTrace = Annotated[
    Path,
    typer.Argument(metavar="TRACE", help="A trace file, or a folder of `ask --save`.", show_default=False),
]


class Source(StrEnum):
    """Where training questions and human chains of thought come from."""

    world = "world"
    minerva = "minerva"
    causalvqa = "causalvqa"
    social_genome = "social-genome"
    jsonl = "jsonl"


QuestionSource = Annotated[
    Source, typer.Argument(help="The source of the questions; `world`, the board world, needs no file.")
]
SourceFile = Annotated[Path | None, typer.Argument(help="The file of the data set.")]
VideoFolder = Annotated[
    Path | None,
    typer.Option("--videos", metavar="DIR", help="The folder of the videos. Default: that of the file."),
]


def chosen_config(preset: str | None, file: Path | None) -> Config:
    """Return the configuration that `--preset` or `--config` names; micro if neither is given.

    Raises:
        ConfigError: Both are given, or the configuration is invalid.
    """
    from act2see.graphs.config import load_config, preset_data

    if preset is not None and file is not None:
        raise ConfigError(
            "--preset and --config exclude each other: "
            "to start from a preset, write `preset: NAME` into the file"
        )
    if file is not None:
        return load_config(file)
    return load_config(preset_data(preset or "micro"))


def config_option(preset: str | None, file: Path | None) -> str:
    """Return the option that chooses the same configuration again, for a command that is suggested."""
    if file is not None:
        return f" --config {file}"
    return f" --preset {preset}" if preset is not None else ""


def picture_or_time(given: str) -> str | float:
    """Return the path of an existing file as it is, and any other number as seconds."""
    if Path(given).exists():
        return given
    with suppress(ValueError):
        return float(given)
    return given
