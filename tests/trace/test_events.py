"""Stream data is read back as typed events."""

from __future__ import annotations

from typing import Any

import pytest

from act2see.trace.events import CallEvent, TokenEvent, read_event
from act2see.trace.record import Call


@pytest.mark.parametrize(
    "event",
    [
        TokenEvent(run="r", text="Hm."),
        CallEvent(run="r", call=Call(text="<zoom>x</zoom>", tag="zoom", query="x")),
    ],
)
def test_an_event_is_read_back(event: TokenEvent | CallEvent) -> None:
    assert read_event(event.model_dump()) == event


@pytest.mark.parametrize(
    "data",
    [
        None,
        "token",
        {"type": "token", "text": "no run"},
        {"type": "progress", "run": "r"},
        {"type": "frames", "run": "r", "frames": ["of a parent graph"]},
    ],
)
def test_other_stream_data_is_not_an_event(data: Any) -> None:
    assert read_event(data) is None
