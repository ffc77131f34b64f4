"""`act2see download`: downloads the weights of a configuration.

It downloads only files that are loaded (`tools/runtime/hub.py`). If a repository is gated, the others are
still downloaded. If the hub cannot be reached, the command ends.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config, config_option
from act2see.cli.output import complain, progress_bar, say
from act2see.errors import ConfigError, UnreachableError, WeightsError
from act2see.tools.runtime.text import format_bytes

if TYPE_CHECKING:
    from act2see.graphs.needs import Needed


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Names of weights on the hub: owner/name, or owner/name-GGUF:Q8_0 of a GGUF model. Default: "
            "the weights of the preset.",
            show_default=False,
        ),
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="URL", help="The address of the hub. Default: HF_ENDPOINT."),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision",
            metavar="REV",
            help="The commit, branch or tag of the one NAME, or write NAME@REV. Default: that of the "
            "catalogue, else the newest.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files and their sizes.")] = False,
) -> None:
    """Download the weights of a preset from the hub: safetensors, JSON and tokenizer files, or for llama.cpp
    a GGUF model with its vision file.

    Needs a network connection, and for gated weights a login with [bold]hf auth login[/bold]. Run it again to
    continue an interrupted download.
    """
    from act2see.graphs.needs import Needed, needed_weights
    from act2see.tools.runtime.catalogue import known_weights
    from act2see.tools.runtime.weights import Wanted, what_is_missing

    if names and (preset or config):
        raise ConfigError("weights, --preset and --config cannot be combined: use one of them")
    if revision is not None:
        names = [_with_revision(names or [], revision)]
    chosen = chosen_config(preset, config)
    if names:
        parts = [Needed("weights", name, "", None, None, known=known_weights(name)) for name in names]
    else:
        parts = needed_weights(chosen)
    wanted = {part.name: part for part in parts if part.of_hub}
    failed = False
    for name in names or ():
        if name not in wanted and (problem := what_is_missing(Wanted("weights", name))):
            complain(problem)
            failed = True
    if not wanted and not failed:
        say(_nothing_to_download(names or [], chosen.name))
        return
    for part in wanted.values():
        try:
            _fetch(part, endpoint, dry_run)
        except UnreachableError:
            raise
        except (WeightsError, ConfigError) as e:
            complain(str(e))
            failed = True
    if failed:
        raise typer.Exit(2)
    if not names:
        say(f"Next: act2see doctor{config_option(preset, config)}", "bold green")


def _with_revision(names: list[str], revision: str) -> str:
    """Return the one name with a revision.

    Raises:
        ConfigError: There is no single name, or it has a revision.
    """
    if len(names) != 1:
        raise ConfigError("--revision needs the name of one repository; of several, write each as NAME@REV")
    if "@" in names[0]:
        raise ConfigError(f"{names[0]} names a revision itself: leave out --revision")
    return f"{names[0]}@{revision}"


def _nothing_to_download(names: list[str], preset: str) -> str:
    if names:
        return f"nothing to download: not on a hub: {', '.join(names)}"
    return f"{preset}: nothing to download, its weights are local"


def _fetch(part: Needed, endpoint: str | None, dry_run: bool) -> None:
    """Download the weights of one part, or list their files.

    Raises:
        UnreachableError: The hub cannot be reached.
        WeightsError: These weights cannot be downloaded.
    """
    from act2see.cli.runs import run_in_daemon
    from act2see.tools.runtime.hub import fetch, list_files, missing_bytes
    from act2see.tools.runtime.revisions import split_revision

    files = run_in_daemon(partial(list_files, part.name, without=part.without, endpoint=endpoint))
    licence = f", {part.known.licence}" if part.known else ""
    say(f"{part.name}: {len(files.sizes)} files, {format_bytes(files.bytes)}{licence}")
    say(f"  commit {files.commit}{'' if files.revision else ', the newest'}")
    if dry_run:
        for file, n in sorted(files.sizes.items()):
            say(f"  {file} ({format_bytes(n)})")
        return
    is_here = not missing_bytes(files)
    with progress_bar() as bar:
        task = bar.add_task(part.name, total=files.bytes)
        report = partial(bar.advance, task)
        folder = run_in_daemon(partial(fetch, files, endpoint=endpoint, report=report))
    say(f"  {'already here, ' if is_here else ''}in {folder}")
    if split_revision(part.name)[1] is not None:
        say(f"  to use it, set `weights: {part.name}`")
