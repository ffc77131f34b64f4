"""`act2see doctor`: can this machine run a configuration, and if not, what to do next.

Nothing is loaded, fetched or asked of a server: what it says of weights that are missing comes from the
catalogue, and a key is found or not found, never tried.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import out, program, say, size
from act2see.trace.console import plain

if TYPE_CHECKING:
    from act2see.graphs.config import Config, NeedsConfig, ReasonerConfig
    from act2see.graphs.needs import Needed

_PACKAGES = (
    "act2see",
    "torch",
    "transformers",
    "diffusers",
    "langgraph",
    "decord2",
    "av",
    "faiss-cpu",
    "peft",
)
_INSTEAD = {"faiss-cpu": "faiss-gpu"}  # what may stand in for it
_SMALLEST = "act2see doctor --preset laptop (no GPU), or --preset api (a key)"
_SMALLER = "act2see doctor --preset paper-24gb, --preset laptop (no GPU), or --preset api (a key)"


@dataclass(frozen=True, slots=True)
class _Check:
    """One finding. `then` is what to type where it is not good, by lines."""

    good: bool
    what: str
    said: str
    then: str = ""


def doctor(preset: Preset = None, config: ConfigFile = None) -> None:
    """Say what is installed, which weights are here, and what to type next. Exit code 1 where it cannot
    run."""
    from rich import box
    from rich.table import Table

    from act2see.graphs.needs import needed_weights

    chosen = chosen_config(preset, config)
    say(f"{chosen.name}: {chosen.about}" if chosen.about else chosen.name, "bold")
    named = f" --config {config}" if config else f" --preset {preset}" if preset and preset != "micro" else ""
    checks = [*_packages(chosen), _cache(chosen.cache)]
    if all(c.good for c in checks):
        needed = needed_weights(chosen)
        checks += [
            *_key(chosen.reasoner),
            *_weights(needed, named),
            *_disk(needed),
            *_memory(needed),
            *_machine(chosen.needs),
        ]
    table = Table("", "", "", box=box.SIMPLE, show_header=False)
    for check in checks:
        table.add_row(
            plain("ok", "green") if check.good else plain("no", "bold red"),
            plain(check.what),
            plain(check.said),
        )
    out().print(table)
    wanting = [c for c in checks if not c.good]
    if not wanting:
        say("It can run. Next:", "bold green")
        say(
            f"  {program()} demo"
            if chosen.name == "micro" and not config
            else f'  {program()} ask VIDEO "QUESTION"{named}'
        )
        return
    say("It cannot run yet. Next:", "bold red")
    if any(c.what in ("GPU", "memory") for c in wanting):
        # What this machine has no room for need not be fetched.
        wanting = [c for c in wanting if "act2see download" not in c.then]
    lines = dict.fromkeys(line for c in wanting for line in c.then.splitlines())
    for then in sorted(
        lines, key=lambda line: line.startswith("act2see download")
    ):  # what it depends on comes first
        say(f"  {re.sub('^act2see ', f'{program()} ', then)}")
    raise typer.Exit(1)


def _packages(config: Config) -> Iterable[_Check]:
    from importlib.metadata import PackageNotFoundError, version

    unneeded = {
        "peft": config.reasoner.adapter is None,
        "decord2": config.video.decoder != "decord",
    }
    for name in _PACKAGES:
        other = _INSTEAD.get(name)
        for candidate in filter(None, (name, other)):
            try:
                yield _Check(True, candidate, version(candidate))
                break
            except PackageNotFoundError:
                continue
        else:
            if not unneeded.get(name):
                yield _Check(False, name, "not installed", f"pip install {name}")


def _key(reasoner: ReasonerConfig) -> Iterable[_Check]:
    """Whether a chat model can be set up: that needs its package and its key, and asks nobody."""
    if reasoner.use != "chat":
        return
    from act2see.agent.reasoners.chat.setup import chat_model, missing_key
    from act2see.errors import ConfigError

    try:
        chat_model(reasoner.weights, reasoner.options, "reasoner.weights")
    except ConfigError as e:
        variable = (
            missing_key(reasoner.weights, reasoner.options, str(e)) if "pip install" not in str(e) else None
        )
        then = f"export {variable}=... (the key of your account there)" if variable else str(e)
        yield _Check(
            False,
            "reasoner",
            f"{reasoner.weights}: " + (f"no key ({variable})" if variable else "cannot be set up"),
            then,
        )
    else:
        yield _Check(
            True,
            "reasoner",
            f"{reasoner.weights}: it can be set up; the key is not tried, and frames are sent to the provider",
        )


def _weights(needed: Iterable[Needed], named: str) -> Iterable[_Check]:
    from act2see.graphs.needs import SHIPPED

    for n in needed:
        told = [] if n.memory is None else [f"{'about ' if n.estimated else ''}{size(n.memory)} in memory"]
        if n.ram:
            told.append(f"{size(n.ram)} offloaded")
        if n.known:
            told.append(n.known.licence + (", gated" if n.known.gated else ""))
        if n.folder:
            yield _Check(True, n.part, f"{n.name}: {'; '.join(told)}")
            continue
        said = f"{n.name}: {n.problem}" + (f" ({'; '.join(told)})" if told else "")
        if n.name.startswith("micro:"):
            then = f"act2see micro train --out {SHIPPED}"
        else:
            then = f"act2see download{named}" if n.of_hub else n.problem
        if n.of_hub and n.known and n.known.gated:
            then = f"hf auth login (with an account that has accepted the licence on the hub's page of {n.name})\n{then}"
        yield _Check(False, n.part, said, then)


def _disk(needed: Iterable[Needed]) -> Iterable[_Check]:
    from act2see.tools.runtime.hub import cache_folder, free_space

    missing = sum(n.disk or 0.0 for n in {n.name: n for n in needed}.values())
    if missing:
        free = free_space(cache_folder())
        said = f"{cache_folder()}, {size(free)} free; {size(missing)} to download"
        yield _Check(missing < free, "disk", said, f"export HF_HOME=FOLDER (one with {size(missing)} free)")


def _memory(needed: Iterable[Needed]) -> Iterable[_Check]:
    """For each device: what it has, and what all its weights take together."""
    totals: dict[str, float] = {}
    for n in needed:
        totals[n.device] = totals.get(n.device, 0.0) + (n.memory or 0.0)
        if n.ram:
            totals["cpu"] = totals.get("cpu", 0.0) + n.ram
    for device, wanted in totals.items():
        name, has = _device(device)
        if has is None:
            yield _Check(
                False,
                device,
                f"{name}, but the configuration asks for it",
                "set `device: auto` in your config file",
            )
            continue
        said = f"{name}, {size(has)}; the weights take {size(wanted)}"
        short = f"use a machine with more than {size(wanted)} of memory on its device, or smaller weights in a config file"
        yield _Check(wanted < has, device, said, short)


def _machine(needs: NeedsConfig) -> Iterable[_Check]:
    """What the configuration says that it needs in all, beside the weights' own sum: the cache and the
    activations too."""
    from act2see.graphs.machine import enough

    for device, gb in (("cuda", needs.gpu), ("cpu", needs.ram)):
        if not gb:
            continue
        name, has = _device(device)
        said = f"{name}; {gb:g} GB wanted" if has is None else f"{name}, {size(has)}; {gb:g} GB wanted"
        yield _Check(
            enough(has, gb),
            "GPU" if device == "cuda" else "memory",
            said,
            _SMALLER if needs.gpu > 24 else _SMALLEST,
        )


def _device(device: str) -> tuple[str, float | None]:
    """A device's name and memory in bytes; None where there is no such device."""
    from act2see.graphs.machine import device_memory

    return device_memory(device)


def _cache(named: str | None) -> _Check:
    from act2see.tools.video.store import default_cache

    cache = Path(named).expanduser() if named else default_cache()
    there = next(p for p in (cache, *cache.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return _Check(
            False,
            "cache",
            f"{cache} cannot be written",
            "export ACT2SEE_CACHE=FOLDER (one that you may write to)",
        )
    return _Check(True, "cache", f"{cache}, {size(shutil.disk_usage(there).free)} free")
