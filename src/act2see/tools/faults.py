"""Which errors of a tool are the user's to mend.

A model that is told of a failed call goes on without the frame. That is right for a tool that is out of order, and wrong for a
full disk or missing weights: the answer would be a guess, and nobody would learn why.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from act2see.errors import Act2SeeError, ConfigError, QuestionError, SetupError, StoreError, VideoError, WeightsError

_OURS = (ConfigError, QuestionError, SetupError, StoreError, VideoError, WeightsError)
_STORAGE = {
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "EIO", "EMFILE", "ENFILE", "ENOSPC", "EPERM", "EROFS", "ESTALE")
    if hasattr(errno, name)
}
# What libraries say that raise an error of their own: faiss, safetensors, SQLite.
_WORDS = [os.strerror(number).lower() for number in (errno.ENOSPC, errno.EROFS, errno.EFBIG)]
_WORDS += ["disk is full", "disk quota exceeded"]


def to_user_error(error: BaseException) -> Act2SeeError | None:
    """The error by which a run should end, where this one is about storage, configuration, weights or the video; None for others."""
    for one in _with_causes(error):
        if isinstance(one, _OURS):
            return one
        if isinstance(one, OSError) and one.errno in _STORAGE:
            place = f"{one.filename}: " if isinstance(one.filename, str) else ""
            return _storage_error(f"{place}{one.strerror or one}")
        said = str(one)
        if any(words in said.lower() for words in _WORDS):
            return _storage_error(" ".join(said.split())[:200])
    return None


def _storage_error(said: str) -> StoreError:
    return StoreError(f"{said}; free some space, mend the rights, or name another place (`cache` and `store` in the config, ACT2SEE_CACHE)")


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__
