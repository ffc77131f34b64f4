"""The requirements of a configuration: weights, memory, a chat model's key, a server.

Nothing is loaded or fetched. Weights are looked for in their folders and in the hub's cache. Their sizes come
from the headers of safetensors files, or from the catalogue if they are not downloaded. A chat model's key is
tested with one small request, and a vLLM server is asked for its limits.

`needed_weights` lists all weights, for `doctor` and `download`. `check_ready` runs at the start of every run,
in the node `view`. So the command line, the page and the servers report in the same line what is missing,
and the command that fetches it. Weights that are already loaded are not checked again.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel

from act2see.errors import Act2SeeError, ConfigError, SetupError, WeightsError
from act2see.graphs.config import PRESETS, Config, load_config
from act2see.graphs.parts import Parts, cached_parts
from act2see.graphs.sections import ReasonerConfig
from act2see.tools.plugins import chosen_tool
from act2see.tools.runtime.catalogue import BYTES, Known, known_weights, memory_of
from act2see.tools.runtime.forks import natively
from act2see.tools.runtime.gguf import find_gguf, is_gguf
from act2see.tools.runtime.weights import (
    Wanted,
    find_weights,
    is_of_hub,
    pick_device,
    pick_dtype,
    wanted_by,
    weight_files,
    what_is_missing,
)

SERVED = ("reasoner", "mmproj")
"""The parts that a llama.cpp server loads."""
_IN_PROCESS = ("transformers", "vllm")
SHIPPED = Path(__file__).parents[1] / "micro" / "weights"


@dataclass(frozen=True, slots=True)
class Needed:
    """The weights of one part. Sizes are in bytes, and None if they are unknown."""

    part: str
    """The part that loads the weights: `reasoner` (and `mmproj`, its vision file, if that is named apart),
    `encoder`, `adapter`, or a tool's tag."""
    name: str
    """A folder, or a hub name."""
    device: str
    folder: Path | None
    """The folder of the weights; None if they are missing."""
    memory: float | None
    """Memory used on the device."""
    estimated: bool = False
    """Whether the sizes come from the catalogue."""
    dtype: str = "auto"
    """The data type of the configuration."""
    problem: str = ""
    """The reason why the weights cannot be loaded; empty if they can."""
    fix: str = ""
    """What to write or to type for weights that are no matter of a download."""
    ram: float = 0.0
    """Memory used on the CPU by offloaded parts."""
    disk: float | None = 0.0
    """Size of the files that are still to be downloaded."""
    known: Known | None = None
    """The entry of the weights in the catalogue."""
    without: tuple[str, ...] = ()
    """Parts of a pipeline that are not loaded."""

    @property
    def of_hub(self) -> bool:
        """Whether the weights come from a hub."""
        return is_of_hub(self.name)


@dataclass(frozen=True, slots=True)
class _WeightOptions:
    """The options of a part that loads weights. Tools share these names by convention."""

    weights: str
    device: str = "auto"
    dtype: str = "auto"
    offload: str = "none"
    quantise: str = "none"
    text_encoder_3: bool = True

    @property
    def without(self) -> tuple[str, ...]:
        """The parts of a pipeline that are not loaded."""
        return () if self.text_encoder_3 else ("text_encoder_3",)


def _weight_options(options: BaseModel) -> _WeightOptions | None:
    """Return the options that concern weights; None if the tool loads none."""
    values = options.model_dump(include={f.name for f in fields(_WeightOptions)})
    return _WeightOptions(**values) if isinstance(values.get("weights"), str) else None


def configured_weights(config: Config) -> Iterator[Wanted]:
    """Yield the weights that a configuration loads on this machine, without those of a server on another.

    Raises:
        ConfigError: A tool does not exist, or its options are invalid.
    """
    if config.reasoner.use in _IN_PROCESS or _is_served_here(config.reasoner):
        yield Wanted("reasoner", config.reasoner.weights)
    yield Wanted("encoder", config.encoder.weights)
    for tag, settings in config.tools.items():
        _, tool_options = chosen_tool(settings.use, tag, settings.options, config.folder)
        if options := _weight_options(tool_options):
            yield Wanted(tag, options.weights, options.without)


def needed_weights(config: Config) -> list[Needed]:
    """Return the weights of the reasoner, its adapter, the encoder and the tools, with their sizes.

    A tool that cannot be created is listed with its problem, and the others are still listed.
    """
    reasoner = config.reasoner
    encoder = config.encoder
    needed = []
    if reasoner.use in _IN_PROCESS:
        needed.append(_measure("reasoner", _WeightOptions(reasoner.weights, reasoner.device, reasoner.dtype)))
    elif _is_served_here(reasoner):
        needed.append(_measure_gguf(reasoner.weights))
    elif _is_local_gguf(reasoner):
        needed += _measure_files(reasoner)
    needed.append(_measure("encoder", _WeightOptions(encoder.weights, encoder.device, encoder.dtype)))
    if reasoner.adapter:
        needed.append(_measure("adapter", _WeightOptions(reasoner.adapter, reasoner.device, reasoner.dtype)))
    for tag, settings in config.tools.items():
        try:
            _, tool_options = chosen_tool(settings.use, tag, settings.options, config.folder)
        except ConfigError as e:
            device = pick_device(reasoner.device)
            needed.append(Needed(tag, settings.use, device, folder=None, memory=None, problem=str(e)))
            continue
        if options := _weight_options(tool_options):
            needed.append(_measure(tag, options))
    return needed


def _is_served_here(reasoner: ReasonerConfig) -> bool:
    """Whether a llama.cpp server on this machine loads the reasoner's weights from a hub."""
    return _is_here(reasoner) and is_gguf(reasoner.weights)


def _is_local_gguf(reasoner: ReasonerConfig) -> bool:
    """Whether a llama.cpp server on this machine loads the reasoner's weights from a local file."""
    return _is_here(reasoner) and reasoner.weights.lower().endswith(".gguf")


def _is_here(reasoner: ReasonerConfig) -> bool:
    url = str(reasoner.options.get("url") or "http://localhost")
    return reasoner.use == "llama-cpp" and urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def _measure_files(reasoner: ReasonerConfig) -> Iterator[Needed]:
    """Find the local files of a llama.cpp server: the model, and its vision file."""
    device = pick_device("auto")
    files = (
        ("reasoner", "reasoner.weights", reasoner.weights),
        ("mmproj", "reasoner.options.mmproj", reasoner.options.get("mmproj")),
    )
    for part, key, name in files:
        path = Path(str(name)).expanduser()
        if name and path.is_file():
            size = float(path.stat().st_size)
            yield Needed(part, str(name), device, path.parent, size)
            continue
        problem = "no such file" if name else "not named"
        fix = f"set `{key}` to the {'model' if part == 'reasoner' else 'vision'} file (….gguf)"
        yield Needed(part, str(name or key), device, None, None, problem=problem, fix=fix)


def _measure_gguf(name: str) -> Needed:
    """Find the GGUF files of a llama.cpp server, and determine their sizes."""
    device = pick_device("auto")
    known = known_weights(name)
    try:
        found = find_gguf(name)
    except WeightsError as e:
        size = known.disk() if known else None
        return Needed("reasoner", name, device, None, size, True, problem=str(e), disk=size, known=known)
    return Needed("reasoner", name, device, found.model.parent, float(found.bytes), known=known)


def _measure(part: str, options: _WeightOptions) -> Needed:
    """Find the weights of a part, and determine their sizes."""
    name = options.weights
    device = pick_device(options.device)
    known = known_weights(name)
    folder: Path | None = None
    problem = ""
    parameters: dict[str, int] = {}  # by the part of a pipeline
    try:
        folder = find_weights(name)
        for pipeline_part, files in weight_files(folder, options.without):
            parameters[pipeline_part] = sum(map(_count_parameters, files))
    except (WeightsError, OSError, ValueError) as e:
        folder = None
        problem = str(e)
        parts = known.parts if known else {}
        parameters = {p: count for p, count in parts.items() if p not in options.without}
    needed = Needed(
        part,
        name,
        device,
        folder,
        memory=None,
        estimated=bool(problem),
        dtype=options.dtype,
        problem=problem,
        known=known,
        without=options.without,
    )
    if problem and not parameters:
        return replace(needed, disk=None)
    itemsize = BYTES.get(pick_dtype(options.dtype, device), 4)
    offload = options.offload if device != "cpu" else "none"  # offloaded parts go to the CPU anyway
    memory = memory_of(parameters, itemsize, quantised=options.quantise != "none", offload=offload)
    disk = known.disk(options.without) if problem and known else 0.0
    return replace(needed, memory=memory.device, ram=memory.ram, disk=disk)


def _count_parameters(file: Path) -> int:
    """Return the number of parameters in a safetensors file, from its header."""
    with file.open("rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


async def check_ready(
    config: Config | str, parts: Parts | None = None, tools: Collection[str] | None = None
) -> None:
    """Raise an error unless a run of this configuration can start.

    Args:
        config: The configuration, or the name of a preset or a file.
        parts: The parts of the graph; by default those that graphs of this configuration share.
        tools: The tags that the run may call; by default all.

    Raises:
        ConfigError: A package or a key is missing.
        WeightsError: Weights are missing; the message names the command that fetches them.
        SetupError: A server cannot be reached, or refuses the key.
    """
    config = load_config(config)
    chosen = await asyncio.to_thread(cached_parts, config) if parts is None else parts
    missing = await asyncio.to_thread(missing_weights, chosen, tools)
    error: Act2SeeError | None = missing_error(missing, config) if missing else None
    # Report both problems at once, so that a wrong key is not found only after gigabytes are downloaded.
    try:
        await chosen.reasoner.check()
    except SetupError as e:
        if error is None:
            raise
        error = WeightsError(f"{e}; and {error}")
    if error:
        raise error


@natively  # it imports the hub's library
def missing_weights(parts: Parts, tools: Collection[str] | None = None) -> list[tuple[Wanted, str]]:
    """Return the weights that a run would load and that are missing, each with its problem."""
    wanted = [*wanted_by(parts.reasoner)]
    for tag, tool in parts.tools.items():
        if tools is None or tag in tools:
            wanted += wanted_by(tool)
    problems = {weights: what_is_missing(weights) for weights in dict.fromkeys(wanted)}
    return [(weights, problem) for weights, problem in problems.items() if problem]


def missing_error(missing: Sequence[tuple[Wanted, str]], config: Config) -> WeightsError:
    """Return an error that lists the missing weights, with the command that downloads those of a hub."""
    absent = [weights.name for weights, problem in missing if problem == "not downloaded"]
    problems = []
    if absent:
        problems.append(f"{_join(absent)} {'is' if len(absent) == 1 else 'are'} not downloaded")
    for weights, problem in missing:
        if weights.name not in absent:
            problems.append(problem if weights.name in problem else f"{weights.name}: {problem}")
    hub = [weights.name for weights, _ in missing if is_of_hub(weights.name)]
    fetch = ""
    if hub:
        fetch = f"; fetch {'them' if len(hub) > 1 else 'it'} with: {_download_command(hub, config)}"
    return WeightsError(f"weights are missing: {'; '.join(problems)}{fetch}")


def _download_command(names: Sequence[str], config: Config) -> str:
    """Return the command that downloads these weights: by the preset if it has all of them, else by name."""
    if config.name in PRESETS:
        preset = load_config(config.name)
        if set(names) <= {weights.name for weights in configured_weights(preset)}:
            return f"act2see download --preset {config.name}"
    return f"act2see download {' '.join(dict.fromkeys(names))}"


def _join(names: Sequence[str]) -> str:
    """Return the names as `a, b and c`."""
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} and {last}" if others else last
