"""`act2see doctor`: checks whether this machine can run a configuration, and prints the next commands.

It loads no model and downloads nothing: facts about missing weights come from the catalogue. The only request
goes to the provider of a chat model whose key is set: for its list of models, which is free.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config, config_option
from act2see.cli.output import out, program, say
from act2see.tools.runtime.text import format_bytes
from act2see.trace.console import plain

if TYPE_CHECKING:
    from act2see.graphs.config import Config
    from act2see.graphs.needs import Needed
    from act2see.graphs.sections import NeedsConfig, ReasonerConfig

_SERVER_SECONDS = 5  # that doctor waits for an answer of a server
_PACKAGES = ("act2see", "torch", "transformers", "diffusers", "langgraph", "av")
_FAISS = ("faiss-cpu", "faiss-gpu")  # one of them is enough
_SMALLEST = "act2see doctor --preset laptop (no GPU), or --preset api (a key)"
_SMALLER = "act2see doctor --preset paper-24gb, --preset laptop (no GPU), or --preset api (a key)"


@dataclass(frozen=True, slots=True)
class _Check:
    """The result of one check."""

    passed: bool
    subject: str
    """The package, part of the configuration, or resource of the machine that was checked."""
    finding: str
    """The result, as shown in the table."""
    fix: str = ""
    """The commands that fix a failed check, one per line."""


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
    _print_table(checks)
    failed = [check for check in checks if not check.passed]
    if failed:
        say("It cannot run yet. Next:", "bold red")
        for fix in _fixes(failed):
            say(f"  {re.sub('^act2see ', f'{program()} ', fix)}")
        raise typer.Exit(1)
    say("It can run. Next:", "bold green")
    if chosen.name == "micro" and not config:
        say(f"  {program()} demo")
    else:
        say(f'  {program()} ask VIDEO "QUESTION"{option}')


def _check_models(config: Config, option: str) -> Iterator[_Check]:
    from act2see.graphs.needs import needed_weights

    needed = needed_weights(config)
    yield from _check_key(config.reasoner)
    yield from _check_server(config, option)
    yield from _check_weights(needed, option)
    yield from _check_threshold(config, option)
    yield from _check_disk(needed)
    yield from _check_memory(needed)
    yield from _check_speed(needed)
    yield from _check_machine(config.needs)


def _print_table(checks: Iterable[_Check]) -> None:
    from rich import box
    from rich.table import Table

    table = Table("", "", "", box=box.SIMPLE, show_header=False)
    for check in checks:
        mark = plain("ok", "green") if check.passed else plain("no", "bold red")
        table.add_row(mark, plain(check.subject), plain(check.finding))
    out().print(table)


def _fixes(failed: list[_Check]) -> list[str]:
    """Return the commands that fix these checks, each once, downloads last."""
    if any(check.subject in ("GPU", "memory") for check in failed):
        # The machine is too small for these weights, so do not suggest to download them.
        failed = [check for check in failed if "act2see download" not in check.fix]
    lines = dict.fromkeys(line for check in failed for line in check.fix.splitlines())
    return sorted(lines, key=_order_of_fix)


def _order_of_fix(line: str) -> int:
    if line.startswith("act2see serve"):
        return 2  # it serves what was downloaded
    return 1 if line.startswith("act2see download") else 0


def _check_packages(config: Config) -> Iterator[_Check]:
    for name in _PACKAGES:
        yield _check_package(name)
    yield _check_package(*_FAISS)
    optional = {
        "decord2": config.video.decoder == "decord",
        "peft": config.reasoner.adapter is not None,
    }
    for name, is_needed in optional.items():
        check = _check_package(name)
        if check.passed or is_needed:
            yield check


def _check_package(*names: str) -> _Check:
    """Check that one of these packages is installed."""
    from importlib.metadata import PackageNotFoundError, version

    for name in names:
        try:
            return _Check(True, name, version(name))
        except PackageNotFoundError:
            continue
    return _Check(False, names[0], "not installed", f"pip install {names[0]}")


def _check_key(reasoner: ReasonerConfig) -> Iterator[_Check]:
    """Check that a chat model's package and key are present, and that the provider has the model."""
    if reasoner.use != "chat":
        return
    from act2see.agent.reasoners.chat.setup import chat_model, missing_key
    from act2see.errors import ConfigError

    name = reasoner.weights
    try:
        model = chat_model(name, reasoner.options, "reasoner.weights")
    except ConfigError as e:
        key = None
        if "pip install" not in str(e):
            key = missing_key(name, reasoner.options, str(e))
        if key:
            fix = f"export {key}=... (the key of your account there)"
            yield _Check(False, "reasoner", f"{name}: no key ({key})", fix)
        else:
            yield _Check(False, "reasoner", f"{name}: cannot be set up", str(e))
    else:
        yield _check_model(name, model)


def _check_model(name: str, model: Any) -> _Check:
    """Check that a chat model's provider can be reached, accepts the key, and has the model."""
    from act2see.agent.reasoners.chat.probe import look_up
    from act2see.errors import SetupError

    try:
        listing = asyncio.run(look_up(model, name))
    except SetupError as e:
        return _Check(False, "reasoner", f"{name}: cannot be used", str(e))
    sent = "frames are sent to the provider"
    if listing.exists is None:
        return _Check(True, "reasoner", f"{name}: can be set up; its provider does not list models; {sent}")
    if listing.exists:
        return _Check(True, "reasoner", f"{name}: its provider accepts the key and has the model; {sent}")
    fix = "set `reasoner.weights` in a config file to a model that the provider has"
    if listing.nearest:
        fix += f", such as {' or '.join(listing.nearest)}"
    return _Check(False, "reasoner", f"{name}: its provider has no such model for this key", fix)


def _check_server(config: Config, option: str) -> Iterator[_Check]:
    """Check that a llama.cpp server answers and has room for a run."""
    reasoner = config.reasoner
    if reasoner.use != "llama-cpp":
        return
    from act2see.agent.reasoners.llama_cpp.reasoner import LlamaCppReasoner
    from act2see.cli.serve_llama_cpp import INSTALL
    from act2see.errors import Act2SeeError
    from act2see.graphs.parts import reasoner_needs
    from act2see.tools.video.store import FrameStore

    try:
        options = {**reasoner.options, "silence": _SERVER_SECONDS}
        server = LlamaCppReasoner.from_options(
            reasoner.weights, FrameStore(), options, needs=reasoner_needs(config)
        )
        asyncio.run(server.check())
    except Act2SeeError as e:
        fix = ""
        if "no server answers" in str(e):
            if shutil.which("llama-server") is None:
                fix = f"install llama.cpp: {INSTALL}\n"
            fix += f"act2see serve llama-cpp{option} (and leave it running)"
        yield _Check(False, "server", str(e), fix)
    else:
        finding = f"llama-server at {server.url}: reads pictures, {server.context:,} tokens a slot"
        yield _Check(True, "server", finding)


def _check_weights(needed: Iterable[Needed], option: str) -> Iterator[_Check]:
    for weights in needed:
        facts = "; ".join(_facts(weights))
        if weights.folder:
            yield _Check(True, weights.part, f"{weights.name}: {facts}")
            continue
        finding = f"{weights.name}: {weights.problem}"
        if facts:
            finding += f" ({facts})"
        yield _Check(False, weights.part, finding, _fix_weights(weights, option))


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
    if not weights.of_hub:
        return weights.problem
    fix = f"act2see download{option}"
    if weights.known and weights.known.gated:
        page = f"the hub's page of {weights.name}"
        login = f"hf auth login (with an account that has accepted the licence on {page})"
        return f"{login}\n{fix}"
    return fix


def _check_threshold(config: Config, option: str) -> Iterator[_Check]:
    """Show the score below which a frame does not match, and whether it is calibrated."""
    from act2see.cli.thresholds import describe_threshold, is_uncalibrated, stored_calibration
    from act2see.errors import ConfigError, StoreError

    try:
        calibration = stored_calibration(config)
        finding = describe_threshold(config, calibration)
        if is_uncalibrated(config, calibration):
            finding += f"; act2see calibrate VIDEO...{option} finds one"
    except StoreError as e:
        yield _Check(False, "threshold", str(e), f"act2see calibrate VIDEO...{option}")
    except ConfigError:
        return  # `_check_weights` reports a tool that cannot be created
    else:
        yield _Check(True, "threshold", finding)


def _check_disk(needed: Iterable[Needed]) -> Iterator[_Check]:
    """Check that the disk has room for the missing weights."""
    from act2see.tools.runtime.hub import cache_folder, free_space

    by_name = {weights.name: weights for weights in needed}  # two parts may share weights
    missing = sum(weights.disk or 0.0 for weights in by_name.values())
    if missing:
        free = free_space(cache_folder())
        finding = f"{cache_folder()}, {format_bytes(free)} free; {format_bytes(missing)} to download"
        fix = f"export HF_HOME=FOLDER (one with {format_bytes(missing)} free)"
        yield _Check(missing < free, "disk", finding, fix)


def _check_memory(needed: Iterable[Needed]) -> Iterator[_Check]:
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
            yield _Check(False, device, finding, "set `device: auto` in your config file")
            continue
        finding = f"{name}, {format_bytes(memory)}; the weights take {format_bytes(total)}"
        fix = (
            f"use a machine with more than {format_bytes(total)} of memory on its device, "
            "or smaller weights in a config file"
        )
        yield _Check(total < memory, device, finding, fix)


def _check_speed(needed: Iterable[Needed]) -> Iterator[_Check]:
    """Warn of bfloat16 on a CPU that has no instructions for it."""
    from act2see.tools.runtime.weights import has_fast_bfloat16

    slow = [weights.part for weights in needed if weights.device == "cpu" and weights.dtype == "bfloat16"]
    if slow and not has_fast_bfloat16():
        parts = ", ".join(slow)
        advice = "`dtype: auto` computes in float32, which takes twice the memory"
        yield _Check(True, "dtype", f"bfloat16 is tens of times slower on this CPU ({parts}): {advice}")


def _check_machine(needs: NeedsConfig) -> Iterator[_Check]:
    """Check the total memory that the configuration declares, which includes caches and activations."""
    from act2see.graphs.machine import device_memory, has_memory

    smaller = _SMALLER if needs.gpu > 24 else _SMALLEST
    for subject, device, gigabytes in (("GPU", "cuda", needs.gpu), ("memory", "cpu", needs.ram)):
        if not gigabytes:
            continue
        name, memory = device_memory(device)
        has = name if memory is None else f"{name}, {format_bytes(memory)}"
        yield _Check(has_memory(memory, gigabytes), subject, f"{has}; {gigabytes:g} GB needed", smaller)


def _check_cache(configured: str | None) -> _Check:
    from act2see.tools.video.store import default_cache

    cache = Path(configured).expanduser() if configured else default_cache()
    existing = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return _Check(True, "cache", f"{cache}, {format_bytes(shutil.disk_usage(existing).free)} free")
    fix = "export ACT2SEE_CACHE=FOLDER (one that you can write to)"
    return _Check(False, "cache", f"{cache} cannot be written", fix)
