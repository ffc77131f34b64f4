"""Tab completion of presets, tools and saved runs. A completion never fails and changes nothing.

Typer removes the candidates that do not begin with the typed text.
"""

from __future__ import annotations

from collections.abc import Iterator

import typer


def presets() -> list[str]:
    """Return the names of the presets."""
    from act2see.graphs.config import PRESETS

    return list(PRESETS)


def config_sources(incomplete: str) -> Iterator[str]:
    """Yield the presets, and the YAML files that begin with the typed text."""
    from glob import escape, glob

    yield from presets()
    for file in sorted(glob(f"{escape(incomplete)}*")):
        if file.endswith((".yaml", ".yml")):
            yield file


def tool_tags(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the tags of the tools that the command's configuration declares.

    After a comma the list continues: `retrieve,` offers `retrieve,generate`.
    """
    from act2see.errors import Act2SeeError
    from act2see.graphs.config import load_config

    start, comma, _ = incomplete.rpartition(",")
    chosen = context.params.get("config") or context.params.get("preset") or "micro"
    try:
        tags = list(load_config(chosen).tools)
    except Act2SeeError:
        return
    for tag in tags:
        if tag not in start.split(","):
            yield f"{start}{comma}{tag}"


def run_ids() -> list[str]:
    """Return the ids of the latest saved runs."""
    from act2see.cli.runs import saved_ids

    return saved_ids()
