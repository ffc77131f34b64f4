"""Where weights are: shipped with the package, in a local folder, or on a hub.

`micro:vlm` names a folder that ships in the package; a path names itself; anything else is a hub repository,
taken from the local cache or fetched by the loader that asks for it. Safetensors only, no remote code.
"""

from __future__ import annotations

from pathlib import Path

from act2see.errors import WeightsError


def resolve_weights(name: str) -> str:
    """A folder, or the hub name unchanged. Raises where a local folder is named but is not there."""
    if name.startswith("micro:"):
        folder = Path(__file__).parent.parent / "micro" / "weights" / name.removeprefix("micro:")
        if not folder.is_dir():
            raise WeightsError(f"the micro weights {folder.name!r} are not in this installation; run `act2see micro train` to make them")
        return str(folder)
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise WeightsError(f"there is no weight folder {name}; check the path in the config, or name a hub repository as owner/name")
        return str(folder)
    return name


def not_loaded(what: str, name: str, error: Exception) -> WeightsError:
    """Why weights cannot be loaded, in a line, and what to do where a hub was asked for them."""
    said = str(error).splitlines()[0].rstrip(" .") if str(error) else type(error).__name__
    hub = "" if Path(resolve_weights(name)).is_dir() else "; act2see download fetches them, act2see doctor says what is here"
    return WeightsError(f"{what} {name} cannot be loaded: {said}{hub}")


def pick_device(device: str) -> str:
    """`auto` is the first accelerator, else the CPU."""
    if device != "auto":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
