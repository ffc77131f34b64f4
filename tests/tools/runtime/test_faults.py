"""Errors of tools, rebuilt from their text in a checkpoint."""

from __future__ import annotations

import errno

import pytest

from act2see.errors import StoreError, ToolError, WeightsError
from act2see.tools.runtime.faults import restored, to_user_error
from act2see.tools.runtime.text import first_line


@pytest.mark.parametrize(
    "error",
    [
        WeightsError("no weights: it's gone"),
        StoreError("full"),
        OSError(errno.ENOSPC, "No space left on device"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        ToolError("out of order"),
        ZeroDivisionError("division by zero"),
        KeyError("x"),
        ValueError(),
    ],
)
def test_an_error_is_rebuilt_from_its_text(error: Exception) -> None:
    back = restored(repr(error))
    assert (type(back), back.args, first_line(back)) == (type(error), error.args, first_line(error))
    assert type(to_user_error(back)) is type(to_user_error(error))
    assert restored(error) is error


@pytest.mark.parametrize("text", ["Strange(<object at 0x7f>)", "something else", "Theirs('a', 1)", "(", ""])
def test_unreadable_error_text_becomes_a_tool_error(text: str) -> None:
    assert isinstance(restored(text), ToolError)
