"""`act2see serve vllm`: the exact command that serves a config's reasoner with vLLM, printed or run.

vLLM has an environment of its own, so the command is put together here, with this package's template and a
tokenizer that keeps pieces apart, and run there. The limits are those that a run of the config may reach, so
that nothing is turned down in the middle of one. No reasoning parser: it would take the thought out of the
text.
"""

from __future__ import annotations

import json
import shlex
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import err, say
from act2see.errors import ConfigError
from act2see.trace.console import plain

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
            help="The Python of the environment that has vLLM.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Where it listens; 0.0.0.0 for other machines, too.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8000,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora", metavar="NAME=DIR", help="One more adapter; reasoner.adapter chooses by its name."
        ),
    ] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Print the command and do not run it.")] = False,
) -> None:
    """Serve the config's reasoner with vLLM. What stands after [bold]--[/bold] is given to `vllm serve` as it
    is."""
    from act2see.tools.video.store import default_cache

    chosen = chosen_config(preset, config)
    with as_file(files("act2see.agent.reasoners.vllm") / "passthrough.jinja") as template:
        cache = Path(chosen.cache).expanduser() if chosen.cache else default_cache()
        command = [
            *launcher(python, must=not print_only),
            *serve_arguments(chosen, template, cache / "vllm", lora or (), host, port),
            *context.args,
        ]
        if print_only:
            say(shlex.join(command))
            return
        err().print(
            plain(
                f"{shlex.join(command)}\n\nWhen it is up, a config reaches it with:\n{client_yaml(chosen, host, port)}"
            ),
            soft_wrap=True,
        )
        import subprocess

        raise typer.Exit(subprocess.call(command))


def launcher(python: Path | None, must: bool) -> list[str]:
    """What starts `vllm`: the script beside that Python, its module, or the script on the path."""
    if python is not None:
        if must and shutil.which(str(python)) is None:
            raise ConfigError(
                f"there is no Python at {python}: --python names that of the environment that has vLLM"
            )
        beside = python.parent / "vllm"
        return [str(beside)] if beside.is_file() else [str(python), "-m", "vllm.entrypoints.cli.main"]
    found = shutil.which("vllm")
    if found is None and must:
        raise ConfigError(
            "vLLM is not in this environment, since it pins its own torch: python -m venv vllm-env; vllm-env/bin/pip install vllm; "
            "then --python vllm-env/bin/python (or --print, to run the command elsewhere)"
        )
    return [found or "vllm"]


def serve_arguments(
    config: Config, template: Path, cache: Path, loras: Any = (), host: str = "127.0.0.1", port: int = 8000
) -> list[str]:
    """`serve` and all that follows. Writes the tokenizer into `cache`. Raises `WeightsError` where the
    weights' files cannot be read."""
    from act2see.agent.reasoners.pieces import write_tokenizer
    from act2see.agent.reasoners.vllm.lora import lora_options
    from act2see.graphs.parts import reasoner_needs
    from act2see.tools.runtime.weights import resolve_weights

    r, needs = config.reasoner, reasoner_needs(config)
    if r.use == "chat":
        raise ConfigError(
            f"the config's reasoner is the chat model {r.weights}, which vLLM does not serve: choose another preset"
        )
    weights = resolve_weights(r.weights)
    tokenizer = write_tokenizer(
        weights, cache / "".join(c if c.isalnum() or c in "-." else "-" for c in r.weights)
    )
    adapters = _adapters(r.adapter, loras)
    context = r.context or _most(weights, needs.context(_frame_tokens(weights, needs)))
    arguments = [
        "serve",
        weights,
        "--served-model-name",
        r.weights,
        "--host",
        host,
        "--port",
        str(port),
        "--tokenizer",
        str(tokenizer),
        "--chat-template",
        str(template),
        "--chat-template-content-format",
        "openai",
        "--limit-mm-per-prompt",
        json.dumps({"image": needs.images, "video": 0}),
        "--max-model-len",
        str(context),
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        "--generation-config",
        "vllm",
    ]
    if r.dtype != "auto":
        arguments += ["--dtype", r.dtype]
    for name, value in lora_options(list(adapters.values())).items():
        arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    if adapters:
        arguments += [
            "--lora-modules",
            *(json.dumps({"name": name, "path": folder}) for name, folder in adapters.items()),
        ]
    return arguments


def client_yaml(config: Config, host: str, port: int) -> str:
    """The section of a config that reaches the server."""
    import yaml

    reasoner = config.reasoner.model_dump(exclude_defaults=True)
    for key in ("device", "dtype", "rows", "context"):
        reasoner.pop(key, None)
    url = f"http://{'localhost' if host in ('0.0.0.0', '127.0.0.1') else host}:{port}/v1"
    return yaml.safe_dump(
        {"reasoner": {**reasoner, "use": "vllm-http", "options": {"url": url}}}, sort_keys=False
    )


def _adapters(own: str | None, more: Any) -> dict[str, str]:
    """Folders by the names that requests choose them by: the config's own keeps its name as it stands
    there."""
    from act2see.tools.runtime.weights import resolve_weights

    named = {own: resolve_weights(own)} if own else {}
    for pair in more:
        name, sign, folder = pair.partition("=")
        if not (name and sign and folder):
            raise ConfigError(f"--lora {pair}: write NAME=DIR")
        named[name] = resolve_weights(folder)
    return named


def _frame_tokens(weights: str, needs: Needs) -> int:
    """Tokens of the largest frame, from the processor's file where it is here, else as all Qwen3-VL have
    it."""
    p = _json(weights, "preprocessor_config.json") or {}
    token = int(p.get("patch_size", 16)) * int(p.get("merge_size", 2))
    size = p.get("size") or {}
    most, least = int(size.get("longest_edge", 2**24)), int(size.get("shortest_edge", 2**16))
    return max(min(-((-needs.side // token) ** 2), most // token**2), least // token**2, 1)


def _most(weights: str, needed: int) -> int:
    """What is needed, or what the model was made for, where that is less."""
    config = _json(weights, "config.json") or {}
    own = (config.get("text_config") or config).get("max_position_embeddings")
    return min(needed, int(own)) if own else needed


def _json(folder: str, name: str) -> dict[str, Any] | None:
    """A file of a local folder."""
    path = Path(folder) / name
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
