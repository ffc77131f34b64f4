"""GGUF files, the format of llama.cpp: which files of a repository a server needs, and where they are.

A vision model has two files: the language model, in several quantisations of which one is used, and the
vision file (`mmproj-….gguf`). A configuration names them as `owner/name:Q8_0`, as llama.cpp does, or as a
local file. `act2see download` fetches both into the hub's cache, and `act2see serve llama-cpp` finds them
there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from act2see.errors import WeightsError
from act2see.tools.runtime.revisions import check_name, revision_of, split_revision

DEFAULT_QUANTISATION = "Q4_K_M"
"""Used if the name has none, as by llama.cpp."""
# Vision files in the order of preference: float16 is nearly exact, and half as large as float32.
_VISION_TYPES = ("f16", "bf16", "q8_0", "f32")
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?")
_PART = re.compile(r"-\d{5}-of-(\d{5})$")  # of a model that is split into several files


@dataclass(frozen=True, slots=True)
class GgufModel:
    """The files of a model on this machine."""

    model: Path
    """The language model; the first file, if it is split."""
    mmproj: Path
    """The vision file."""
    bytes: int
    """Total size of all files."""


def split_name(name: str) -> tuple[str, str]:
    """Return the repository and the quantisation that a name means.

    Args:
        name: The name, as `owner/name` or `owner/name:Q8_0`.

    Raises:
        WeightsError: It does not name a repository.
    """
    match = _NAME.fullmatch(split_revision(name)[0])
    if match is not None or "@" in name:
        check_name(name)
    if match is None:
        raise WeightsError(
            f"{name!r} names no GGUF repository: write it as owner/name:Q8_0, or name a local .gguf file"
        )
    return match[1], match[2] or DEFAULT_QUANTISATION


def is_gguf(name: str) -> bool:
    """Whether a name means a repository of GGUF files: it has a quantisation, or ends in GGUF."""
    name = split_revision(name)[0]
    match = _NAME.fullmatch(name)
    if match is None or name.startswith(".") or name.lower().endswith(".gguf"):
        return False  # a local file
    return match[2] is not None or match[1].lower().endswith("gguf")


def choose_files(files: Collection[str], repository: str, quantisation: str) -> list[str]:
    """Return the files of a model: the language model, in order if it is split, then the vision file.

    Args:
        files: The files of the repository.
        repository: Its name, for messages.
        quantisation: The quantisation of the language model, such as `Q8_0`.

    Raises:
        WeightsError: The repository has no such model, or no vision file.
    """
    found = sorted(file for file in files if file.lower().endswith(".gguf"))
    vision = [file for file in found if "mmproj" in file.lower()]
    models = [file for file in found if file not in vision]
    chosen = [file for file in models if _has_quantisation(file, quantisation)]
    if chosen:
        chosen = _parts_of_first(chosen)
    else:
        known = sorted({_quantisation(file).upper() for file in models} - {""})
        there = f"it has {', '.join(known)}" if known else "it holds no model in the format GGUF"
        raise WeightsError(f"{repository} has no quantisation {quantisation}: {there}")
    if not vision:
        raise WeightsError(
            f"{repository} has no vision file (mmproj-….gguf), so the model could not see frames: choose a "
            "repository of a vision model"
        )
    return [*chosen, min(vision, key=_rank_vision)]


def _has_quantisation(file: str, quantisation: str) -> bool:
    """Whether a file's name ends with a quantisation, such as `Q8_0` or `UD-Q4_K_XL`."""
    stem = _PART.sub("", Path(file).stem).lower()
    return stem.endswith((f"-{quantisation.lower()}", f".{quantisation.lower()}"))


def _parts_of_first(files: Sequence[str]) -> list[str]:
    """Return the parts of the first model among files, which can be of several models.

    Raises:
        WeightsError: A part is missing.
    """
    first = _PART.sub("", Path(files[0]).stem)
    parts = [file for file in files if _PART.sub("", Path(file).stem) == first]
    if (match := _PART.search(Path(parts[0]).stem)) and len(parts) < int(match[1]):
        raise WeightsError(f"{first}: {len(parts)} of {int(match[1])} parts are there")
    return parts


def _quantisation(file: str) -> str:
    """Return the quantisation in a file's name in lower case: "q8_0" of `Model-Q8_0-00001-of-00002.gguf`."""
    stem = _PART.sub("", Path(file).stem)
    *before, last = re.split(r"[-.]", stem)
    return f"ud-{last}".lower() if before and before[-1].upper() == "UD" else last.lower()


def _rank_vision(file: str) -> int:
    kind = _quantisation(file)
    return _VISION_TYPES.index(kind) if kind in _VISION_TYPES else len(_VISION_TYPES)


def find_gguf(name: str) -> GgufModel:
    """Return the files of a model in the hub's cache. Nothing is downloaded.

    Args:
        name: The name, as `owner/name:Q8_0`.

    Raises:
        WeightsError: They are not on this machine, or the name is wrong.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repository, quantisation = split_name(name)
    # `snapshot_download` would call a snapshot incomplete that lacks the other quantisations.
    cached = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
    try:
        for folder in _snapshots(cached, name):
            files = [file.relative_to(folder).as_posix() for file in folder.rglob("*.gguf") if file.is_file()]
            try:
                paths = [folder / file for file in choose_files(files, repository, quantisation)]
            except WeightsError:
                continue
            return GgufModel(paths[0], paths[-1], sum(path.stat().st_size for path in paths))
    except OSError as e:
        raise WeightsError(f"{cached} cannot be read: {e.strerror or e}") from e
    raise WeightsError("not downloaded")


def _snapshots(cached: Path, name: str) -> list[Path]:
    """Return the snapshots of a repository in the cache that a name may mean, the preferred ones first."""
    snapshots = sorted(cached.glob("snapshots/*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    revision = revision_of(name)
    if revision is None:
        return snapshots
    ref = cached / "refs" / revision  # of a branch or a tag, with its commit
    commit = ref.read_text(encoding="utf-8", errors="replace").strip() if ref.is_file() else revision
    meant = [folder for folder in snapshots if folder.name == commit]
    if split_revision(name)[1] is not None:
        return meant
    return meant + [folder for folder in snapshots if folder not in meant]
