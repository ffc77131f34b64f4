"""Where weights are: shipped with the package, in a local folder, or in the cache of a hub.

`micro:vlm` names a folder that ships in the package; a path names itself; anything else is a hub repository,
which `act2see download` has fetched into the hub's cache. Nothing is fetched when weights are loaded: a
question must not wait for gigabytes that nobody asked for. Safetensors only, no remote code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from act2see.errors import ConfigError, WeightsError

_NAMING = (
    "model_index.json",
    "config.json",
    "adapter_config.json",
    "modules.json",
)  # one of them is in every repository


@dataclass(frozen=True, slots=True)
class Wanted:
    """Weights that a part will load: their name, and the parts of a pipeline that it leaves out."""

    part: str
    name: str
    without: tuple[str, ...] = ()


def resolve_weights(name: str) -> str:
    """A folder, or the hub name unchanged. Raises where a local folder is named but is not there."""
    if name.startswith("micro:"):
        folder = Path(__file__).parents[2] / "micro" / "weights" / name.removeprefix("micro:")
        if not folder.is_dir():
            raise WeightsError(
                f"the micro weights {folder.name!r} are not in this installation; run `act2see micro train` to make them"
            )
        return str(folder)
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise WeightsError(
                f"there is no weight folder {name}; check the path in the config, or name a hub repository as owner/name"
            )
        return str(folder)
    return name


def is_of_hub(name: str) -> bool:
    """Whether a hub may have them."""
    try:
        return not name.startswith("micro:") and resolve_weights(name) == name and not Path(name).is_dir()
    except WeightsError:
        return False  # a local folder, which is not there


def find_weights(name: str) -> Path:
    """The folder in which they are. Raises `WeightsError` where they are not, `ConfigError` for what is no
    name."""
    place = resolve_weights(name)
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(place, f) for f in _NAMING]
    except HFValidationError as e:
        raise ConfigError(f"{name!r} is neither a folder nor a hub repository (owner/name)") from e
    here = next((f for f in found if isinstance(f, str)), None)
    if here is None:
        raise WeightsError("not downloaded")
    return Path(here).parent


def weight_files(folder: Path, without: Sequence[str] = ()) -> Iterator[tuple[str, list[Path]]]:
    """The safetensors files that a loader reads, by part; raises `WeightsError` where one is missing."""
    pipeline = folder / "model_index.json"
    modules = folder / "modules.json"
    parts = {"model": folder}
    if modules.is_file():  # of sentence-transformers: a folder for each, and not all have weights
        named = {m["path"]: folder / m["path"] for m in json.loads(modules.read_text(encoding="utf-8"))}
        parts = {p: f for p, f in named.items() if any(f.glob("*.safetensors"))} or parts
    if pipeline.is_file():
        kinds = json.loads(pipeline.read_text(encoding="utf-8"))
        used = [
            p
            for p, kind in kinds.items()
            if isinstance(kind, list) and kind[0] and p not in without and _has_weights(p)
        ]
        parts = {p: folder / p for p in used}
    for name, part in parts.items():
        index = next(iter(sorted(part.glob("*.safetensors.index.json"))), None)
        if index:
            shards = {part / f for f in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        else:
            # A variant (`model.fp16.safetensors`) is a second copy of the same weights.
            shards = {f for f in part.glob("*.safetensors") if f.name.count(".") == 1}
        if not shards or not all(s.is_file() for s in shards):
            raise WeightsError(f"incomplete: safetensors files are missing in {part}")
        yield name, sorted(shards)


def _has_weights(part: str) -> bool:
    return not part.startswith(("tokenizer", "scheduler", "feature_extractor", "image_encoder"))


def what_is_missing(wanted: Wanted) -> str:
    """Why these weights cannot be loaded: `not downloaded`, `incomplete: ...`; empty where all is here."""
    try:
        for _ in weight_files(find_weights(wanted.name), wanted.without):
            pass
    except (WeightsError, OSError, ValueError) as e:
        return str(e) or type(e).__name__
    return ""


def wanted_by(part: Any) -> Iterator[Wanted]:
    """The weights that a part would load now. Parts that load none, and those of other people, need not say
    so."""
    yield from part.wanted() if hasattr(part, "wanted") else ()


def local_weights(what: str, name: str, without: Sequence[str] = ()) -> str:
    """The folder to load from, with all that is loaded in it. Raises `WeightsError`, which says `what` they
    are."""
    if wrong := what_is_missing(Wanted(what, name, tuple(without))):
        raise not_loaded(what, name, WeightsError(wrong))
    return str(find_weights(name))


def not_loaded(what: str, name: str, error: Exception) -> WeightsError:
    """Why weights cannot be loaded, in a line, and what to do where they are a hub's."""
    said = str(error).splitlines()[0].rstrip(" .") if str(error) else type(error).__name__
    hub = f"; act2see download fetches them: act2see download {name}" if is_of_hub(name) else ""
    return WeightsError(f"{what} {name} cannot be loaded: {said}{hub}")


def pick_device(device: str) -> str:
    """`auto` is the first accelerator, else the CPU."""
    if device != "auto":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
