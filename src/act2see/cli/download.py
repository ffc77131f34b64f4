"""`act2see download`: fetch the weights of a configuration, ready to be loaded.

Only what is loaded is fetched (`tools/runtime/hub.py`). A gated repository does not keep the others back; a
hub that cannot be reached does.
"""

from __future__ import annotations

from typing import Annotated

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import complain, progress_bar, say, size


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Weights by their names on the hub; else those of a preset.",
            show_default=False,
        ),
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="Another hub (default: HF_ENDPOINT).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched, and how much.")
    ] = False,
) -> None:
    """Fetch weights from the hub: safetensors, JSON and tokenizer files only. Run it again to go on."""
    from functools import partial

    from act2see.cli.runs import not_waited_for
    from act2see.errors import ConfigError, UnreachableError, WeightsError
    from act2see.graphs.needs import Needed, needed_weights
    from act2see.tools.runtime.catalogue import catalogue
    from act2see.tools.runtime.hub import fetch, list_files

    if names and (preset or config):
        raise ConfigError("name weights, or a preset, or a config file: not several of them")
    chosen = chosen_config(preset, config)
    named = [Needed("weights", n, "", None, None, known=catalogue().get(n)) for n in names or ()]
    wanted = {n.name: n for n in named or needed_weights(chosen) if n.of_hub}
    if not wanted and names:
        say(f"nothing to download: {', '.join(names)} is not on a hub")
        return
    if not wanted:
        say(f"{chosen.name}: nothing to download, its weights are local")
        return
    failed = 0
    for name, needed in wanted.items():
        licence = f", {needed.known.licence}" if needed.known else ""
        try:
            files = not_waited_for(partial(list_files, name, without=needed.without, endpoint=endpoint))
            say(f"{name}: {len(files.sizes)} files, {size(files.bytes)}{licence}")
            if dry_run:
                for file, n in sorted(files.sizes.items()):
                    say(f"  {file} ({size(n)})")
                continue
            with progress_bar() as bar:
                task = bar.add_task(name, total=files.bytes)
                report = partial(bar.advance, task)
                folder = not_waited_for(partial(fetch, files, endpoint=endpoint, report=report))
            say(f"  in {folder}")
        except UnreachableError:
            raise
        except (WeightsError, ConfigError) as e:
            complain(str(e))
            failed += 1
    if failed:
        raise typer.Exit(2)
    given = f" --config {config}" if config else f" --preset {preset}" if preset else ""
    if not names:
        say(f"Next: act2see doctor{given}", "bold green")
