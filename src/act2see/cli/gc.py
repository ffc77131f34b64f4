"""`act2see gc`: removes from the cache what nothing refers to (`garbage.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import say
from act2see.errors import StoreError
from act2see.tools.runtime.text import format_bytes


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    keep: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="A file or folder with traces or checkpoints outside the cache, whose frames stay; can be "
            "repeated.",
        ),
    ] = None,
    older_than: Annotated[
        int, typer.Option(min=1, metavar="DAYS", help="What was used in the last DAYS days stays.")
    ] = 30,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Remove frames, indexes and uploads that nothing refers to.

    References are found in the saved runs, the traces of servers and the runs of the page. Folders of
    [bold]ask --save[/bold] and of [bold]corpus[/bold] have their own pictures. Name other traces and the
    checkpoints of your own programs with --keep. Start with --dry-run.
    """
    from act2see.cli.garbage import KINDS, Places, find_garbage, remove
    from act2see.graphs.parts import storage_of
    from act2see.tools.video.store import FrameStore, default_cache

    cache, frames = storage_of(chosen_config(preset, config))
    store = FrameStore(frames)
    if not Path(store.location).is_absolute() or "://" in store.url:
        raise StoreError(f"{store.url} is not a folder: clean it with the tools of its service")
    roots = tuple(path.expanduser().absolute() for path in keep or ())
    places = Places(Path(store.location), tuple(dict.fromkeys((cache, default_cache()))), roots)
    found = find_garbage(places, older_than)
    removed = [one for one in found if dry_run or remove(one, places, older_than)]
    for kind in KINDS:
        sizes = [one.size for one in removed if one.kind == kind]
        if sizes:
            say(f"{kind}: {len(sizes)}, {format_bytes(sum(sizes))}")
    total = format_bytes(sum(one.size for one in removed))
    if dry_run:
        say(
            f"{total} would be freed; run it without --dry-run to remove them"
            if removed
            else "nothing to remove"
        )
    else:
        say(f"{total} freed" if removed else "nothing to remove")
