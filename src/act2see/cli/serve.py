"""`act2see serve`: models for other programs.

Each command is a function of this file, or of one beside it, that is registered at its end.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import PurePath
from typing import Annotated

import typer

from act2see.cli import serve_vllm
from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import interrupted, note, say
from act2see.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Serve a model to other programs.")


@app.command("openai")
def openai(
    preset: Preset = None,
    config: ConfigFile = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Another checkpoint: a folder, a hub name, micro:vlm.", show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What clients call the model (default: the preset's name)."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another name that clients reach it by, and whose pages may use it; may be given several times.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="ACT2SEE_API_KEY",
            metavar="KEY",
            help="Ask clients for this key.",
            show_default=False,
        ),
    ] = None,
    waiting: Annotated[
        int, typer.Option(min=1, help="Requests that may be under way or wait; more are told to come again.")
    ] = 256,
) -> None:
    """Serve the configured reasoner as an OpenAI-compatible server: chat completions with images, streaming.
    Ctrl-C stops it."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as e:
        raise ConfigError("`act2see serve openai` needs a web server: pip install 'act2see[serve]'") from e
    from act2see.cli.runs import run_until_done
    from act2see.serve.hosts import allowed_hosts
    from act2see.serve.openai.server import Served, build_app, serve
    from act2see.serve.ui.server import listen

    hosts = allowed_hosts(*(allow_host or ()), bound=host)
    chosen = chosen_config(preset, config)
    reasoner, called = chosen.reasoner, name or chosen.name
    if weights is not None:
        # An adapter belongs to the weights that it was trained on.
        reasoner = reasoner.model_copy(update={"weights": weights, "adapter": None})
        called = name or PurePath(weights.replace(":", "/")).name
    with listen(host, port) as listening:
        note(f"loading {reasoner.weights} ...")
        served = Served.load(reasoner, called, key=api_key, waiting=waiting)
        at = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/v1"
        say(f"{called} is at {at} (Ctrl-C stops it)")
        with suppress(
            KeyboardInterrupt
        ):  # it has ended in good order by then, and may or may not say so by this
            run_until_done(serve(build_app(served, hosts), listening))
        raise interrupted("stopped")


app.command("vllm", context_settings={"allow_extra_args": True})(serve_vllm.vllm)
