"""Errors of a tool that only the user can repair.

When a call fails, the model is informed and continues without the frame. That is right for a broken tool, but
wrong for a full disk or missing weights: the answer would be a guess, and the user would not learn why.
"""

from __future__ import annotations

import ast
import builtins
import errno
import os
from collections.abc import Iterator

from act2see import errors
from act2see.errors import (
    Act2SeeError,
    ConfigError,
    QuestionError,
    SetupError,
    StoreError,
    ToolError,
    VideoError,
    WeightsError,
)
from act2see.tools.runtime.text import first_line

_OURS = (ConfigError, QuestionError, SetupError, StoreError, VideoError, WeightsError)
_NUMBERS = "EACCES EDQUOT EFBIG EIO EISDIR ELOOP EMFILE ENAMETOOLONG ENFILE ENOSPC ENOTDIR EPERM EROFS ESTALE"
_STORAGE = {getattr(errno, name) for name in _NUMBERS.split() if hasattr(errno, name)}
# Parts of the messages of libraries that raise their own errors for these: faiss, safetensors, SQLite.
_WORDS = [os.strerror(number).lower() for number in (errno.ENOSPC, errno.EROFS, errno.EIO)]
_WORDS += ["disk is full", "disk quota exceeded", "readonly database", "unable to open database"]


def to_user_error(error: BaseException) -> Act2SeeError | None:
    """Return the error that should end the run (storage, configuration, weights, video); None for others."""
    for one in _with_causes(error):
        if isinstance(one, _OURS):
            return one
        if isinstance(one, OSError) and one.errno in _STORAGE:
            place = f"{one.filename}: " if isinstance(one.filename, str) else ""
            return _storage_error(f"{place}{one.strerror or one}")
        # The author of our own error chose its class, and its text may quote another machine's disk.
        message = first_line(one, 1000).lower()
        if not isinstance(one, Act2SeeError) and any(words in message for words in _WORDS):
            return _storage_error(first_line(one))
    return None


def _storage_error(problem: str) -> StoreError:
    return StoreError(
        f"{problem}; free some space, fix the permissions, or choose another location "
        "(`cache` and `store` in the config, ACT2SEE_CACHE)"
    )


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its causes and contexts, and the members of groups, each once."""
    seen: set[int] = set()
    left: list[BaseException] = [error]
    while left:
        one = left.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if one.__cause__ is not None:
            left.append(one.__cause__)
        elif one.__context__ is not None and not one.__suppress_context__:
            left.append(one.__context__)
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions


def restored(error: BaseException | str) -> BaseException:
    """Rebuild an error from its text in a checkpoint, such as `OSError(28, 'full')`.

    An unknown type becomes a `ToolError`. An error that is not text is returned unchanged.
    """
    if isinstance(error, BaseException):
        return error
    name, _, rest = error.partition("(")
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    try:
        inside = rest.removesuffix(")")
        arguments = ast.literal_eval(f"({inside},)") if inside else ()
        if isinstance(kind, type) and issubclass(kind, Exception):
            return kind(*arguments)
        return ToolError(" ".join(str(one) for one in arguments) or name)
    except (ValueError, SyntaxError, TypeError):  # its arguments are not plain data
        return ToolError(error)
