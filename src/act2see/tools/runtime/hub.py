"""Fetch weights from a hub: the files that are loaded, and no others.

Those are safetensors, JSON and tokenizer files; never pickles, never code. Of a pipeline, only the folders
that its `model_index.json` names are fetched (such repositories also hold the same weights in one file for
other programs), without the parts that a configuration leaves out. Second copies in another precision
(`model.fp16.safetensors`) are not fetched.

`huggingface_hub` does the fetching: a download that was cut off is resumed where it stopped, and a second
call fetches the files that the first did not finish. Files land in its cache, where transformers and
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
_SPARE = 1 << 30  # bytes that stay free on the disk

Report = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a repository that are loaded."""

    name: str
    """The repository, as owner/name."""
    sizes: Mapping[str, int]
    """The size of each file, in bytes."""

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(self.sizes.values())


def cache_folder() -> Path:
    """The folder of fetched weights; `HF_HOME` moves it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def free_space(folder: Path) -> int:
    """Free bytes on the disk where this folder is, or will be."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def list_files(
    name: str, *, without: Collection[str] = (), endpoint: str | None = None, token: str | None = None
) -> Files:
    """Ask the hub for the files of a repository that are loaded.

    Args:
        name: The repository, as owner/name.
        without: Parts of a pipeline that are not loaded.
        endpoint: Another hub.
        token: For a repository that needs one.

    Raises:
        WeightsError: The hub fails, refuses, or has no safetensors under this name.
    """
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
        raise to_weights_error(name, e, endpoint) from e
    chosen = {f: sizes[f] for f in wanted(sizes, index, without)}
    if not any(f.endswith(".safetensors") for f in chosen):
        raise WeightsError(
            f"{name} has no weights as safetensors, and no others are loaded: choose another repository"
        )
    return Files(name, chosen)


def wanted(
    names: Collection[str], index: Mapping[str, Any] | None = None, without: Collection[str] = ()
) -> list[str]:
    """The files that are loaded.

    Args:
        names: The files of a repository.
        index: A pipeline's `model_index.json`.
        without: Parts of the pipeline that are not loaded.
    """
    parts = None
    if index is not None:
        left_out = {*without, *(part.replace("text_encoder", "tokenizer") for part in without)}
        parts = {
            part
            for part, kind in index.items()
            if isinstance(kind, list) and kind[0] and part not in left_out
        }
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
    """Fetch files, except those that are in the cache.

    Args:
        files: From `list_files`.
        endpoint: Another hub.
        token: For a repository that needs one.
        report: Called with the number of bytes of each piece that was written.

    Returns:
        The folder with the files.

    Raises:
        WeightsError: The hub fails or refuses, or the disk has no room.
    """
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    missing = 0
    for file, size in files.sizes.items():
        if not isinstance(try_to_load_from_cache(files.name, file), str):
            missing += size
    free = free_space(cache_folder())
    if missing + _SPARE > free:
        raise WeightsError(
            f"{files.name} takes {missing / 1e9:.1f} GB more and {cache_folder()} has {free / 1e9:.1f} GB "
            "free: free some space, or export HF_HOME=FOLDER on a larger disk"
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
        raise to_weights_error(files.name, e, endpoint) from e


def to_weights_error(name: str, error: Exception, endpoint: str | None = None) -> WeightsError:
    """A hub's failure as one line that says what to do.

    Args:
        name: The repository.
        error: What huggingface_hub raised.
        endpoint: Another hub.
    """
    from huggingface_hub import constants, errors

    hub = endpoint or constants.ENDPOINT
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and isinstance(cause, Exception):
        causes.append(cause)
    if any(isinstance(c, errors.GatedRepoError) for c in causes):
        known = catalogue().get(name)
        licence = f" ({known.licence})" if known else ""
        return WeightsError(
            f"{name} is gated: sign in at {hub}/{name} and accept its licence{licence}, "
            "then `hf auth login`, and run this again"
        )
    if any(isinstance(c, errors.RepositoryNotFoundError) for c in causes):
        return WeightsError(
            f"{hub} has no repository {name} that you may see: check the name, "
            "or `hf auth login` if it is private"
        )
    if any(isinstance(c, errors.OfflineModeIsEnabled) for c in causes):
        return UnreachableError(
            f"{name} is not in {cache_folder()} and HF_HUB_OFFLINE is set: unset it to download, "
            "or copy that folder from elsewhere"
        )
    status = next((c.response.status_code for c in causes if isinstance(c, errors.HfHubHTTPError)), None)
    if status is not None:
        return WeightsError(f"{hub} answered {status} for {name}: run this again, whole files are kept")
    if any(type(c).__name__ in ("ConnectError", "ConnectTimeout", "ProxyError") for c in causes):
        return UnreachableError(
            f"{hub} cannot be reached: check the connection or the proxy, or set HF_ENDPOINT to a mirror; "
            f"offline, run this where there is one, copy {cache_folder()} here, and export HF_HUB_OFFLINE=1"
        )
    said = " ".join((str(error) or repr(error)).split())
    return WeightsError(
        f"the download of {name} stopped: {said.rstrip('.')[:300]}; run this again, whole files are kept"
    )


def _bar(report: Report) -> Any:
    """A progress bar for huggingface_hub that shows nothing and reports the bytes written."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # There are two bars in bytes; the other one counts the network's, which are the same over HTTP.
            self._counts = kwargs.get("unit") == "B" and "Downloading" not in str(kwargs.get("desc"))
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if self._counts and n:
                report(int(n))
            return None

    return Bar
