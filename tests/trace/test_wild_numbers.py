"""A trace whose numbers are wild: refused where it is read, or shown. No number raises any other error."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from tests.trace.page_parts import Store, both

from act2see.errors import TraceError
from act2see.tools.frames import FrameRef
from act2see.trace.explorer import explorer_data
from act2see.trace.page import trace_html
from act2see.trace.terminal import ChainPrinter, answer_lines
from act2see.trace.trace import Trace


@pytest.fixture(scope="module")
def store() -> Store:
    return Store()


@pytest.fixture(scope="module")
def data(store: Store) -> Any:
    trace = both(store)
    return json.loads(trace.model_copy(update={"initial": trace.initial[:1]}).to_json())


def numbers_of(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place of a number: what holds it, and its key there."""
    for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
        if isinstance(value, dict | list):
            yield from numbers_of(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield data, key


@pytest.mark.parametrize(
    ("place", "field"),
    [
        (("video",), "seconds"),
        (("video",), "fps"),
        (("video",), "width"),
        (("video",), "height"),
        (("video",), "frames"),
        (("initial", 0), "seconds"),
        (("initial", 0), "height"),
        (("usage", "loops", 0), "seconds"),
        (("usage", "node_seconds"), "view"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_time_or_size_out_of_bounds_is_refused(
    data: Any, place: tuple[Any, ...], field: str, sign: int
) -> None:
    holder = json.loads(json.dumps(data))
    whole = holder
    for key in place:
        holder = holder[key]
    holder[field] = sign * (2**62 if isinstance(holder[field], int) else 1e308)
    name = ".".join(map(str, (*place, field)))
    with pytest.raises(TraceError, match=rf"{name}: must be at most 1,000,000,000,000,000"):
        Trace.from_json(json.dumps(whole))


@pytest.mark.parametrize("wild", [1e308, -1e308, 1e15, 5e-324, 2**63 - 1, -(2**63), 0])
def test_every_wild_number_is_shown_or_refused(data: Any, wild: float) -> None:
    data = json.loads(json.dumps(data))
    shown = 0
    for holder, key in numbers_of(data):
        kept, holder[key] = holder[key], wild
        try:
            trace = Trace.from_json(json.dumps(data))
        except TraceError:
            continue
        finally:
            holder[key] = kept
        shown += 1
        show(trace)
    assert shown > 5


def show(trace: Trace) -> None:
    trace_html(trace, Store())  # without pictures, which would take most of the time
    explorer_data(trace, Store())
    ChainPrinter(Console(file=io.StringIO())).trace(trace)
    assert answer_lines(trace)
    assert repr(trace)


def test_a_tool_may_say_any_time(store: Store) -> None:
    trace = both(store)
    frame = FrameRef(digest="0" * 32, width=8, height=8, seconds=1e308)
    show(trace.model_copy(update={"initial": (frame,)}))
