"""`act2see doctor`: checks whether this machine can run a configuration, and prints the next commands.

It loads no model and downloads nothing: facts about missing weights come from the catalogue. The only
requests go to the reasoner's server: one of llama.cpp or vLLM is asked for its limits, and the provider of a
chat model, if its key is set, for its list of models, which is free.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from act2see.cli.doctor_table import Check, next_steps, print_table
from act2see.cli.options import ConfigFile, Preset, chosen_config, config_option
from act2see.cli.output import program, say
from act2see.tools.runtime.text import format_bytes

if TYPE_CHECKING:
    from act2see.graphs.config import Config
    from act2see.graphs.needs import Needed

_PACKAGES = ("act2see", "torch", "transformers", "diffusers", "langgraph", "av")
_FAISS = ("faiss-cpu", "faiss-gpu")  # one of them is enough
_SMALLEST = "act2see doctor --preset laptop (no GPU), or --preset api (a key)"
_SMALLER = "act2see doctor --preset paper-24gb, --preset laptop (no GPU), or --preset api (a key)"


def doctor(preset: Preset = None, config: ConfigFile = None) -> None:
    """Check whether this machine can run a configuration, and print the next commands.

    It loads and downloads nothing. A chat model is looked up in its provider's list of models, which is free.
    The exit code is 1 if the configuration cannot run.
    """
    chosen = chosen_config(preset, config)
    say(f"{chosen.name}: {chosen.about}" if chosen.about else chosen.name, "bold")
    option = config_option(None if preset == "micro" else preset, config)
    checks = [*_check_packages(chosen), _check_cache(chosen.cache)]
    if all(check.passed for check in checks):
        checks += _check_models(chosen, option)
    print_table(checks)
    failed = [check for check in checks if not check.passed]
    if failed:
        say("It cannot run yet. Next:", "bold red")
        for fix in next_steps(failed):
            say(f"  {re.sub('^act2see ', f'{program()} ', fix)}")
        raise typer.Exit(1)
    say("It can run. Next:", "bold green")
    if chosen.name == "micro" and not config:
        say(f"  {program()} demo")
    else:
        say(f'  {program()} ask VIDEO "QUESTION"{option}')


def _check_models(config: Config, option: str) -> Iterator[Check]:
    from act2see.cli.doctor_reasoner import check_reasoner
    from act2see.graphs.needs import SERVED, needed_weights

    needed = needed_weights(config)
    of_reasoner = list(check_reasoner(config, option))
    yield from of_reasoner
    if any(check.subject == "reasoner" and not check.passed for check in of_reasoner):
        needed = [weights for weights in needed if weights.part not in SERVED]  # of the wrong kind
    is_served = any(check.subject == "server" and check.passed for check in of_reasoner)
    yield from _check_weights(needed, option, is_served)
    yield from _check_threshold(config, option)
    yield from _check_disk(needed)
    yield from _check_memory(needed)
    yield from _check_speed(needed)
    yield from _check_machine(config)


def _check_packages(config: Config) -> Iterator[Check]:
    for name in _PACKAGES:
        yield _check_package(name)
    yield _check_package(*_FAISS)
    optional = {
        "decord2": config.video.decoder == "decord",
        "peft": config.reasoner.adapter is not None,
        "vllm": config.reasoner.use == "vllm",
    }
    for name, is_needed in optional.items():
        check = _check_package(name)
        if check.passed or is_needed:
            yield check


def _check_package(*names: str) -> Check:
    """Check that one of these packages is installed."""
    from importlib.metadata import PackageNotFoundError, version

    for name in names:
        try:
            return Check(True, name, version(name))
        except PackageNotFoundError:
            continue
    return Check(False, names[0], "not installed", f"pip install {names[0]}")


def _check_weights(needed: Iterable[Needed], option: str, is_served: bool) -> Iterator[Check]:
    """Check that the weights are on this machine; those of a running server need not be."""
    from act2see.graphs.needs import SERVED

    for weights in needed:
        facts = "; ".join(_facts(weights))
        if weights.folder:
            yield Check(True, weights.part, f"{weights.name}: {facts}")
            continue
        if is_served and weights.part in SERVED:
            yield Check(True, weights.part, f"{weights.name}: loaded by the server; {weights.problem} here")
            continue
        finding = f"{weights.name}: {weights.problem}"
        if facts:
            finding += f" ({facts})"
        yield Check(False, weights.part, finding, _fix_weights(weights, option))


def _facts(weights: Needed) -> Iterator[str]:
    """Yield the memory that the weights need, and their licence."""
    if weights.memory is not None:
        about = "about " if weights.estimated else ""
        yield f"{about}{format_bytes(weights.memory)} in memory"
    if weights.ram:
        yield f"{format_bytes(weights.ram)} offloaded"
    if weights.known:
        yield weights.known.licence + (", gated" if weights.known.gated else "")


def _fix_weights(weights: Needed, option: str) -> str:
    """Return the commands that fetch or train missing weights."""
    from act2see.graphs.needs import SHIPPED

    if weights.name.startswith("micro:"):
        return f"act2see micro train --out {SHIPPED}"
    if weights.fix or not weights.of_hub:
        return weights.fix or weights.problem
    fix = f"act2see download{option}"
    if weights.known and weights.known.gated:
        page = f"the hub's page of {weights.name}"
        login = f"hf auth login (with an account that has accepted the licence on {page})"
        return f"{login}\n{fix}"
    return fix


def _check_threshold(config: Config, option: str) -> Iterator[Check]:
    """Show the score below which a frame does not match, and whether it is calibrated."""
    from act2see.cli.thresholds import describe_threshold, is_uncalibrated, stored_calibration
    from act2see.errors import ConfigError, StoreError

    try:
        calibration = stored_calibration(config)
        finding = describe_threshold(config, calibration)
        if is_uncalibrated(config, calibration):
            finding += f"; act2see calibrate VIDEO...{option} finds one"
    except StoreError as e:
        yield Check(False, "threshold", str(e), f"act2see calibrate VIDEO...{option}")
    except ConfigError:
        return  # `_check_weights` reports a tool that cannot be created
    else:
        yield Check(True, "threshold", finding)


def _check_disk(needed: Iterable[Needed]) -> Iterator[Check]:
    """Check that the disk has room for the missing weights."""
    from act2see.tools.runtime.hub import cache_folder, free_space

    by_name = {weights.name: weights for weights in needed}  # two parts may share weights
    missing = sum(weights.disk or 0.0 for weights in by_name.values())
    if missing:
        free = free_space(cache_folder())
        finding = f"{cache_folder()}, {format_bytes(free)} free; {format_bytes(missing)} to download"
        fix = f"export HF_HOME=FOLDER (one with {format_bytes(missing)} free)"
        yield Check(missing < free, "disk", finding, fix)


def _check_memory(needed: Iterable[Needed]) -> Iterator[Check]:
    """Check that each device has room for all its weights together."""
    from act2see.graphs.machine import device_memory

    totals: dict[str, float] = {}  # bytes by device
    for weights in needed:
        totals[weights.device] = totals.get(weights.device, 0.0) + (weights.memory or 0.0)
        if weights.ram:
            totals["cpu"] = totals.get("cpu", 0.0) + weights.ram
    for device, total in totals.items():
        name, memory = device_memory(device)
        if memory is None:
            finding = f"{name}, but the configuration needs it"
            yield Check(False, device, finding, "set `device: auto` in your config file")
            continue
        finding = f"{name}, {format_bytes(memory)}; the weights take {format_bytes(total)}"
        fix = (
            f"use a machine with more than {format_bytes(total)} of memory on its device, "
            "or smaller weights in a config file"
        )
        yield Check(total < memory, device, finding, fix)


def _check_speed(needed: Iterable[Needed]) -> Iterator[Check]:
    """Warn of bfloat16 on a CPU that has no instructions for it."""
    from act2see.tools.runtime.weights import has_fast_bfloat16

    slow = [weights.part for weights in needed if weights.device == "cpu" and weights.dtype == "bfloat16"]
    if slow and not has_fast_bfloat16():
        parts = ", ".join(slow)
        advice = "`dtype: auto` computes in float32, which takes twice the memory"
        yield Check(True, "dtype", f"bfloat16 is tens of times slower on this CPU ({parts}): {advice}")


def _check_machine(config: Config) -> Iterator[Check]:
    """Check the total memory that the configuration declares, which includes caches and activations."""
    from act2see.graphs.machine import device_memory, has_memory, needed_ram

    gpu = config.needs.gpu
    smaller = _SMALLER if gpu > 24 else _SMALLEST
    for subject, device, gigabytes in (("GPU", "cuda", gpu), ("memory", "cpu", needed_ram(config))):
        if not gigabytes:
            continue
        name, memory = device_memory(device)
        has = name if memory is None else f"{name}, {format_bytes(memory)}"
        yield Check(has_memory(memory, gigabytes), subject, f"{has}; {gigabytes:g} GB needed", smaller)


def _check_cache(configured: str | None) -> Check:
    from act2see.tools.video.store import default_cache

    cache = Path(configured).expanduser() if configured else default_cache()
    existing = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Check(True, "cache", f"{cache}, {format_bytes(shutil.disk_usage(existing).free)} free")
    fix = "export ACT2SEE_CACHE=FOLDER (one that you can write to)"
    return Check(False, "cache", f"{cache} cannot be written", fix)
