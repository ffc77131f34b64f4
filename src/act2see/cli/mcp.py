"""`act2see mcp`: the MCP server for a desktop assistant, over stdin and stdout."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import INTERRUPTED, err
from act2see.errors import ConfigError


def _leave(*_: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(INTERRUPTED)


def mcp(
    folder: Annotated[
        list[Path],
        typer.Option(
            "--folder",
            metavar="DIR",
            help="A folder whose videos may be opened; give it once for each.",
            show_default=False,
        ),
    ],
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Download videos from http(s) addresses, too.")
    ] = False,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Serve ask_video, find_frames, show_trace and list_videos to an assistant, over stdin and stdout
    (MCP)."""
    import sys

    try:
        from act2see.serve.mcp.server import build_server
        from act2see.serve.mcp.stdio import run_stdio
    except ModuleNotFoundError as e:
        if (e.name or "").split(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise ConfigError("`act2see mcp` needs the MCP package: pip install 'act2see[serve]'") from e
    from act2see.tools.video.folders import Folders
    from act2see.tools.video.store import default_cache

    chosen = chosen_config(preset, config)
    server = build_server(
        chosen, Folders(folder, downloads=default_cache() / "downloads" if allow_urls else None)
    )
    if sys.stdin.isatty():
        err().print("an MCP client is expected on stdin and stdout; stop with Ctrl-C")
    # The thread that waits for stdin cannot be told to stop, and Python's own handler would wait for it.
    signal.signal(signal.SIGINT, _leave)
    # The loop is not closed: that would wait for threads that are at work on a video, though nobody waits for
    # what they make.
    try:
        asyncio.Runner().run(run_stdio(server))
    except* BrokenPipeError:
        pass  # the client has closed our stdout: it is gone
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)
