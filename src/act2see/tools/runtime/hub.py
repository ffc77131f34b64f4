"""Download weights from a hub: only the files that a loader reads.

These are safetensors, JSON and tokenizer files, never pickles or code. A pipeline's repository often holds
the same weights again in a single file for other programs, so only the folders named in `model_index.json`
are downloaded, without the parts that the configuration leaves out. Second copies in another precision
(`model.fp16.safetensors`) are skipped. Of a repository of GGUF files, one model and its vision file are
downloaded (`gguf.py`).

`huggingface_hub` does the work: it resumes an interrupted download, skips complete files, and writes to its
cache, where transformers and diffusers look. `HF_ENDPOINT` (or `endpoint`) names another hub or a mirror.
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
from act2see.tools.runtime.gguf import choose_files, is_gguf, split_name
from act2see.tools.runtime.revisions import check_name, revision_of, split_revision
from act2see.tools.runtime.text import format_bytes

_TOKENIZER = frozenset(
    {"merges.txt", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"}
)
_SPARE = 1 << 30  # bytes of the disk that a download leaves free

Report = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a repository that are loaded."""

    name: str
    """The repository, as owner/name."""
    sizes: Mapping[str, int]
    """Size of each file, in bytes."""
    revision: str | None = None
    """The revision that was asked for; None is the newest."""
    commit: str = ""
    """The commit that the revision names on the hub."""

    @property
    def bytes(self) -> int:
        """Total size of the files."""
        return sum(self.sizes.values())


def cache_folder() -> Path:
    """Return the folder of downloaded weights, which `HF_HOME` sets."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def free_space(folder: Path) -> int:
    """Return the number of free bytes on the disk of a folder, which need not exist yet."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def list_files(
    name: str, *, without: Collection[str] = (), endpoint: str | None = None, token: str | None = None
) -> Files:
    """Ask the hub which files of a repository a loader reads.

    Args:
        name: The repository, as owner/name, or owner/name:QUANTISATION for GGUF files; `@REVISION` may
            follow.
        without: Parts of a pipeline that are not loaded.
        endpoint: URL of the hub; None is the default hub.
        token: Access token, for a private or gated repository.

    Raises:
        WeightsError: The name is wrong, or the hub fails, refuses, or has neither safetensors nor such GGUF
            files.
    """
    from huggingface_hub import HfApi, hf_hub_download

    check_name(name)
    revision = revision_of(name)
    name = split_revision(name)[0]
    quantisation = None
    if is_gguf(name):
        name, quantisation = split_name(name)
    try:
        api = HfApi(endpoint=endpoint, token=token)
        found = api.model_info(name, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in found.siblings or ()}
        index = None
        if "model_index.json" in sizes:
            path = hf_hub_download(
                name, "model_index.json", revision=found.sha, endpoint=endpoint, token=token
            )
            index = json.loads(Path(path).read_text(encoding="utf-8"))
    except Exception as e:
        raise to_weights_error(name, e, endpoint, revision) from e
    commit = found.sha or ""
    if quantisation is not None:
        chosen = {f: sizes[f] for f in choose_files(sizes, name, quantisation)}
        return Files(name, chosen, revision, commit)
    chosen = {f: sizes[f] for f in wanted(sizes, index, without)}
    if not any(f.endswith(".safetensors") for f in chosen):
        raise WeightsError(
            f"{name} has no safetensors, the only format that is loaded: choose another repository"
        )
    return Files(name, chosen, revision, commit)


def wanted(
    names: Collection[str], index: Mapping[str, Any] | None = None, without: Collection[str] = ()
) -> list[str]:
    """Return the files that a loader reads.

    Args:
        names: The files of a repository.
        index: A pipeline's `model_index.json`.
        without: Parts of the pipeline that are not loaded.
    """
    parts = None if index is None else _pipeline_parts(index, without)
    nested = "modules.json" in names  # sentence-transformers keeps its modules in folders
    chosen = []
    for name in names:
        path = PurePosixPath(name)
        if _is_read(path) and _is_in_part(path, parts, nested):
            chosen.append(name)
    return chosen


def _pipeline_parts(index: Mapping[str, Any], without: Collection[str]) -> set[str]:
    """Return the folders of a pipeline that are loaded. A text encoder is left out with its tokenizer."""
    left_out = {*without, *(part.replace("text_encoder", "tokenizer") for part in without)}
    parts = set()
    for part, kind in index.items():
        is_part = isinstance(kind, list) and kind[0]  # other keys are settings, and an unused part is null
        if is_part and part not in left_out:
            parts.add(part)
    return parts


def _is_read(path: PurePosixPath) -> bool:
    """Return whether a loader reads files of this name."""
    if ".index." in path.name:
        return path.name.endswith(".safetensors.index.json")
    return (
        path.suffix == ".json"
        or path.name in _TOKENIZER
        or (path.suffix == ".safetensors" and path.name.count(".") == 1)
    )


def _is_in_part(path: PurePosixPath, parts: Collection[str] | None, nested: bool) -> bool:
    """Return whether a file is in a folder that is loaded."""
    folder = path.parent.as_posix()
    if parts is None:
        return folder == "." or nested
    return path.name == "model_index.json" if folder == "." else folder in parts


def missing_bytes(files: Files) -> int:
    """Return the total size of the files that are not in the cache."""
    from huggingface_hub import try_to_load_from_cache

    missing = 0
    for file, size in files.sizes.items():
        found = try_to_load_from_cache(files.name, file, revision=files.commit or files.revision)
        if not isinstance(found, str):
            missing += size
    return missing


def fetch(
    files: Files, *, endpoint: str | None = None, token: str | None = None, report: Report | None = None
) -> Path:
    """Download files, except those in the cache.

    Args:
        files: The result of `list_files`.
        endpoint: URL of the hub; None is the default hub.
        token: Access token, for a private or gated repository.
        report: Called after each write with its number of bytes.

    Returns:
        The folder with the files.

    Raises:
        WeightsError: The hub fails or refuses, or the disk has too little free space.
    """
    from huggingface_hub import snapshot_download

    missing = missing_bytes(files)
    free = free_space(cache_folder())
    if missing + _SPARE > free:
        raise WeightsError(
            f"{files.name} needs {format_bytes(missing)} more, and {cache_folder()} has {format_bytes(free)} "
            "free: free some space, or export HF_HOME=FOLDER on a larger disk"
        )
    try:
        return Path(
            snapshot_download(
                files.name,
                revision=files.revision,
                allow_patterns=[escape(f) for f in files.sizes],
                endpoint=endpoint,
                token=token,
                tqdm_class=_bar(report or (lambda _: None)),
            )
        )
    except Exception as e:
        raise to_weights_error(files.name, e, endpoint, files.revision) from e


def to_weights_error(
    name: str, error: Exception, endpoint: str | None = None, revision: str | None = None
) -> WeightsError:
    """Turn a hub's failure into one line that says what to do.

    Args:
        name: The repository.
        error: The error of huggingface_hub.
        endpoint: URL of the hub; None is the default hub.
        revision: The revision that was asked for; None is the newest.
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
            f"{name} is gated: sign in at {hub}/{name}, accept its licence{licence}, "
            "run `hf auth login`, and run this again"
        )
    if any(isinstance(c, errors.RepositoryNotFoundError) for c in causes):
        return WeightsError(
            f"{hub} has no repository {name} that you can access: check the name, "
            "or run `hf auth login` if it is private"
        )
    if any(isinstance(c, errors.RevisionNotFoundError) for c in causes):
        return WeightsError(
            f"{name} has no revision {revision}: name a commit, branch or tag that {hub}/{name}/commits/main "
            f"lists, or main for the newest ({name}@main)"
        )
    if any(isinstance(c, errors.OfflineModeIsEnabled) for c in causes):
        return UnreachableError(
            f"{name} is not in {cache_folder()} and HF_HUB_OFFLINE is set: unset it to download, "
            "or copy that folder from another machine"
        )
    status = next((c.response.status_code for c in causes if isinstance(c, errors.HfHubHTTPError)), None)
    if status is not None:
        return WeightsError(f"{hub} answered {status} for {name}: run this again; complete files are kept")
    if any(type(c).__name__ in ("ConnectError", "ConnectTimeout", "ProxyError") for c in causes):
        return UnreachableError(
            f"{hub} cannot be reached: check the connection or the proxy, or set HF_ENDPOINT to a mirror; "
            f"offline: run this on a machine with a connection, copy {cache_folder()} to this one, "
            "and export HF_HUB_OFFLINE=1"
        )
    message = " ".join((str(error) or repr(error)).split())
    return WeightsError(
        f"the download of {name} stopped: {message.rstrip('.')[:300]}; "
        "run this again; complete files are kept"
    )


def _bar(report: Report) -> Any:
    """Return a class of progress bar for huggingface_hub that shows nothing and reports bytes written."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Two bars count bytes. The one named "Downloading" counts bytes of the network, which over HTTP
            # would be counted twice.
            self._counts = kwargs.get("unit") == "B" and "Downloading" not in str(kwargs.get("desc"))
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if self._counts and n:
                report(int(n))
            return None

    return Bar
