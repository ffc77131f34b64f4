"""Traces that a server keeps, so that they can be shown again by their id: one JSON file each, in the cache
folder."""

from __future__ import annotations

import re
from pathlib import Path

from act2see.errors import StoreError, TraceError
from act2see.trace.trace import Trace

_ID = re.compile(r"[0-9A-Za-z-]{1,64}")  # nothing else may become part of a path


class KeptTraces:
    """Traces by id, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, trace: Trace) -> None:
        """Raises `StoreError` where it cannot be written, or its id cannot be a file's name."""
        if not _ID.fullmatch(trace.id):
            raise StoreError(
                f"a trace with the id {trace.id!r} cannot be kept: name the run with letters, digits and hyphens"
            )
        try:
            trace.save(self._path(trace.id))
        except OSError as e:
            raise StoreError(
                f"cannot write to {self.folder}: {e.strerror}; free some space or set ACT2SEE_CACHE to another folder"
            ) from e
        except ValueError as e:  # it holds half a surrogate pair, which JSON cannot
            raise StoreError(
                f"the trace {trace.id} holds text that is no Unicode, and cannot be written"
            ) from e

    def get(self, id: str) -> Trace:
        """Raises `TraceError` where there is none, or it cannot be read."""
        if not _ID.fullmatch(id) or not self._path(id).is_file():
            raise self.unknown(id)
        return Trace.load(self._path(id))

    def unknown(self, id: str) -> TraceError:
        return TraceError(f"there is no trace {id!r}: give an id that a question returned")

    def _path(self, id: str) -> Path:
        return self.folder / f"{id}.json"
