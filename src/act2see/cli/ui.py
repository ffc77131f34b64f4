"""`act2see ui`: the web page."""

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
        str, typer.Option(help="The address to listen on; anybody who reaches it can ask and see all runs.")
    ] = "127.0.0.1",
    allow_host: AllowHost = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port. Default: the first free one from 7860 on."),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A folder whose videos are offered; can be repeated."),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder for runs and uploads. Default: in the cache folder."),
    ] = None,
    max_upload: Annotated[
        int, typer.Option(min=1, metavar="MB", help="The largest upload, in megabytes.")
    ] = 2048,
) -> None:
    """Open a web page: choose or upload a clip, ask, watch the chain of thought, compare runs. Stop it with
    Ctrl-C."""
    try:
        import gradio  # noqa: F401
    except ImportError as e:
        raise ConfigError("the web page needs Gradio: pip install 'act2see[ui]'") from e
    from tempfile import TemporaryDirectory

    from act2see.cli.runs import run_until_done
    from act2see.serve.hosts import allowed_hosts
    from act2see.serve.ui.catalog import VideoCatalog
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
    # At the first event Gradio asks matplotlib for its backend. Searching for one would block the page for a
    # second.
    os.environ.setdefault("MPLBACKEND", "agg")
    site = Site(configs, catalog, Runs(kept), max_upload, hosts)
    # Gradio receives uploads in one folder for all its pages. A folder of our own is on the disk that keeps
    # them.
    with listen(host, port) as listening, TemporaryDirectory(prefix=".receiving-", dir=kept) as receiving:
        os.environ.setdefault("GRADIO_TEMP_DIR", receiving)
        # When a service manager stops the page, it exits in order, so that the folder is removed.
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
    """Return the folder for runs, which exists then. Raises `StoreError` if it cannot be made."""
    folder = runs.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StoreError(
            f"runs cannot be kept in {folder} ({e.strerror}): name another folder with --runs"
        ) from e
    return folder


def samples(folder: Path) -> list[CatalogVideo]:
    """Write the clips of `act2see demo` to a folder, and return them with their questions."""
    from act2see.cli.demo import ITEMS
    from act2see.micro.questions import make_item
    from act2see.micro.world import write_clip
    from act2see.serve.ui.catalog import CatalogVideo
    from act2see.tools.runtime.files import whole_file

    clips = []
    for family, index in ITEMS:
        item = make_item(family, index, "test")
        path = folder / f"{family}-{index}.mp4"
        with whole_file(path) as new:
            write_clip(item.clip, new)
        clips.append(CatalogVideo(f"sample: {family}", str(path), item.text, tuple(item.options)))
    return clips
