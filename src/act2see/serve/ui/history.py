"""The tabs Past runs and Compare, and their event handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from act2see.serve.ui.components import RunView, Updates, follow, html, on, text_of
from act2see.serve.ui.page import alert, comparison, past_run, run_label
from act2see.serve.ui.runs import Runs, error_line
from act2see.trace.markup import el

_NO_RUNS = "There are no runs yet. Every question that you ask under Ask is listed here."
_NOT_TWO = "Ask twice, for example with and without tools, then pick the two runs here."


class History:
    """The controls of both tabs. `draw_past` and `draw_compare` create them; call each inside its tab.

    Args:
        runs: The runs that the tabs show.
        names: The names of the configurations, by hash.
    """

    def __init__(self, runs: Runs, names: Mapping[str, str]) -> None:
        self.runs = runs
        self.names = names

    def draw_past(self, tab: Any) -> None:
        import gradio as gr

        self.past = gr.Dropdown([], label="Run (newest first)", elem_id="past")
        with gr.Column(elem_classes="a2s-view"):
            self.past_view = RunView(html(), html(), html(elem_id="past-chain"))
        on(tab.select, self.on_past_tab, [self.past], [self.past, self.past_view.status])
        on(self.past.change, self.on_past_run, [self.past], self.past_view.parts)

    def draw_compare(self, tab: Any) -> None:
        import gradio as gr

        with gr.Row():
            self.two = [
                gr.Dropdown([], label=f"Run {letter}", min_width=280, elem_id=f"run-{letter.lower()}")
                for letter in "AB"
            ]
        self.comparison = html(el("p", _NOT_TWO, class_="a2s-note"), elem_id="comparison")
        on(tab.select, self.on_compare_tab, self.two, self.two)
        on([dropdown.change for dropdown in self.two], self.on_two_runs, self.two, [self.comparison])

    # Event handlers: they take the values of controls and return updates.

    async def on_past_tab(self, chosen: Any) -> Updates:
        """List the runs when the tab Past runs is opened."""
        choices = await self._choices()
        updates: Updates = {self.past: _dropdown(choices, [text_of(chosen), 0])}
        if not choices:
            updates[self.past_view.status] = el("p", _NO_RUNS, class_="a2s-note")
        return updates

    async def on_compare_tab(self, a: Any, b: Any) -> Updates:
        """List the runs that have ended when the tab Compare is opened."""
        choices = [(label, id) for label, id in await self._choices() if id not in self.runs.running]
        return {
            self.two[0]: _dropdown(choices, [text_of(a), 1, 0]),
            self.two[1]: _dropdown(choices, [text_of(b), 0]),
        }

    async def on_past_run(self, id: Any) -> AsyncIterator[Updates]:
        """Show the selected run. Follow it if it is still in progress."""
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
                content = await asyncio.to_thread(past_run, id, self.runs)
                yield self.past_view.clear() | {self.past_view.chain: content}
        except Exception as e:
            yield self.past_view.clear(alert(error_line(e, f"showing run {id}")))

    async def on_two_runs(self, a: Any, b: Any) -> Updates:
        """Compare the two selected runs."""
        ids = text_of(a), text_of(b)
        if not all(ids):
            return {self.comparison: el("p", _NOT_TWO, class_="a2s-note")}
        try:
            return {self.comparison: await asyncio.to_thread(comparison, ids, self.runs, self.names)}
        except Exception as e:
            return {self.comparison: alert(error_line(e, f"comparing {' and '.join(ids)}"))}

    async def _choices(self) -> list[tuple[str, str]]:
        """Return the labels and ids of the runs."""
        runs = await asyncio.to_thread(self.runs.list_runs)
        return [(run_label(run, self.names), run.id) for run in runs]


def _dropdown(choices: list[tuple[str, str]], preferred: Sequence[str | int]) -> Any:
    """Return a dropdown with these choices.

    Args:
        choices: Labels and ids.
        preferred: Ids or indices, in order of preference. The first one that exists is selected.
    """
    import gradio as gr

    ids = [id for _, id in choices]
    for candidate in preferred:
        if isinstance(candidate, int) and candidate < len(ids):
            return gr.Dropdown(choices, value=ids[candidate])
        if candidate in ids:
            return gr.Dropdown(choices, value=candidate)
    return gr.Dropdown(choices, value=None)
