"""`act2see serve` and `act2see mcp`: serves the reasoner, or the whole graph, to other programs."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Annotated

import typer

from act2see.cli import serve_llama_cpp, serve_vllm
from act2see.cli.options import AllowHost, ConfigFile, Preset, chosen_config
from act2see.cli.output import INTERRUPTED, interrupted, note, say
from act2see.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Serve the reasoner to other programs.")


@app.command("openai")
def openai(
    preset: Preset = None,
    config: ConfigFile = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Another checkpoint: a folder, a hub name or micro:vlm.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model's name for clients. Default: the name of the preset or of --weights.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    allow_host: AllowHost = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any free port.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="ACT2SEE_API_KEY",
            metavar="KEY",
            help="The key that clients must send.",
            show_default=False,
        ),
    ] = None,
    waiting: Annotated[
        int,
        typer.Option(min=1, help="The maximum number of requests, running or queued; more are refused."),
    ] = 256,
) -> None:
    """Serve a local reasoner over the OpenAI protocol: chat completions with images, whole or streamed.

    Needs the serve extra and a local checkpoint. Ctrl-C stops it.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as e:
        raise ConfigError("`act2see serve openai` needs the serve extra: pip install 'act2see[serve]'") from e
    from act2see.cli.runs import run_until_done
    from act2see.serve.hosts import allowed_hosts
    from act2see.serve.openai.model import ServedModel
    from act2see.serve.openai.server import build_app, serve
    from act2see.serve.ui.server import listen

    hosts = allowed_hosts(*(allow_host or ()), bound=host)
    chosen = chosen_config(preset, config)
    reasoner = chosen.reasoner
    model_name = name or chosen.name
    if weights is not None:
        # The configured adapter fits only the weights that it was trained on.
        reasoner = reasoner.model_copy(update={"weights": weights, "adapter": None})
        model_name = name or PurePath(weights.replace(":", "/")).name
    with listen(host, port) as listening:
        note(f"loading {reasoner.weights} ...")
        served = ServedModel.load(reasoner, model_name, key=api_key, waiting=waiting)
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{listening.getsockname()[1]}/v1"
        say(f"{model_name} is at {url} (Ctrl-C stops it)")
        # The server shuts down in order at Ctrl-C, and then returns or raises.
        with suppress(KeyboardInterrupt):
            run_until_done(serve(build_app(served, hosts), listening))
        raise interrupted("stopped")


app.command("vllm", context_settings={"allow_extra_args": True})(serve_vllm.vllm)
app.command("llama-cpp", context_settings={"allow_extra_args": True})(serve_llama_cpp.llama_cpp)


def mcp(
    folder: Annotated[
        list[Path],
        typer.Option(
            "--folder",
            metavar="DIR",
            help="A folder whose videos may be opened; can be repeated.",
            show_default=False,
        ),
    ],
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Also download videos from http(s) URLs.")
    ] = False,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Serve tools for video questions to an assistant over MCP, on stdin and stdout.

    The tools are ask_video, find_frames, show_trace and list_videos. Needs the serve extra and at least one
    folder of videos. An assistant starts this command; Ctrl-C stops it.
    """
    import asyncio

    try:
        from act2see.serve.mcp.server import build_server
        from act2see.serve.mcp.stdio import run_stdio
    except ModuleNotFoundError as e:
        if (e.name or "").split(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise ConfigError("`act2see mcp` needs the serve extra: pip install 'act2see[serve]'") from e
    from act2see.graphs.parts import cached_parts
    from act2see.tools.video.folders import FencedLibrary, Folders
    from act2see.tools.video.store import default_cache

    chosen = chosen_config(preset, config)
    downloads = default_cache() / "downloads" if allow_urls else None
    folders = Folders(folder, downloads=downloads)
    parts = cached_parts(chosen)
    finder = parts.resources.finder
    # A path is checked again whenever it is opened: the folder may have changed since the client named it.
    finder.library = FencedLibrary(finder.library, folders)
    server = build_server(chosen, folders, parts=parts)
    if sys.stdin.isatty():
        note("waiting for an MCP client on stdin and stdout (Ctrl-C stops it)")
    # Python's own handler would wait for the thread that reads stdin, which cannot be stopped.
    signal.signal(signal.SIGINT, _exit_at_once)
    try:
        # The loop is not closed, because that would wait for threads whose results are no longer needed.
        asyncio.Runner().run(run_stdio(server))
    except* BrokenPipeError:
        pass  # the client has closed stdout
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)


def _exit_at_once(*_: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(INTERRUPTED)
