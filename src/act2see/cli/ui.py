"""`act2see ui`: serves the web page."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.options import AllowHost, ConfigFile, Preset, chosen_config
from act2see.cli.output import interrupted, note, say
from act2see.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from act2see.graphs.config import Config
    from act2see.serve.ui.catalog import CatalogVideo


def ui(
    preset: Preset = None,
    config: ConfigFile = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on. Anyone who reaches it can ask and see all runs.")
    ] = "127.0.0.1",
    allow_host: AllowHost = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port. Default: the first free port from 7860."),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A folder whose videos are offered; can be repeated."),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder for runs and uploads. Default: `runs` in the cache folder."
        ),
    ] = None,
    max_upload: Annotated[
        int, typer.Option(min=1, metavar="MB", help="The maximum size of an upload, in megabytes.")
    ] = 2048,
) -> None:
    """Serve a web page: choose or upload a video, ask, watch the chain of thought, compare runs.

    Needs the ui extra. It prints the address to open in a browser. Ctrl-C stops it.
    """
    try:
        import gradio  # noqa: F401
    except ImportError as e:
        raise ConfigError("`act2see ui` needs the ui extra: pip install 'act2see[ui]'") from e
    from act2see.cli.runs import run_until_done
    from act2see.serve.hosts import allowed_hosts
    from act2see.serve.ui.catalog import VideoCatalog
    from act2see.serve.ui.receiving import receiving_folder
    from act2see.serve.ui.runs import Runs
    from act2see.serve.ui.server import Site, listen, serve
    from act2see.tools.video.folders import Folders
    from act2see.tools.video.store import default_cache

    hosts = sorted(allowed_hosts(*(allow_host or ()), bound=host))
    configs = _offered_configs(chosen_config(preset, config))
    kept = _make_folder(runs or default_cache() / "runs")
    catalog = VideoCatalog(
        kept / "uploads", samples(default_cache() / "samples"), Folders(folder) if folder else None
    )
    # At the first event Gradio asks matplotlib for its backend. Name one, because the search for one blocks
    # the page for a second.
    os.environ.setdefault("MPLBACKEND", "agg")
    site = Site(configs, catalog, Runs(kept), max_upload, hosts)
    # By default all Gradio pages receive uploads in one folder. Our own is on the disk that stores them.
    with listen(host, port) as listening, receiving_folder(kept) as receiving:
        os.environ.setdefault("GRADIO_TEMP_DIR", str(receiving))
        # Exit normally when a service manager stops the page, so that the folder is removed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        note("starting ...")
        try:
            run_until_done(serve(site, listening, lambda url: say(f"open {url} (Ctrl-C stops it)")))
        except KeyboardInterrupt:
            raise interrupted("stopped") from None


def _offered_configs(chosen: Config) -> dict[str, Config]:
    """Return the chosen configuration and the other presets, by name."""
    from act2see.graphs.config import PRESETS, load_config, preset_data

    configs = {chosen.name: chosen}
    for name in PRESETS:
        if name != chosen.name:
            configs[name] = load_config(preset_data(name))
    return configs


def _make_folder(runs: Path) -> Path:
    """Create the folder for runs and return its path. Raises `StoreError` if it cannot be created."""
    folder = runs.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StoreError(
            f"cannot create the folder {folder} ({e.strerror}): choose another with --runs"
        ) from e
    return folder


def samples(folder: Path) -> list[CatalogVideo]:
    """Write the clips of `act2see demo` to a folder, and return them with their questions."""
    from act2see.cli.demo import SHOWN, item_of
    from act2see.micro.world import write_clip
    from act2see.serve.ui.catalog import CatalogVideo
    from act2see.tools.runtime.files import whole_file

    videos = []
    for shown in SHOWN:
        item, family = item_of(shown), shown.family
        path = folder / f"{family}-{shown.number}.mp4"
        with whole_file(path) as new:
            write_clip(item.clip, new)
        videos.append(CatalogVideo(f"sample: {family}", str(path), item.text, tuple(item.options)))
    return videos
