"""`act2see serve vllm`: print or run the command that serves a config's reasoner with vLLM.

vLLM has an environment of its own. The command is built here, with this package's chat template and a
tokenizer that keeps the pieces of a rollout apart, and run there. Its limits are the largest that a run of
the config can reach, so that no request is rejected in the middle of a run. It names no reasoning parser,
which would remove the chain of thought from the text.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import note, say
from act2see.errors import ConfigError

if TYPE_CHECKING:
    from act2see.agent.reasoners.base import Needs
    from act2see.graphs.config import Config


def vllm(
    context: typer.Context,
    preset: Preset = None,
    config: ConfigFile = None,
    python: Annotated[
        Path | None,
        typer.Option(
            "--python",
            metavar="FILE",
            help="The Python of the environment in which vLLM is installed.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; 0.0.0.0 accepts other machines, too.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port.")] = 8000,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="NAME=DIR",
            help="Another adapter, which `reasoner.adapter: NAME` selects; can be repeated.",
        ),
    ] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Only print the command.")] = False,
) -> None:
    """Serve the config's reasoner with vLLM. Arguments after [bold]--[/bold] are passed to `vllm serve`."""
    from act2see.tools.video.store import default_cache

    chosen = chosen_config(preset, config)
    with as_file(files("act2see.agent.reasoners.vllm") / "passthrough.jinja") as template:
        cache = Path(chosen.cache).expanduser() if chosen.cache else default_cache()
        command = [
            *launcher(python, required=not print_only),
            *serve_arguments(chosen, template, cache / "vllm", lora or (), host, port),
            *context.args,
        ]
        if print_only:
            say(shlex.join(command))
            return
        note(f"{shlex.join(command)}\n")
        note(f"When it is up, a config reaches it with:\n{client_yaml(chosen, host, port)}")
        import subprocess

        raise typer.Exit(subprocess.call(command))


def launcher(python: Path | None, required: bool) -> list[str]:
    """Return the words that start `vllm`: the script beside that Python, its module, or that on the path.

    Args:
        python: The Python of vLLM's environment; None for the path.
        required: Whether it must exist here.

    Raises:
        ConfigError: It is required, and there is none.
    """
    if python is not None:
        if required and shutil.which(str(python)) is None:
            raise ConfigError(
                f"there is no Python at {python}: "
                "--python names that of the environment in which vLLM is installed"
            )
        script = python.parent / "vllm"
        return [str(script)] if script.is_file() else [str(python), "-m", "vllm.entrypoints.cli.main"]
    found = shutil.which("vllm")
    if found is None and required:
        raise ConfigError(
            "vLLM is not in this environment, because it pins its own torch: "
            "python -m venv vllm-env; vllm-env/bin/pip install vllm; then --python vllm-env/bin/python "
            "(or --print, to run the command elsewhere)"
        )
    return [found or "vllm"]


def serve_arguments(
    config: Config,
    template: Path,
    cache: Path,
    loras: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
) -> list[str]:
    """Return `serve` and its arguments, and write the tokenizer into `cache`.

    Args:
        config: The configuration whose reasoner is served.
        template: The chat template.
        cache: The folder for tokenizers, one for each model.
        loras: Adapters besides the config's own, as `NAME=DIR`.
        host: The address to listen on.
        port: The port.

    Raises:
        ConfigError: The reasoner is a chat model, or an adapter is not written as `NAME=DIR`.
        WeightsError: The files of the weights cannot be read.
    """
    from act2see.agent.reasoners.pieces import write_tokenizer
    from act2see.agent.reasoners.vllm.lora import lora_options
    from act2see.graphs.parts import reasoner_needs
    from act2see.tools.runtime.weights import resolve_weights

    reasoner, needs = config.reasoner, reasoner_needs(config)
    if reasoner.use == "chat":
        raise ConfigError(
            f"the config's reasoner is the chat model {reasoner.weights}, which vLLM does not serve: "
            "choose another preset"
        )
    weights = resolve_weights(reasoner.weights)
    folder = "".join(c if c.isalnum() or c in "-." else "-" for c in reasoner.weights)
    tokenizer = write_tokenizer(weights, cache / folder)
    context = reasoner.context
    if not context:
        context = _limit_context(weights, needs.context(_frame_tokens(weights, needs)))
    options = {
        "served-model-name": reasoner.weights,
        "host": host,
        "port": str(port),
        "tokenizer": str(tokenizer),
        "chat-template": str(template),
        "chat-template-content-format": "openai",
        "limit-mm-per-prompt": json.dumps({"image": needs.images, "video": 0}),
        "max-model-len": str(context),
        "enable-prefix-caching": None,
        "enable-prompt-tokens-details": None,
        "generation-config": "vllm",
    }
    if reasoner.dtype != "auto":
        options["dtype"] = reasoner.dtype
    adapters = _adapters(reasoner.adapter, loras)
    for name, value in lora_options(list(adapters.values())).items():
        options[name.replace("_", "-")] = None if value is True else str(value)
    arguments = ["serve", weights]
    for name, text in options.items():
        arguments.append(f"--{name}")
        if text is not None:
            arguments.append(text)
    if adapters:
        arguments.append("--lora-modules")
        for name, path in adapters.items():
            arguments.append(json.dumps({"name": name, "path": path}))
    return arguments


def client_yaml(config: Config, host: str, port: int) -> str:
    """Return the section of a config that reaches the server."""
    import yaml

    reasoner = config.reasoner.model_dump(exclude_defaults=True)
    for key in ("device", "dtype", "rows", "context"):
        reasoner.pop(key, None)
    reached = "localhost" if host in ("0.0.0.0", "127.0.0.1") else host
    reasoner |= {"use": "vllm-http", "options": {"url": f"http://{reached}:{port}/v1"}}
    return yaml.safe_dump({"reasoner": reasoner}, sort_keys=False)


def _adapters(configured: str | None, loras: Sequence[str]) -> dict[str, str]:
    """Return folders by the names that requests select them by.

    The config's own adapter is named as the config names it.
    """
    from act2see.tools.runtime.weights import resolve_weights

    folders = {configured: resolve_weights(configured)} if configured else {}
    for pair in loras:
        name, _, folder = pair.partition("=")
        if not name or not folder:
            raise ConfigError(f"--lora {pair}: write NAME=DIR")
        folders[name] = resolve_weights(folder)
    return folders


def _frame_tokens(weights: str, needs: Needs) -> int:
    """Return the tokens of the largest frame.

    The numbers are those of the processor's file, or of all Qwen3-VL models if the file is not here.
    """
    processor = _read_json(weights, "preprocessor_config.json") or {}
    side = int(processor.get("patch_size", 16)) * int(processor.get("merge_size", 2))  # pixels, of one token
    limits = processor.get("size") or {}  # pixels of a frame, by area
    largest = int(limits.get("longest_edge", 2**24)) // side**2
    smallest = int(limits.get("shortest_edge", 2**16)) // side**2
    per_edge = -(-needs.side // side)  # rounded up
    return max(min(per_edge**2, largest), smallest, 1)


def _limit_context(weights: str, needed: int) -> int:
    """Return the context that is needed, or the model's own if that is shorter."""
    config = _read_json(weights, "config.json") or {}
    own = (config.get("text_config") or config).get("max_position_embeddings")
    return min(needed, int(own)) if own else needed


def _read_json(folder: str, name: str) -> dict[str, Any] | None:
    """Read a JSON file of a local folder; None if it is not there."""
    path = Path(folder) / name
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
