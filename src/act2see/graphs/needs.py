"""What a configuration needs, and whether it is here: weights, memory, a chat model's key, a server.

Nothing is loaded or fetched. Weights are looked for in their folders and in the hub's cache; their sizes come
from the headers of safetensors files, or from the catalogue if they are not here yet. A chat model's key is
found when its graph is built and tried with one small request; a vLLM server is asked for its limits.

`needed_weights` lists everything, for `doctor` and `download`. `check_ready` begins every run (in the node
`view`), so that the command line, the page and servers all say in one line what is missing, and the command
that fetches it. Weights that were found once are not looked for again.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from act2see.errors import Act2SeeError, ConfigError, SetupError, WeightsError
from act2see.graphs.config import PRESETS, Config, load_config
from act2see.graphs.parts import Parts, cached_parts
from act2see.tools.plugins import chosen_tool
from act2see.tools.runtime.catalogue import BYTES, Known, catalogue, memory_of
from act2see.tools.runtime.forks import natively
from act2see.tools.runtime.weights import (
    Wanted,
    find_weights,
    is_of_hub,
    pick_device,
    wanted_by,
    weight_files,
    what_is_missing,
)

SHIPPED = Path(__file__).parents[1] / "micro" / "weights"


@dataclass(frozen=True, slots=True)
class Needed:
    """One set of weights. Sizes are in bytes, and None if they are unknown."""

    part: str
    """The part that loads them: `reasoner`, `encoder`, `adapter`, or a tool's tag."""
    name: str
    """A folder, or a hub name."""
    device: str
    folder: Path | None
    """Where they are; None if they are missing."""
    memory: float | None
    """Taken on the device."""
    estimated: bool = False
    """Whether the sizes are the catalogue's."""
    problem: str = ""
    """What is wrong with them; empty if they can be loaded."""
    ram: float = 0.0
    """Taken in the CPU's memory, by parts that wait there."""
    disk: float | None = 0.0
    """Still to be fetched."""
    known: Known | None = None
    """Their entry in the catalogue."""
    without: tuple[str, ...] = ()
    """Parts of a pipeline that are not loaded."""

    @property
    def of_hub(self) -> bool:
        """Whether a hub may have them."""
        return is_of_hub(self.name)


def configured_weights(config: Config) -> Iterator[Wanted]:
    """The weights that the parts of a configuration load on this machine; those of a server are not its own.

    Raises:
        ConfigError: A tool does not exist, or cannot take its options.
    """
    if config.reasoner.use == "transformers":
        yield Wanted("reasoner", config.reasoner.weights)
    yield Wanted("encoder", config.encoder.weights)
    for tag, settings in config.tools.items():
        _, options = chosen_tool(settings.use, tag, settings.options, config.folder)
        if isinstance(name := getattr(options, "weights", None), str):
            yield Wanted(tag, name, _left_out(options))


def needed_weights(config: Config) -> list[Needed]:
    """The weights of the reasoner, its adapter, the encoder and the tools, with their sizes.

    A tool that cannot be made is listed with its problem, so that the others are seen too.
    """
    reasoner, encoder = config.reasoner, config.encoder
    found = []
    if reasoner.use == "transformers":
        found.append(_needed("reasoner", reasoner.weights, reasoner.device, reasoner.dtype))
    found.append(_needed("encoder", encoder.weights, encoder.device, encoder.dtype))
    if reasoner.adapter:
        found.append(_needed("adapter", reasoner.adapter, reasoner.device, reasoner.dtype))
    for tag, settings in config.tools.items():
        try:
            _, options = chosen_tool(settings.use, tag, settings.options, config.folder)
        except ConfigError as e:
            device = pick_device(reasoner.device)
            found.append(Needed(tag, settings.use, device, folder=None, memory=None, problem=str(e)))
            continue
        if isinstance(name := getattr(options, "weights", None), str):
            device, dtype = getattr(options, "device", "auto"), getattr(options, "dtype", "auto")
            found.append(_needed(tag, name, device, dtype, options))
    return found


def _needed(part: str, name: str, device: str, dtype: str, options: Any = None) -> Needed:
    device = pick_device(device)
    itemsize = BYTES.get(dtype, 2 if device == "cuda" else 4)
    without = _left_out(options)
    known = catalogue().get(name)
    folder, problem = None, ""
    try:
        folder = find_weights(name)
        sizes = {p: sum(map(_parameters, files)) for p, files in weight_files(folder, without)}
    except (WeightsError, OSError, ValueError) as e:
        folder, problem = None, str(e)
        sizes = {p: n for p, n in known.parts.items() if p not in without} if known else {}
    if not sizes and problem:
        return Needed(
            part,
            name,
            device,
            folder=None,
            memory=None,
            estimated=True,
            problem=problem,
            disk=None,
            known=known,
            without=without,
        )
    # On a CPU nothing is offloaded: it is there already.
    offload = getattr(options, "offload", "none") if device != "cpu" else "none"
    quantised = getattr(options, "quantise", "none") != "none"
    use = memory_of(sizes, itemsize, quantised=quantised, offload=offload)
    return Needed(
        part,
        name,
        device,
        folder=folder,
        memory=use.device,
        estimated=bool(problem),
        problem=problem,
        ram=use.ram,
        disk=known.disk(without) if problem and known else 0.0,
        known=known,
        without=without,
    )


def _left_out(options: Any) -> tuple[str, ...]:
    """The parts of a pipeline that a tool's options leave out."""
    return () if getattr(options, "text_encoder_3", True) else ("text_encoder_3",)


def _parameters(file: Path) -> int:
    """Parameters of a safetensors file, from its header."""
    with file.open("rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


async def check_ready(
    config: Config, parts: Parts | None = None, tools: Collection[str] | None = None
) -> None:
    """Raise unless a run of this configuration can begin.

    Args:
        config: The configuration.
        parts: The parts of the graph; by default those that graphs of this configuration share.
        tools: The tags that the run may call; by default all.

    Raises:
        ConfigError: A package or a key is missing.
        WeightsError: Weights are missing; the message has the command that fetches them.
        SetupError: A server cannot be reached, or refuses the key.
    """
    chosen = await asyncio.to_thread(cached_parts, config) if parts is None else parts
    missing = await asyncio.to_thread(missing_weights, chosen, tools)
    wrong: Act2SeeError | None = missing_error(missing, config) if missing else None
    # Both problems are reported at once: nobody should fetch gigabytes and only then hear of a wrong key.
    try:
        await chosen.reasoner.check()
    except SetupError as e:
        if wrong is None:
            raise
        wrong = WeightsError(f"{e}; and {wrong}")
    if wrong:
        raise wrong


@natively  # it imports the hub's library
def missing_weights(parts: Parts, tools: Collection[str] | None = None) -> list[tuple[Wanted, str]]:
    """The weights that a run would load and that are not here, each with its problem."""
    wanted = [*wanted_by(parts.reasoner)]
    for tag, tool in parts.tools.items():
        if tools is None or tag in tools:
            wanted += wanted_by(tool)
    problems = {weights: what_is_missing(weights) for weights in dict.fromkeys(wanted)}
    return [(weights, problem) for weights, problem in problems.items() if problem]


def missing_error(missing: Sequence[tuple[Wanted, str]], config: Config) -> WeightsError:
    """All missing weights in one line, with the command that fetches those of a hub."""
    absent = [weights.name for weights, problem in missing if problem == "not downloaded"]
    lines = []
    if absent:
        lines.append(f"{_listed(absent)} {'is' if len(absent) == 1 else 'are'} not downloaded")
    for weights, problem in missing:
        if weights.name not in absent:
            lines.append(problem if weights.name in problem else f"{weights.name}: {problem}")
    hub = [weights.name for weights, _ in missing if is_of_hub(weights.name)]
    fetch = ""
    if hub:
        fetch = f"; fetch {'them' if len(hub) > 1 else 'it'} with: {_download_command(hub, config)}"
    return WeightsError(f"weights are missing: {'; '.join(lines)}{fetch}")


def _download_command(names: Sequence[str], config: Config) -> str:
    """The command that fetches these: by the preset that names them all, else by their names."""
    if config.name in PRESETS:
        preset = load_config(config.name)
        if set(names) <= {weights.name for weights in configured_weights(preset)}:
            return f"act2see download --preset {config.name}"
    return f"act2see download {' '.join(dict.fromkeys(names))}"


def _listed(names: Sequence[str]) -> str:
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} and {last}" if others else last
