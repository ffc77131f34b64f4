"""Fetch weights from a hub: the files that are loaded, and no others.

Those are safetensors, JSON and tokenizer files; never pickles, never code. Of a pipeline, only the folders
that its `model_index.json` names (such repositories also hold the same weights in one file for other
programs), and not the parts that a configuration leaves out. Second copies in another precision
(`model.fp16.safetensors`) stay where they are.

`huggingface_hub` does the fetching: a connection that is cut is taken up again where it stopped, and a second
call fetches what the first had not finished, file by file. Files land in its cache, where transformers and
diffusers look. `HF_ENDPOINT` (or `endpoint`) names another hub or a mirror.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

from act2see.errors import UnreachableError, WeightsError
from act2see.tools.runtime.catalogue import catalogue

_TOKENIZER = frozenset(
    {"merges.txt", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"}
)
_SPARE = 1 << 30  # what a disk should have left

Report = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Files:
    """What will be fetched of a repository: names and sizes in bytes."""

    name: str
    sizes: Mapping[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


def cache_folder() -> Path:
    """Where fetched weights are kept; `HF_HOME` moves it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def free_space(folder: Path) -> int:
    """Bytes that may still be written where this folder is, or will be."""
    return shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.exists())).free


def list_files(
    name: str, *, without: Collection[str] = (), endpoint: str | None = None, token: str | None = None
) -> Files:
    """Ask the hub which files there are. Raises `WeightsError`."""
    from huggingface_hub import HfApi, hf_hub_download

    try:
        found = HfApi(endpoint=endpoint, token=token).model_info(name, files_metadata=True)
        sizes = {s.rfilename: s.size or 0 for s in found.siblings or ()}
        index = None
        if "model_index.json" in sizes:
            path = hf_hub_download(
                name, "model_index.json", revision=found.sha, endpoint=endpoint, token=token
            )
            index = json.loads(Path(path).read_text(encoding="utf-8"))
    except Exception as e:
        raise told(name, e, endpoint) from e
    chosen = {f: sizes[f] for f in wanted(sizes, index, without)}
    if not any(f.endswith(".safetensors") for f in chosen):
        raise WeightsError(
            f"{name} has no weights as safetensors, and no others are loaded: choose another repository"
        )
    return Files(name, chosen)


def wanted(
    names: Collection[str], index: Mapping[str, Any] | None = None, without: Collection[str] = ()
) -> list[str]:
    """Which of a repository's files are loaded. `index` is a pipeline's `model_index.json`, `without` the
    parts not to load."""
    parts = None
    if index is not None:
        left_out = {*without, *(part.replace("text_encoder", "tokenizer") for part in without)}
        parts = {p for p, kind in index.items() if isinstance(kind, list) and kind[0] and p not in left_out}
    nested = "modules.json" in names  # of sentence-transformers: its parts are folders
    return [
        name
        for name in names
        if _loaded(PurePosixPath(name)) and _in_place(PurePosixPath(name), parts, nested)
    ]


def _loaded(path: PurePosixPath) -> bool:
    if ".index." in path.name:
        return path.name.endswith(".safetensors.index.json")
    return (
        path.suffix == ".json"
        or path.name in _TOKENIZER
        or (path.suffix == ".safetensors" and path.name.count(".") == 1)
    )


def _in_place(path: PurePosixPath, parts: Collection[str] | None, nested: bool) -> bool:
    folder = path.parent.as_posix()
    if parts is None:
        return folder == "." or nested
    return path.name == "model_index.json" if folder == "." else folder in parts


def fetch(
    files: Files, *, endpoint: str | None = None, token: str | None = None, report: Report | None = None
) -> Path:
    """The folder with these files; what is there is not fetched again. `report` hears of bytes as they come.

    Raises `WeightsError`, also where the disk has no room for what is missing.
    """
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    missing = sum(
        size for f, size in files.sizes.items() if not isinstance(try_to_load_from_cache(files.name, f), str)
    )
    free = free_space(cache_folder())
    if missing + _SPARE > free:
        raise WeightsError(
            f"{files.name} takes {missing / 1e9:.1f} GB more and {cache_folder()} has {free / 1e9:.1f} GB free: "
            "free some space, or export HF_HOME=FOLDER on a larger disk"
        )
    try:
        return Path(
            snapshot_download(
                files.name,
                allow_patterns=[escape(f) for f in files.sizes],
                endpoint=endpoint,
                token=token,
                tqdm_class=_bar(report or (lambda _: None)),
            )
        )
    except Exception as e:
        raise told(files.name, e, endpoint) from e


def told(name: str, error: Exception, endpoint: str | None = None) -> WeightsError:
    """A hub's failure, and what to do about it, in a line."""
    from huggingface_hub import constants, errors

    hub = endpoint or constants.ENDPOINT
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and isinstance(cause, Exception):
        causes.append(cause)
    if any(isinstance(c, errors.GatedRepoError) for c in causes):
        known = catalogue().get(name)
        licence = f" ({known.licence})" if known else ""
        return WeightsError(
            f"{name} is gated: sign in at {hub}/{name} and accept its licence{licence}, then `hf auth login`, and run this again"
        )
    if any(isinstance(c, errors.RepositoryNotFoundError) for c in causes):
        return WeightsError(
            f"{hub} has no repository {name} that you may see: check the name, or `hf auth login` if it is private"
        )
    if any(isinstance(c, errors.OfflineModeIsEnabled) for c in causes):
        return UnreachableError(
            f"{name} is not in {cache_folder()} and HF_HUB_OFFLINE is set: unset it to download, or copy that folder from elsewhere"
        )
    status = next((c.response.status_code for c in causes if isinstance(c, errors.HfHubHTTPError)), None)
    if status is not None:
        return WeightsError(f"{hub} answered {status} for {name}: run this again, whole files are kept")
    if any(type(c).__name__ in ("ConnectError", "ConnectTimeout", "ProxyError") for c in causes):
        return UnreachableError(
            f"{hub} cannot be reached: check the connection or the proxy, or set HF_ENDPOINT to a mirror; offline, run this where "
            f"there is one, copy {cache_folder()} here, and export HF_HUB_OFFLINE=1"
        )
    said = " ".join((str(error) or repr(error)).split())
    return WeightsError(
        f"the download of {name} stopped: {said.rstrip('.')[:300]}; run this again, whole files are kept"
    )


def _bar(report: Report) -> Any:
    """What huggingface_hub takes for a progress bar: it shows nothing, and reports bytes written."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Of its two bars in bytes the other counts what crosses the network, which is the same over HTTP.
            self._counts = kwargs.get("unit") == "B" and "Downloading" not in str(kwargs.get("desc"))
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if self._counts and n:
                report(int(n))
            return None

    return Bar
