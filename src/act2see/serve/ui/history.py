"""The tabs Past runs and Compare, and their event handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from act2see.serve.ui.components import RunView, Updates, follow, html, on, text_of
from act2see.serve.ui.page import alert, compared, label, past_run
from act2see.serve.ui.runs import Runs, error_line
from act2see.trace.markup import el

_NO_RUNS = "There are no runs yet. Every question that you ask under Ask is listed here."
_NOT_TWO = "Ask twice, for example with and without tools, then pick the two runs here."


class History:
    """The controls of both tabs. `draw_past` and `draw_compare` create them, inside their tabs."""

    def __init__(self, runs: Runs, names: Mapping[str, str]) -> None:
        self.runs = runs
        self.names = names
        """Names of configurations by their hash."""

    def draw_past(self, tab: Any) -> None:
        import gradio as gr

        self.past = gr.Dropdown([], label="Run (newest first)", elem_id="past")
        with gr.Column(elem_classes="a2s-view"):
            self.past_view = RunView(html(), html(), html(elem_id="past-chain"))
        on(tab.select, self.listed, [self.past], [self.past, self.past_view.status])
        on(self.past.change, self.reopened, [self.past], self.past_view.parts)

    def draw_compare(self, tab: Any) -> None:
        import gradio as gr

        with gr.Row():
            self.two = [
                gr.Dropdown([], label=f"Run {letter}", min_width=280, elem_id=f"run-{letter.lower()}")
                for letter in "AB"
            ]
        self.comparison = html(el("p", _NOT_TWO, class_="a2s-note"), elem_id="comparison")
        on(tab.select, self.listed_two, self.two, self.two)
        on([d.change for d in self.two], self.compared, self.two, [self.comparison])

    # Event handlers: they take the values of controls and return updates.

    async def listed(self, chosen: Any) -> Updates:
        choices = await self._choices()
        note = "" if choices else el("p", _NO_RUNS, class_="a2s-note")
        return {
            self.past: _picked(choices, [text_of(chosen), 0]),
            **({self.past_view.status: note} if note else {}),
        }

    async def listed_two(self, a: Any, b: Any) -> Updates:
        choices = [c for c in await self._choices() if c[1] not in self.runs.running]
        return {
            self.two[0]: _picked(choices, [text_of(a), 1, 0]),
            self.two[1]: _picked(choices, [text_of(b), 0]),
        }

    async def reopened(self, id: Any) -> AsyncIterator[Updates]:
        """A past run was selected. If it is still running, it is followed."""
        import gradio as gr

        id = text_of(id)
        if not id:
            yield {self.past_view.status: gr.skip()}
            return
        try:
            if run := self.runs.running.get(id):
                async for updates in follow(run, self.past_view):
                    yield updates
            else:
                yield {
                    **self.past_view.cleared(),
                    self.past_view.chain: await asyncio.to_thread(past_run, id, self.runs),
                }
        except Exception as e:
            yield self.past_view.cleared(alert(error_line(e, f"showing run {id}")))

    async def compared(self, a: Any, b: Any) -> Updates:
        ids = text_of(a), text_of(b)
        if not all(ids):
            return {self.comparison: el("p", _NOT_TWO, class_="a2s-note")}
        try:
            return {self.comparison: await asyncio.to_thread(compared, ids, self.runs, self.names)}
        except Exception as e:
            return {self.comparison: alert(error_line(e, f"comparing {' and '.join(ids)}"))}

    async def _choices(self) -> list[tuple[str, str]]:
        return [(label(p, self.names), p.id) for p in await asyncio.to_thread(self.runs.past)]


def _picked(choices: list[tuple[str, str]], wanted: Sequence[str | int | None]) -> Any:
    """A dropdown with these choices.

    Args:
        choices: Labels and ids.
        wanted: Ids or indices, in order of preference. The first one that is among the choices is selected.
    """
    import gradio as gr

    ids = [id for _, id in choices]
    places = [w if isinstance(w, str) else ids[w] if w is not None and w < len(ids) else None for w in wanted]
    return gr.Dropdown(choices, value=next((p for p in places if p in ids), None))
