"""Which revision of a hub repository is used: `owner/name@REVISION`, the catalogue's, or the newest.

A configuration may name a commit, a branch or a tag after an `@`, and then nothing else is loaded. Without
one, the catalogue's revision is used (`catalogue.yaml`), for which a preset was written. What was downloaded
earlier is still loaded if that revision is not in the cache. `check_name` says what is wrong with a name.
"""

from __future__ import annotations

import re
from pathlib import Path

from act2see.errors import WeightsError
from act2see.tools.runtime.catalogue import known_weights

# What git allows in the name of a branch, and the longest name of a file.
_REVISION = re.compile(r"(?![/.])(?!.*(?:\.\.|//|@\{))[^\s\x00-\x1f\x7f~^:?*\[\\]{1,250}(?<![/.])")
_ADDRESS = re.compile(
    r"(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co)/([\w.-]+/[\w.-]+(?::[\w.-]+)?)(?:/.*)?/?"
)
_NAME = re.compile(r"([\w.-]+/[\w.-]+(?::[\w.-]+)?)@(\S+)")


def split_revision(name: str) -> tuple[str, str | None]:
    """Return the name of weights without its revision, and the revision; None if it has none.

    Args:
        name: The name, as `owner/name@REVISION` or `owner/name:Q8_0@REVISION`. Others have no revision.
    """
    match = _NAME.fullmatch(name)
    if match is None or name.startswith(".") or is_folder(name):
        return name, None
    return match[1], match[2]


def name_in_address(name: str) -> str | None:
    """Return the name of a repository that is written with the hub's address; None if it is not.

    Ollama writes `hf.co/owner/name`, and browsers show `https://huggingface.co/owner/name/tree/main`.
    """
    match = _ADDRESS.fullmatch(name)
    return match[1] if match else None


def is_folder(name: str) -> bool:
    """Return whether there is a folder of this name; False for names that no folder can have."""
    try:
        return Path(name).is_dir()
    except OSError:  # the name is too long
        return False


def check_name(name: str) -> None:
    """Check that a hub can have weights of this name.

    Args:
        name: The name, as `owner/name` or `owner/name:Q8_0`; `@REVISION` may follow.

    Raises:
        WeightsError: It cannot.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.file_download import repo_folder_name

    repository, at, revision = name.partition("@")
    if at and not repository:
        raise WeightsError(f"{name!r} names no repository before the @: write it as owner/name@REVISION")
    if at and not revision:
        raise WeightsError(
            f"{name!r} has no revision after the @: write owner/name@REVISION, or leave out the @"
        )
    if at and ":" in revision:
        raise WeightsError(
            f"{name!r}: write the quantisation before the revision, as owner/name:Q8_0@REVISION"
        )
    if at and not _REVISION.fullmatch(revision):
        raise WeightsError(
            f"{name[:80]!r}: what follows the @ is not the name of a commit, a branch or a tag"
        )
    try:
        repo_folder_name(repo_id=repository.partition(":")[0], repo_type="model")
    except HFValidationError as e:
        raise WeightsError(f"{name[:80]!r} is neither a folder nor a hub repository (owner/name)") from e


def revision_of(name: str) -> str | None:
    """Return the revision to download: that of the name, else the catalogue's; None for the newest."""
    repository, revision = split_revision(name)
    if revision is not None:
        return revision
    known = known_weights(repository)
    return known.revision if known else None


def revisions_to_load(name: str) -> list[str | None]:
    """Return the revisions to look for in the hub's cache, in order; None is the newest that was fetched."""
    explicit = split_revision(name)[1]
    if explicit is not None:
        return [explicit]
    pinned = revision_of(name)
    return [None] if pinned is None else [pinned, None]
