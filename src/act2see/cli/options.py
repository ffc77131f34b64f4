"""Which configuration: `--preset NAME` or `--config FILE`, the same for every command."""

from __future__ import annotations

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
    Path | None, typer.Option("--config", metavar="FILE", help="Your own configuration, in YAML.")
]


def chosen_config(preset: str | None, file: Path | None) -> Config:
    """The configuration that the two options name. Raises `ConfigError`."""
    from act2see.graphs.config import load_config, preset_data

    if preset is not None and file is not None:
        raise ConfigError(
            "--preset and --config exclude each other: write `preset: NAME` into the file to start from one"
        )
    return load_config(file) if file is not None else load_config(preset_data(preset or "micro"))
