"""`act2see ui`: the web page."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import err, interrupted, say
from act2see.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from act2see.serve.ui.shelf import Clip


def ui(
    preset: Preset = None,
    config: ConfigFile = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; anybody who reaches it may ask and see all runs.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another name that the page is reached by, and whose pages may use it; may be given several times.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port (default: the first free one from 7860 on)."),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A folder of videos to offer; may be given several times."),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where runs and uploads are kept (default: in the cache folder)."),
    ] = None,
    max_upload: Annotated[int, typer.Option(min=1, metavar="MB", help="The largest upload.")] = 2048,
) -> None:
    """Open a web page: pick or upload a clip, ask, watch the answer come about, compare runs. Ctrl-C stops
    it."""
    try:
        import gradio  # noqa: F401
    except ImportError as e:
        raise ConfigError("the web page needs Gradio: pip install 'act2see[ui]'") from e
    from act2see.cli.runs import run_until_done
    from act2see.graphs.config import PRESETS, load_config, preset_data
    from act2see.serve.hosts import allowed_hosts
    from act2see.serve.ui.runs import Runs
    from act2see.serve.ui.server import Site, listen, serve
    from act2see.serve.ui.shelf import VideoCatalog
    from act2see.tools.video.folders import Folders
    from act2see.tools.video.store import default_cache

    hosts = sorted(allowed_hosts(*(allow_host or ()), bound=host))
    chosen = chosen_config(preset, config)
    configs = {chosen.name: chosen} | {
        name: load_config(preset_data(name)) for name in PRESETS if name != chosen.name
    }
    kept = (runs or default_cache() / "runs").expanduser().absolute()
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StoreError(
            f"runs cannot be kept in {kept} ({e.strerror}): name another folder with --runs"
        ) from e
    shelf = VideoCatalog(
        kept / "uploads", samples(default_cache() / "samples"), Folders(folder) if folder else None
    )
    # Gradio asks matplotlib for its backend at the first event; where it has to look for one, the page stands
    # still for a second.
    os.environ.setdefault("MPLBACKEND", "agg")
    site = Site(configs, shelf, Runs(kept), max_upload, hosts)
    # Gradio receives uploads in a folder that all its pages share; a folder of our own is on the disk that
    # they are kept on.
    with (
        listen(host, port) as listening,
        tempfile.TemporaryDirectory(prefix=".receiving-", dir=kept) as receiving,
    ):
        os.environ.setdefault("GRADIO_TEMP_DIR", receiving)
        signal.signal(
            signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
        )  # so that the folder goes when a service is stopped
        err().print("starting ...")
        try:
            run_until_done(serve(site, listening, lambda url: say(f"open {url} (Ctrl-C stops it)")))
        except KeyboardInterrupt:
            raise interrupted("stopped") from None


def samples(folder: Path) -> list[Clip]:
    """The clips of `act2see demo`, with their questions, written to `folder`."""
    from act2see.cli.demo import ITEMS
    from act2see.micro.questions import make_item
    from act2see.micro.world import write_clip
    from act2see.serve.ui.shelf import Clip
    from act2see.tools.runtime.files import whole_file

    clips = []
    for family, index in ITEMS:
        item = make_item(family, index, "test")
        path = folder / f"{family}-{index}.mp4"
        with whole_file(path) as new:
            write_clip(item.clip, new)
        clips.append(Clip(f"sample: {family}", str(path), item.text, tuple(item.options)))
    return clips
