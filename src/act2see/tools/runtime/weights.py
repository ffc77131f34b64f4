"""The location of weights: shipped with the package, in a local folder, or in the cache of a hub.

`micro:vlm` names a folder in the package; a path names itself; any other name is a hub repository, with or
without a revision (`revisions.py`), which `act2see download` fetches into the hub's cache. Loading never
downloads: a question must not wait for gigabytes. Only safetensors are loaded, and no remote code is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from act2see.errors import WeightsError
from act2see.tools.runtime.gguf import find_gguf, is_gguf
from act2see.tools.runtime.revisions import (
    check_name,
    is_folder,
    name_in_address,
    revisions_to_load,
    split_revision,
)
from act2see.tools.runtime.text import first_line

# Every repository has one of these files, so the first one found in the cache locates the folder.
_CONFIG_FILES = ("model_index.json", "config.json", "adapter_config.json", "modules.json")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Weights that a part of a graph will load."""

    part: str
    """The part: `reasoner`, `encoder` or a tool's tag."""
    name: str
    """Name of the weights in the config."""
    without: tuple[str, ...] = ()
    """Parts of a pipeline that are not loaded."""


@runtime_checkable
class UsesWeights(Protocol):
    """An optional part of a reasoner, an encoder or a tool: the weights that it loads on this machine."""

    def wanted(self) -> Iterator[Wanted]:
        """Yield the weights that would be loaded now; none if they are loaded."""
        ...


def resolve_weights(name: str) -> str:
    """Return the folder of weights, or the name of a hub repository unchanged.

    Raises:
        WeightsError: The name means a folder that does not exist.
    """
    if name.startswith("micro:"):
        folder = Path(__file__).parents[2] / "micro" / "weights" / name.removeprefix("micro:")
        if not folder.is_dir():
            raise WeightsError(
                f"the micro weights {folder.name!r} are not in this installation; "
                "run `act2see micro train` to make them"
            )
        return str(folder)
    if found := name_in_address(name):
        raise WeightsError(f"{name} is the address of hub weights: write {found}")
    if split_revision(name)[1] is not None:
        return name
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1:
        folder = Path(name).expanduser()
        if not is_folder(str(folder)):
            raise WeightsError(
                f"there is no weight folder {name}; check the path in the config, "
                "or name a hub repository as owner/name"
            )
        return str(folder)
    return name


def is_of_hub(name: str) -> bool:
    """Return whether weights of this name would come from a hub."""
    try:
        if name.startswith("micro:") or resolve_weights(name) != name or is_folder(name):
            return False
        check_name(name)
    except WeightsError:
        return False  # a local folder that does not exist, or no name at all
    return True


def find_weights(name: str) -> Path:
    """Return the folder of weights.

    Raises:
        WeightsError: The weights are not on this machine, or the name can be neither a folder nor a
            repository.
    """
    place = resolve_weights(name)
    if is_folder(place):
        return Path(place)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    check_name(place)
    repository = split_revision(place)[0]
    for revision in revisions_to_load(place):
        try:
            found = [try_to_load_from_cache(repository, file, revision=revision) for file in _CONFIG_FILES]
        except HFValidationError as e:  # a quantisation
            raise WeightsError(f"{name!r} names GGUF files, which only a llama.cpp server loads") from e
        except OSError as e:
            raise WeightsError(f"the hub's cache cannot be read: {e.strerror or e}") from e
        if cached := next((file for file in found if isinstance(file, str)), None):
            return Path(cached).parent
    raise WeightsError("not downloaded")


def cached_folder(name: str) -> str:
    """Return the folder to load weights from; the name of a hub repository that is not downloaded unchanged.

    Raises:
        WeightsError: The name means a folder that does not exist, or can be neither a folder nor a
            repository.
    """
    try:
        return str(find_weights(name))
    except WeightsError:
        repository = resolve_weights(name)
        check_name(repository)
        if ":" in repository:  # GGUF files
            raise
        return repository


def weight_files(folder: Path, without: Sequence[str] = ()) -> Iterator[tuple[str, list[Path]]]:
    """Yield the name of each part with the safetensors files that a loader reads for it.

    Args:
        folder: The folder of a model, a diffusers pipeline or a sentence-transformers model.
        without: Parts of a pipeline that are not loaded.

    Raises:
        WeightsError: A file is missing.
    """
    for name, part in _parts(folder, without).items():
        index = next(iter(sorted(part.glob("*.safetensors.index.json"))), None)
        if index:
            shards = {part / file for file in _json(index)["weight_map"].values()}
        else:
            # A variant (`model.fp16.safetensors`) is a second copy of the same weights.
            shards = {file for file in part.glob("*.safetensors") if file.name.count(".") == 1}
        if not shards or not all(shard.is_file() for shard in shards):
            raise WeightsError(f"incomplete: safetensors files are missing in {part}")
        yield name, sorted(shards)


def _parts(folder: Path, without: Sequence[str]) -> dict[str, Path]:
    """Return the folders with weights, by name."""
    pipeline = folder / "model_index.json"
    if pipeline.is_file():
        parts = {}
        for part, kind in _json(pipeline).items():
            used = isinstance(kind, list) and kind[0] and part not in without
            if used and _has_weights(part):
                parts[part] = folder / part
        return parts
    modules = folder / "modules.json"
    if modules.is_file():  # sentence-transformers: each module has a folder, and some have no weights
        named = {module["path"]: folder / module["path"] for module in _json(modules)}
        with_weights = {name: part for name, part in named.items() if any(part.glob("*.safetensors"))}
        if with_weights:
            return with_weights
    return {"model": folder}


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _has_weights(part: str) -> bool:
    return not part.startswith(("tokenizer", "scheduler", "feature_extractor", "image_encoder"))


def what_is_missing(wanted: Wanted) -> str:
    """Return why weights cannot be loaded: `not downloaded`, `incomplete: ...`; empty if they can be."""
    try:
        if is_gguf(wanted.name):
            find_gguf(wanted.name)
            return ""
        for _ in weight_files(find_weights(wanted.name), wanted.without):
            pass
    except (WeightsError, OSError, ValueError) as e:
        return str(e) or type(e).__name__
    return ""


def wanted_by(part: object) -> Iterator[Wanted]:
    """Yield the weights that a part would load now; none unless it `UsesWeights`."""
    if isinstance(part, UsesWeights):
        yield from part.wanted()


def read_ahead(wanted: Iterable[Wanted]) -> None:
    """Ask the system to read files of weights into its memory, where loading them will find them.

    Models are not loaded ahead: loading one changes torch's default data type for the whole process, and the
    reasoner may be computing. Missing weights are skipped, and so is everything on systems without such
    advice.

    Args:
        wanted: The weights that a call would load.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for weights in wanted:
        try:
            parts = [*weight_files(find_weights(weights.name), weights.without)]
        except (WeightsError, OSError, ValueError):
            continue  # the call reports it
        for file in (file for _, files in parts for file in files):
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)


def local_weights(what: str, name: str, without: Sequence[str] = ()) -> str:
    """Return the folder to load weights from.

    Args:
        what: A description of the weights, for the message.
        name: Name of the weights in the config.
        without: Parts of a pipeline that are not loaded.

    Raises:
        WeightsError: A file is missing.
    """
    if wrong := what_is_missing(Wanted(what, name, tuple(without))):
        raise not_loaded(what, name, WeightsError(wrong))
    return str(find_weights(name))


def not_loaded(what: str, name: str, error: Exception) -> WeightsError:
    """Return the error for weights that cannot be loaded; for weights of a hub, with the download command.

    Args:
        what: A description of the weights.
        name: Name of the weights in the config.
        error: The loader's error.
    """
    why = first_line(error, 1000).rstrip(" .")
    hub = f"; download them: act2see download {name}" if is_of_hub(name) else ""
    return WeightsError(f"{what} {name} cannot be loaded: {why}{hub}")


def pick_device(device: str) -> str:
    """Return the device to use; `auto` is the first accelerator, else the CPU."""
    if device != "auto":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(dtype: str, device: str) -> str:
    """Return the data type to compute in, by torch's name.

    `auto` is bfloat16 where it is fast (a CUDA GPU, a CPU with its instructions), float16 on an Apple GPU,
    and float32 on other CPUs.
    """
    if dtype != "auto":
        return dtype
    if device.startswith("cuda"):
        return "bfloat16"
    if device.startswith("mps"):
        return "float16"
    return "bfloat16" if has_fast_bfloat16() else "float32"


def has_fast_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16; without them it is tens of times slower."""
    import torch

    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private, and not in every version
    return any(bool(getattr(torch.cpu, test, bool)()) for test in tests)
