"""Which revision of a hub repository is used: `owner/name@REVISION`, the catalogue's, or the newest.

A configuration may name a commit, a branch or a tag after an `@`, and then nothing else is loaded. Without
one, the catalogue's revision is used (`catalogue.yaml`), for which a preset was written. What was downloaded
earlier is still loaded if that revision is not in the cache.
"""

from __future__ import annotations

import re
from pathlib import Path

from act2see.tools.runtime.catalogue import known_weights

_NAME = re.compile(r"([\w.-]+/[\w.-]+(?::[\w.-]+)?)@(\S+)")


def split_revision(name: str) -> tuple[str, str | None]:
    """Return the name of weights without its revision, and the revision; None if it has none.

    Args:
        name: The name, as `owner/name@REVISION` or `owner/name:Q8_0@REVISION`. Others have no revision.
    """
    match = _NAME.fullmatch(name)
    if match is None or name.startswith(".") or Path(name).is_dir():
        return name, None
    return match[1], match[2]


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
