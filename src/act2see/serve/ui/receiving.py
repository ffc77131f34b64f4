"""The folder in which Gradio receives uploads. It exists as long as the server.

A killed server leaves its folder, with videos of strangers in it. The next server that starts removes it. A
lock tells a folder that is left from one in use.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

_PREFIX = ".receiving-"
_LOCK = ".lock"


@contextmanager
def receiving_folder(kept: Path) -> Iterator[Path]:
    """Yield a new folder in `kept`, and remove it and those that killed servers left there.

    Raises:
        OSError: The folder cannot be written.
    """
    for left in kept.glob(f"{_PREFIX}*"):
        _remove_unused(left.with_name(left.name.removesuffix(_LOCK)))
    folder = kept / f"{_PREFIX}{uuid4().hex}"
    # The lock comes before the folder, so that no other server takes the folder for one that is left.
    with FileLock(f"{folder}{_LOCK}", timeout=0):
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            _remove(folder)


def _remove_unused(folder: Path) -> None:
    with suppress(Timeout, OSError), FileLock(f"{folder}{_LOCK}", timeout=0):
        _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        Path(f"{folder}{_LOCK}").unlink()
