"""Components that the tabs of the page share: HTML without Gradio's defaults, and the view of a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from act2see.serve.ui.page import chain, status, style
from act2see.serve.ui.runs import Run
from act2see.trace.markup import Html
from act2see.trace.pictures import Pictures
from act2see.trace.trace import Trace

Updates = dict[Any, Any]
"""New values by Gradio component."""

# Options of all events: any number of people can use the page at once, and no progress bar covers it.
EVENT: dict[str, Any] = {
    "preprocess": False,
    "concurrency_limit": None,
    "show_progress": "hidden",
    "api_visibility": "private",
}


@dataclass(frozen=True, slots=True)
class RunView:
    """The components that show a run."""

    status: Any
    style: Any
    chain: Any

    @property
    def parts(self) -> list[Any]:
        return [self.status, self.style, self.chain]

    def clear(self, status: Html | str = "") -> Updates:
        """Return the updates that empty the view and show a status."""
        return {self.status: status, self.style: "", self.chain: ""}


def html(value: str = "", **more: Any) -> Any:
    """Return an HTML component without Gradio's default style and click handler."""
    import gradio as gr

    return gr.HTML(value, apply_default_css=False, js_on_load=None, **more)


def on(triggers: Any, do: Any, inputs: Any, outputs: Any) -> Any:
    """Register an event handler.

    Args:
        triggers: The events, such as `button.click`.
        do: The handler. It takes the values of the inputs and returns updates.
        inputs: The components whose values are passed to the handler.
        outputs: The components that the handler may update.

    Returns:
        The registered event. Its method `then` registers a handler that runs after this one.
    """
    import gradio as gr

    return gr.on(triggers, do, inputs=inputs, outputs=outputs, **EVENT)


def text_of(value: Any) -> str:
    """Return the value if it is a string, otherwise "", which is not a choice in any list."""
    return value if isinstance(value, str) else ""


async def follow(run: Run, view: RunView) -> AsyncIterator[Updates]:
    """Yield the updates that show a run, until it ends. The pictures are sent only when frames arrive."""
    pictures: Pictures | None = None
    frames_shown = 0
    async for _ in run.live.watch():
        trace = run.trace if run.done else run.live.trace()
        updates: Updates = {view.status: status(run)}
        if trace and run.frames:
            pictures = pictures or Pictures(run.frames)
            if frames_shown == run.live.frames_seen:
                updates[view.chain] = chain(trace, pictures, not run.done)
            else:
                frames_shown = run.live.frames_seen
                updates |= await asyncio.to_thread(_draw_frames, view, trace, pictures, not run.done)
        yield updates


def _draw_frames(view: RunView, trace: Trace, pictures: Pictures, running: bool) -> Updates:
    """Return the updates that show a chain with its pictures."""
    content = chain(trace, pictures, running)  # loads the pictures that `style` then sends
    return {view.chain: content, view.style: style(pictures)}
