"""`act2see doctor`: can this machine run a configuration, and if not, what to do next."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from act2see.cli.chosen import ConfigFile, Preset, chosen_config
from act2see.cli.output import out, plain, say, size

if TYPE_CHECKING:
    from act2see.cli.weights import Needed

_PACKAGES = ("act2see", "torch", "transformers", "diffusers", "langgraph", "decord2", "av", "faiss-cpu", "peft")
_OPTIONAL = {"faiss-cpu": "faiss-gpu", "peft": ""}  # what may stand in for it; peft is for adapters alone


@dataclass(frozen=True, slots=True)
class _Check:
    """One finding. `then` is what to type where it is not good."""

    good: bool
    what: str
    said: str
    then: str = ""


def doctor(preset: Preset = None, config: ConfigFile = None) -> None:
    """Say what is installed, which weights are here, and what to type next. Exit code 1 where it cannot run."""
    from rich import box
    from rich.table import Table

    from act2see.cli.weights import needed_weights

    chosen = chosen_config(preset, config)
    say(f"{chosen.name}: {chosen.about}" if chosen.about else chosen.name, "bold")
    checks = [*_packages(chosen.reasoner.adapter is not None), _cache(chosen.cache)]
    if all(c.good for c in checks):
        needed = needed_weights(chosen)
        checks += [*_weights(needed), *_memory(needed)]
    table = Table("", "", "", box=box.SIMPLE, show_header=False)
    for check in checks:
        table.add_row(plain("ok", "green") if check.good else plain("no", "bold red"), plain(check.what), plain(check.said))
    out().print(table)
    wanting = [c for c in checks if not c.good]
    if not wanting:
        say("It can run. Next:", "bold green")
        named = f" --config {config}" if config else f" --preset {preset}" if preset and preset != "micro" else ""
        say("  act2see demo" if chosen.name == "micro" and not config else f'  act2see ask VIDEO "QUESTION"{named}')
        return
    say("It cannot run yet. Next:", "bold red")
    for then in dict.fromkeys(c.then for c in wanting):
        say(f"  {then}")
    raise typer.Exit(1)


def _packages(adapter: bool) -> Iterable[_Check]:
    from importlib.metadata import PackageNotFoundError, version

    for name in _PACKAGES:
        other = _OPTIONAL.get(name)
        for candidate in filter(None, (name, other)):
            try:
                yield _Check(True, candidate, version(candidate))
                break
            except PackageNotFoundError:
                continue
        else:
            if name != "peft" or adapter:
                yield _Check(False, name, "not installed", f"pip install {name}")


def _weights(needed: Iterable[Needed]) -> Iterable[_Check]:
    from act2see.cli.weights import SHIPPED

    for n in needed:
        memory = "" if n.memory is None else f"{'about ' if n.estimated else ''}{size(n.memory)} in memory"
        if n.folder:
            yield _Check(True, n.part, f"{n.name}: {memory}")
        else:
            lead, _, then = n.problem.partition("run: ")
            todo = then or (f"act2see micro train --out {SHIPPED}" if n.name.startswith("micro:") else n.problem)
            said = f"{n.name}: {lead.rstrip('; ')}" + (f" ({memory})" if memory else "")
            yield _Check(False, n.part, said, todo)


def _memory(needed: Iterable[Needed]) -> Iterable[_Check]:
    """For each device: what it has, and what all its weights take together."""
    totals: dict[str, float] = {}
    for n in needed:
        totals[n.device] = totals.get(n.device, 0.0) + (n.memory or 0.0)
    for device, wanted in totals.items():
        name, has = _device(device)
        if has is None:
            yield _Check(False, device, f"{name}, but the configuration asks for it", "set `device: auto` in your config file")
            continue
        said = f"{name}, {size(has)}; the weights take {size(wanted)}"
        short = f"use a machine with more than {size(wanted)} of memory on its device, or smaller weights in a config file"
        yield _Check(wanted < has, device, said, short)


def _device(device: str) -> tuple[str, float | None]:
    """A device's name and memory in bytes; None where there is no such device."""
    import torch

    if device.startswith("cuda"):
        try:
            properties = torch.cuda.get_device_properties(device)
        except (AssertionError, RuntimeError):
            return "no CUDA device", None
        return str(properties.name), float(properties.total_memory)
    if device == "mps" and not torch.backends.mps.is_available():
        return "no Apple GPU", None
    kind = "Apple GPU" if device == "mps" else f"CPU, {os.cpu_count()} cores"
    return kind, float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _cache(named: str | None) -> _Check:
    from act2see.tools.store import default_cache

    cache = Path(named).expanduser() if named else default_cache()
    there = next(p for p in (cache, *cache.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return _Check(False, "cache", f"{cache} cannot be written", "export ACT2SEE_CACHE=FOLDER (one that you may write to)")
    return _Check(True, "cache", f"{cache}, {size(shutil.disk_usage(there).free)} free")
