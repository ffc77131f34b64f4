"""`act2see serve llama-cpp`: prints or runs the command that serves a config's reasoner with llama.cpp.

llama.cpp is a program of its own (`brew install llama.cpp`, `winget install llama.cpp`, or a package of the
system). Its server gets the model and its vision file, from the hub's cache if `act2see download` has fetched
them (otherwise it downloads them itself), and slots that are large enough for the largest run of
the config, so that no request is refused in the middle of a run.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import note, say
from act2see.cli.ports import check_port
from act2see.cli.programs import run_program
from act2see.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    from act2see.graphs.config import Config

INSTALL = (
    "`brew install llama.cpp` on macOS and Linux, `winget install llama.cpp` on Windows, or a release of "
    "https://github.com/ggml-org/llama.cpp"
)
"""How to install llama.cpp."""
_TOKEN_SIDE = 32
"""Pixels of the side of one vision token: 16 a patch, and 2 x 2 patches a token, in all Qwen3-VL models."""


def llama_cpp(
    context: typer.Context,
    preset: Preset = None,
    config: ConfigFile = None,
    server: Annotated[
        Path | None,
        typer.Option(
            "--server", metavar="FILE", help="The program llama-server.", show_default="on the PATH"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; 0.0.0.0 allows other machines.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65535, help="The port.", show_default="that of the config, or 8080"
        ),
    ] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Only print the command.")] = False,
) -> None:
    """Serve the config's reasoner with llama.cpp.

    Needs llama-server, and a config with `reasoner.use: llama-cpp`. Arguments after [bold]--[/bold] are
    passed to llama-server.
    """
    chosen = chosen_config(preset, config)
    configured = _configured_port(chosen)
    port = port or configured
    arguments = [*server_arguments(chosen, host, port), *context.args]
    command = [find_server(server, required=not print_only), *arguments]
    if print_only:
        say(shlex.join(command))
        return
    check_port(host, port, ", and set reasoner.options.url to the same port")
    if port != configured:
        note(f"To use this server, set `reasoner.options.url: http://localhost:{port}` in a config file.")
    note(f"{shlex.join(command)}\n")
    raise typer.Exit(run_program(command))


def _configured_port(config: Config) -> int:
    """Return the port at which the config's reasoner looks for the server."""
    url = str(config.reasoner.options.get("url") or "")
    try:
        return urlsplit(url).port or 8080
    except ValueError as e:
        raise ConfigError(f"reasoner.options.url {url!r} has no valid port: {e}") from e


def find_server(server: Path | None, required: bool) -> str:
    """Return the path of llama-server.

    Args:
        server: The program; None to search the PATH.
        required: Whether it must exist on this machine.

    Raises:
        ConfigError: It is required and was not found.
    """
    found = shutil.which(str(server or "llama-server"))
    if found is None and required:
        raise ConfigError(
            f"{server or 'llama-server'} is not on this machine: install llama.cpp ({INSTALL}), or name the "
            "program with --server"
        )
    return found or str(server or "llama-server")


def server_arguments(config: Config, host: str = "127.0.0.1", port: int = 8080) -> list[str]:
    """Return the arguments of llama-server.

    Args:
        config: The configuration whose reasoner is served.
        host: The address to listen on.
        port: The port.

    Raises:
        ConfigError: The reasoner is not for llama.cpp, or a file does not exist.
    """
    from act2see.agent.reasoners.connection import read_options
    from act2see.agent.reasoners.llama_cpp.reasoner import LlamaCppOptions
    from act2see.graphs.names import check_name
    from act2see.graphs.parts import reasoner_needs

    reasoner, needs = config.reasoner, reasoner_needs(config)
    if reasoner.use != "llama-cpp":
        raise ConfigError(
            f"the config's reasoner is `use: {reasoner.use}`: use --preset laptop, or in a config file set "
            "`reasoner.use: llama-cpp`, and `weights` to a GGUF repository (owner/name-GGUF:Q8_0) or file "
            "(docs/models.md)"
        )
    check_name(reasoner)
    read_options(LlamaCppOptions, reasoner.options)
    frame_tokens = (-(-needs.side // _TOKEN_SIDE)) ** 2 + 2  # with the marks around it
    context = max(reasoner.context or 0, needs.context(frame_tokens))  # less would be refused before a run
    return [
        *_model_arguments(reasoner.weights, reasoner.options.get("mmproj")),
        "--alias",
        reasoner.weights,
        "--host",
        host,
        "--port",
        str(port),
        "--parallel",
        str(reasoner.rows),
        "--ctx-size",
        str(context * reasoner.rows),
    ]


def _model_arguments(weights: str, mmproj: str | None) -> list[str]:
    """Return the arguments that name the model and its vision file."""
    if not weights.lower().endswith(".gguf"):
        if "/" not in weights:
            raise ConfigError(
                f"reasoner.weights {weights!r} names no model that llama.cpp can load: name a GGUF "
                "repository (owner/name-GGUF:Q8_0) or a local file (….gguf)"
            )
        return _downloaded(weights) or ["-hf", weights]
    for key, file in (("weights", weights), ("options.mmproj", mmproj)):
        if not file:
            raise ConfigError(
                "reasoner.options.mmproj is missing: name the vision file (mmproj-….gguf) of the model"
            )
        if not Path(file).expanduser().is_file():
            raise ConfigError(f"reasoner.{key}: there is no file {file}")
    assert mmproj is not None
    return ["-m", str(Path(weights).expanduser()), "--mmproj", str(Path(mmproj).expanduser())]


def _downloaded(weights: str) -> list[str] | None:
    """Return the arguments that name a downloaded model; None if it is not downloaded."""
    from act2see.tools.runtime.gguf import find_gguf

    try:
        found = find_gguf(weights)
    except WeightsError:
        return None
    return ["-m", str(found.model), "--mmproj", str(found.mmproj)]
