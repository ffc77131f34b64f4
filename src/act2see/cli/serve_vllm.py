"""`act2see serve vllm`: prints or runs the command that serves a config's reasoner with vLLM.

vLLM is installed in a separate environment. The command is built in this environment and run in that one. It
uses this package's chat template, and a tokenizer that keeps the pieces of a rollout separate. Its limits are
the maximum of what a run of the config can reach, so that no request is refused in the middle of a run. It
sets no reasoning parser, because a parser would remove the chain of thought from the text.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import note, say
from act2see.cli.ports import check_port
from act2see.cli.programs import run_program
from act2see.errors import ConfigError, WeightsError

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
            help="The Python interpreter of the environment in which vLLM is installed.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; 0.0.0.0 allows other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port.")] = 8000,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="NAME=DIR",
            help="An additional adapter, selected by `reasoner.adapter: NAME`; can be repeated.",
        ),
    ] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Only print the command.")] = False,
) -> None:
    """Serve the config's reasoner with vLLM.

    Needs a GPU, and vLLM in an environment of its own, named by --python. Arguments after [bold]--[/bold] are
    passed to `vllm serve`.
    """
    from act2see.tools.video.store import default_cache

    chosen = chosen_config(preset, config)
    with as_file(files("act2see.agent.reasoners.vllm") / "passthrough.jinja") as template:
        cache = Path(chosen.cache).expanduser() if chosen.cache else default_cache()
        arguments = serve_arguments(chosen, template, cache / "vllm", lora or (), host, port)
        command = [*launcher(python, required=not print_only), *arguments, *context.args]
        if print_only:
            say(shlex.join(command))
            return
        check_port(host, port, ", and set reasoner.options.url to the same port")
        note(f"{shlex.join(command)}\n")
        note(f"To use this server, put into a config file:\n{client_yaml(chosen, host, port)}")
        raise typer.Exit(run_program(command))


def launcher(python: Path | None, required: bool) -> list[str]:
    """Return the words that start `vllm`: a script beside `python`, its module, or the script on the PATH.

    Args:
        python: The Python interpreter of vLLM's environment. None to search the PATH.
        required: Whether vLLM must exist on this machine.

    Raises:
        ConfigError: vLLM is required and was not found.
    """
    if python is not None:
        if required and shutil.which(str(python)) is None:
            raise ConfigError(
                f"no Python interpreter at {python}: "
                "name the interpreter of the environment in which vLLM is installed"
            )
        script = python.parent / "vllm"
        return [str(script)] if script.is_file() else [str(python), "-m", "vllm.entrypoints.cli.main"]
    found = shutil.which("vllm")
    if found is None and required:
        raise ConfigError(
            "vLLM is not in this environment; install it in its own, because it pins its own torch: "
            "python -m venv vllm-env; vllm-env/bin/pip install vllm; then use --python vllm-env/bin/python "
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
        loras: Adapters in addition to the config's own, as `NAME=DIR`.
        host: The address to listen on.
        port: The port.

    Raises:
        ConfigError: The reasoner is a chat model, or an adapter is not given as `NAME=DIR`.
        WeightsError: The files of the weights cannot be read.
    """
    from act2see.agent.reasoners.vllm.lora import lora_options
    from act2see.graphs.names import check_name
    from act2see.graphs.parts import reasoner_needs
    from act2see.tools.runtime.revisions import revision_of, split_revision
    from act2see.tools.runtime.weights import resolve_weights

    reasoner, needs = config.reasoner, reasoner_needs(config)
    if reasoner.use == "chat":
        raise ConfigError(
            f"the config's reasoner is the chat model {reasoner.weights}, which vLLM does not serve: "
            "choose another preset, such as --preset paper"
        )
    if reasoner.use == "llama-cpp":
        raise ConfigError(
            f"the config's reasoner is the GGUF model {reasoner.weights}, which llama.cpp serves: use "
            "`act2see serve llama-cpp`, or another preset, such as --preset paper"
        )
    check_name(reasoner)
    weights = resolve_weights(reasoner.weights)
    repository, revision = split_revision(weights)[0], revision_of(weights)
    folder = "".join(c if c.isalnum() or c in "-." else "-" for c in reasoner.weights)
    tokenizer = _write_tokenizer(weights, cache / folder)
    # Less than a run needs would be refused before the run.
    needed = needs.context(_frame_tokens(weights, needs))
    context = _limit_context(weights, max(reasoner.context or 0, needed))
    options: dict[str, str | None] = {
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
    if revision is not None:
        options["revision"] = revision
    if reasoner.dtype != "auto":
        options["dtype"] = reasoner.dtype
    adapters = _adapters(reasoner.adapter, loras)
    for name, value in lora_options(list(adapters.values())).items():
        options[name.replace("_", "-")] = None if value is True else str(value)
    arguments = ["serve", repository, *_to_words(options)]
    if adapters:
        arguments.append("--lora-modules")
        for name, path in adapters.items():
            arguments.append(json.dumps({"name": name, "path": path}))
    return arguments


def _write_tokenizer(weights: str, folder: Path) -> Path:
    """Write the tokenizer into `folder` and return it; say how to fetch one that is not on this machine."""
    from act2see.agent.reasoners.pieces import write_tokenizer
    from act2see.tools.runtime.weights import is_of_hub

    try:
        return write_tokenizer(weights, folder)
    except WeightsError as e:
        if not is_of_hub(weights):
            raise
        raise WeightsError(
            f"{e}, or fetch them with: act2see download {weights} (the command needs a copy of the tokenizer)"
        ) from e


def _to_words(options: Mapping[str, str | None]) -> Iterator[str]:
    """Yield the words of these options. An option whose value is None is a flag."""
    for name, value in options.items():
        yield f"--{name}"
        if value is not None:
            yield value


def client_yaml(config: Config, host: str, port: int) -> str:
    """Return the section of a config that uses the server as its reasoner."""
    import yaml

    reasoner = config.reasoner.model_dump(exclude_defaults=True)
    for key in ("device", "dtype", "rows", "context"):
        reasoner.pop(key, None)
    name = "localhost" if host in ("0.0.0.0", "127.0.0.1") else host
    reasoner |= {"use": "vllm-http", "options": {"url": f"http://{name}:{port}/v1"}}
    return yaml.safe_dump({"reasoner": reasoner}, sort_keys=False)


def _adapters(configured: str | None, loras: Sequence[str]) -> dict[str, str]:
    """Return the folders of the adapters, by the names that requests use.

    The name of the config's own adapter is its value in the config.
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
    """Return the number of tokens of the largest frame.

    The sizes come from the processor's file. If the file is not local, they are those of Qwen3-VL models.
    """
    processor = _read_json(weights, "preprocessor_config.json") or {}
    side = int(processor.get("patch_size", 16)) * int(
        processor.get("merge_size", 2)
    )  # pixels per token, along an edge
    limits = processor.get("size") or {}  # in pixels of area, in spite of the names of its keys
    largest = int(limits.get("longest_edge", 2**24)) // side**2
    smallest = int(limits.get("shortest_edge", 2**16)) // side**2
    per_edge = -(-needs.side // side)  # rounded up
    return max(min(per_edge**2, largest), smallest, 1)


def _limit_context(weights: str, needed: int) -> int:
    """Return the needed context, or the model's own context if that is shorter."""
    config = _read_json(weights, "config.json") or {}
    own = (config.get("text_config") or config).get("max_position_embeddings")
    return min(needed, int(own)) if own else needed


def _read_json(folder: str, name: str) -> dict[str, Any] | None:
    """Return the contents of a JSON file in a local folder; None if it does not exist."""
    path = Path(folder) / name
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
