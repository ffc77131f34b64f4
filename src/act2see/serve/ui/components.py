"""Parts that the tabs of the page share: components without Gradio's defaults, and the view of one run."""

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

Updates = dict[Any, Any]  # new values by Gradio component

# Options of every event: any number of people can use it at once, and no progress bar covers the page.
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

    def cleared(self, status: Html | str = "") -> Updates:
        return {self.status: status, self.style: "", self.chain: ""}


def html(value: str = "", **more: Any) -> Any:
    """An HTML component without Gradio's default style and click handler."""
    import gradio as gr

    return gr.HTML(value, apply_default_css=False, js_on_load=None, **more)


def on(triggers: Any, do: Any, inputs: Any, outputs: Any) -> Any:
    """Register a handler. The result has `then`, which registers an event that follows this one."""
    import gradio as gr

    return gr.on(triggers, do, inputs=inputs, outputs=outputs, **EVENT)


def text_of(value: Any) -> str:
    """The value if it is a string, else "", which no list offers."""
    return value if isinstance(value, str) else ""


async def follow(run: Run, view: RunView) -> AsyncIterator[Updates]:
    """Yield the updates that show a run, until it ends."""
    pictures: Pictures | None = None
    seen = 0
    async for _ in run.live.watch():
        trace = run.trace if run.done else run.live.trace()
        updates: Updates = {view.status: status(run)}
        if trace and run.frames:
            pictures = pictures or Pictures(run.frames)
            if seen == run.live.frames_seen:
                updates[view.chain] = chain(trace, pictures, not run.done)
            else:
                seen = run.live.frames_seen
                updates |= await asyncio.to_thread(_drawn, view, trace, pictures, not run.done)
        yield updates


def _drawn(view: RunView, trace: Trace, pictures: Pictures, running: bool) -> Updates:
    """The updates that show a chain with its pictures."""
    shown = chain(trace, pictures, running)
    return {view.chain: shown, view.style: style(pictures)}
