"""The page's controls and their event handlers.

A handler sends only what has changed: while tokens arrive that is the text of the chain; a picture is sent
once, when it arrives. An error is shown as text beside the control that caused it, and the form keeps its
values. A browser can send values of any type, so the handlers check them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from act2see.errors import QuestionError
from act2see.graphs.config import Config
from act2see.serve.ui.form import read_form
from act2see.serve.ui.page import (
    alert,
    chain,
    compared,
    label,
    links,
    nothing_asked,
    past_run,
    player,
    status,
    style,
    taken,
)
from act2see.serve.ui.runs import Run, Runs, error_line
from act2see.serve.ui.shelf import Clip, VideoCatalog
from act2see.trace.markup import Html, el
from act2see.trace.pictures import Pictures
from act2see.trace.trace import Trace

Updates = dict[Any, Any]  # new values by Gradio component

_NO_RUNS = "There are no runs yet. Every question that you ask under Ask is listed here."
_NOT_TWO = "Ask twice, for example with and without tools, then pick the two runs here."
# On a phone the answer is below the form, and an error can be above the part that is in view. A busy page may
# skip the first status of a run, so the first one that it gets scrolls to the answer.
_SHOW_ANSWER = """(status) => {
  const run = status?.match(/data-run="([^"]*)"/)?.[1];
  if (!run || run === window.shownRun) return;
  window.shownRun = run;
  setTimeout(() => {
    const answer = document.getElementById("answering"), top = answer.getBoundingClientRect().top;
    if (top < 0 || top > innerHeight / 2) answer.scrollIntoView();
  });
}"""
_SHOW_ERROR = """(message) => {
  if (!message?.includes('role="alert"')) return;
  setTimeout(() => document.getElementById("message").scrollIntoView({block: "nearest"}));
}"""
_SHOW_READY = "() => { document.body.dataset.ready = ''; }"
# Options of every event: any number of people can use it at once, and no progress bar covers the page.
_EVENT: dict[str, Any] = {
    "preprocess": False,
    "concurrency_limit": None,
    "show_progress": "hidden",
    "api_visibility": "private",
}


@dataclass(frozen=True, slots=True)
class _View:
    """The components that show a run."""

    status: Any
    style: Any
    chain: Any

    @property
    def parts(self) -> list[Any]:
        return [self.status, self.style, self.chain]

    def cleared(self, status: Html | str = "") -> Updates:
        return {self.status: status, self.style: "", self.chain: ""}


class Controls:
    """The controls of the page. `draw` creates them, inside a `gr.Blocks`."""

    def __init__(
        self, configs: Mapping[str, Config], shelf: VideoCatalog, runs: Runs, max_upload: int
    ) -> None:
        self.configs, self.shelf, self.runs, self.max_upload = dict(configs), shelf, runs, max_upload
        self.names = {c.hash: name for name, c in self.configs.items()}

    def draw(self, blocks: Any) -> None:
        import gradio as gr

        with gr.Column(elem_classes="a2s-head"):
            about = (
                "Ask a question about a video. The model thinks, looks at the video again or imagines "
                "frames, and answers."
            )
            _html(el("h1", "Act2See") + el("p", about))
        with gr.Tabs():
            with gr.Tab("Ask", id="ask"):
                self._draw_ask(gr)
            with gr.Tab("Past runs", id="past", interactive=False) as past_tab:
                self._draw_past(gr, past_tab)
            with gr.Tab("Compare", id="compare", interactive=False) as compare_tab:
                self._draw_compare(gr, compare_tab)
        # Disabled until the server has answered the page for the first time: `opened` enables them. Then the
        # page's body gets the attribute `data-ready`, which ui.css and tests look for.
        self.controls = [
            self.upload,
            self.clip,
            self.question,
            self.options,
            self.ask_button,
            self.config,
            self.tools,
            self.calls,
            self.tokens,
            self.seed,
            past_tab,
            compare_tab,
        ]
        opened = _on(blocks.load, self.opened, None, [*self.controls, self.message])
        opened.then(None, js=_SHOW_READY)

    def _draw_ask(self, gr: Any) -> None:
        name, config = next(iter(self.configs.items()))
        clips = self.shelf.clips()
        first = next(iter(clips.values()), None)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self.upload = gr.File(
                    label=f"Upload a video (at most {_size(self.max_upload)})",
                    height=150,
                    interactive=False,
                    elem_id="upload",
                )
                self.upload_message = _html(elem_id="upload-message")
                self.clip = gr.Dropdown(
                    _offered(clips),
                    value=first and first.key,
                    label="Video",
                    interactive=False,
                    elem_id="clip",
                )
                self.player = _html(player(first.key, first.label) if first else "")
                self.question = gr.Textbox(
                    first.question if first else "",
                    label="Question",
                    placeholder="What happens when …? (press Enter to ask)",
                    lines=1,
                    max_lines=5,
                    interactive=False,
                    elem_id="question",
                )
                self.options = gr.Textbox(
                    "\n".join(first.options) if first else "",
                    label="Options, one per line (optional)",
                    lines=2,
                    max_lines=8,
                    interactive=False,
                    elem_id="options",
                )
                with gr.Row():
                    self.ask_button = gr.Button(
                        "Ask", variant="primary", min_width=120, interactive=False, elem_id="ask-button"
                    )
                    self.stop_button = gr.Button(
                        "Stop", variant="stop", min_width=120, interactive=False, elem_id="stop-button"
                    )
                self.message = _html(elem_id="message")
                with gr.Accordion("Tools, budget, configuration", open=False):
                    self.config = gr.Dropdown(
                        list(self.configs),
                        value=name,
                        label="Configuration",
                        interactive=False,
                        elem_id="config",
                    )
                    self.tools = gr.CheckboxGroup(
                        list(config.tools),
                        value=list(config.tools),
                        label="Tools",
                        interactive=False,
                        elem_id="tools",
                    )
                    self.calls = gr.Number(
                        config.budget.calls,
                        label="Maximum calls",
                        precision=0,
                        minimum=0,
                        interactive=False,
                        elem_id="calls",
                    )
                    self.tokens = gr.Number(
                        config.budget.tokens,
                        label="Maximum tokens",
                        precision=0,
                        minimum=1,
                        interactive=False,
                        elem_id="tokens",
                    )
                    self.seed = gr.Number(
                        config.seed, label="Seed", precision=0, interactive=False, elem_id="seed"
                    )
            with gr.Column(scale=3, min_width=300, elem_id="answering", elem_classes="a2s-view"):
                self.view = _View(
                    _html(),
                    _html(),
                    _html(nothing_asked(name, guarded=config.view.guard is not None), elem_id="chain"),
                )
        self.run = gr.State("")
        # The sample whose question and options were filled in.
        self.sample = gr.State(first.key if first and first.question else "")
        form = [
            self.clip,
            self.question,
            self.options,
            self.config,
            self.tools,
            self.calls,
            self.tokens,
            self.seed,
        ]
        shown = [
            *self.view.parts,
            self.message,
            self.upload_message,
            self.ask_button,
            self.stop_button,
            self.run,
        ]
        filled = [self.sample, self.question]
        _on(self.upload.upload, self.uploaded, [self.upload], [self.upload, self.clip, self.upload_message])
        _on(
            self.clip.change,
            self.picked,
            [self.clip, *filled],
            [self.player, *filled, self.options, self.message],
        )
        _on(
            self.config.change,
            self.configured,
            [self.config],
            [self.tools, self.calls, self.tokens, self.seed],
        )
        asked = _on([self.ask_button.click, self.question.submit], self.asked, [self.run, *form], shown)
        # The page ignores Ask until `asked` is complete, so the event that follows enables the button.
        asked.then(self.ended, [self.run], [self.ask_button, self.stop_button, self.run], **_EVENT)
        _on(self.stop_button.click, self.stopped, [self.run], [])
        self.view.status.change(None, [self.view.status], None, js=_SHOW_ANSWER)
        self.message.change(None, [self.message], None, js=_SHOW_ERROR)

    def _draw_past(self, gr: Any, tab: Any) -> None:
        self.past = gr.Dropdown([], label="Run (newest first)", elem_id="past")
        with gr.Column(elem_classes="a2s-view"):
            self.past_view = _View(_html(), _html(), _html(elem_id="past-chain"))
        _on(tab.select, self.listed, [self.past], [self.past, self.past_view.status])
        _on(self.past.change, self.reopened, [self.past], self.past_view.parts)

    def _draw_compare(self, gr: Any, tab: Any) -> None:
        with gr.Row():
            self.two = [
                gr.Dropdown([], label=f"Run {letter}", min_width=280, elem_id=f"run-{letter.lower()}")
                for letter in "AB"
            ]
        self.comparison = _html(el("p", _NOT_TWO, class_="a2s-note"), elem_id="comparison")
        _on(tab.select, self.listed_two, self.two, self.two)
        _on([d.change for d in self.two], self.compared, self.two, [self.comparison])

    # Event handlers: they take the values of controls and return updates.

    async def opened(self) -> Updates:
        """The page was opened: enable its controls and refresh the list of videos."""
        import gradio as gr

        enabled: Updates = {control: gr.update(interactive=True) for control in self.controls}
        try:
            clips = await asyncio.to_thread(self.shelf.clips)
        except Exception as e:
            return enabled | {self.message: alert(error_line(e, "opening the page"))}
        return enabled | {self.clip: gr.Dropdown(_offered(clips), interactive=True)}

    async def uploaded(self, upload: Any) -> Updates:
        import gradio as gr

        if upload is None:
            return {self.upload: gr.skip()}
        try:
            if not isinstance(upload, dict):
                raise QuestionError("this is not an uploaded file: choose a file")
            clip, info = await asyncio.to_thread(self.shelf.take, str(upload.get("path")))
        except Exception as e:
            return {self.upload: None, self.upload_message: alert(error_line(e, "an upload"))}
        clips = await asyncio.to_thread(self.shelf.clips)
        chosen = gr.Dropdown(_offered(clips), value=clip.key)
        return {
            self.upload: None,
            self.clip: chosen,
            self.upload_message: taken(info, clip.label.removeprefix("upload: ")),
        }

    async def picked(self, key: Any, sample: str, question: Any) -> Updates:
        """A video was selected. A sample fills in its question and options, which are removed again when
        another video is selected."""
        clips = await asyncio.to_thread(self.shelf.clips)
        clip, before = clips.get(_text(key)), clips.get(sample)
        if clip is None:
            return {self.player: ""}
        # The message was about the previous video.
        updates: Updates = {
            self.player: player(clip.key, clip.label),
            self.sample: clip.key if clip.question else "",
            self.message: "",
        }
        if clip.question:
            updates |= {self.question: clip.question, self.options: "\n".join(clip.options)}
        elif before:
            updates |= {self.options: ""} | ({self.question: ""} if question == before.question else {})
        return updates

    def configured(self, name: Any) -> Updates:
        import gradio as gr

        config = self.configs.get(_text(name))
        if config is None:
            return {self.calls: gr.skip()}
        return {
            self.tools: gr.CheckboxGroup(list(config.tools), value=list(config.tools)),
            self.calls: config.budget.calls,
            self.tokens: config.budget.tokens,
            self.seed: config.seed,
        }

    async def asked(self, running: str, *form: Any) -> AsyncIterator[Updates]:
        import gradio as gr

        try:
            if running in self.runs.running:
                raise QuestionError(
                    "the previous question is still being answered: wait for the answer, or press Stop"
                )
            clips = await asyncio.to_thread(self.shelf.clips)
            run = self.runs.begin(read_form(clips, self.configs, *form))
        except Exception as e:
            yield {self.message: alert(error_line(e, "a question"))}
            return
        cleared = {**self.view.cleared(status(run)), self.message: "", self.upload_message: ""}
        yield {
            **cleared,
            self.ask_button: gr.Button(interactive=False),
            self.stop_button: gr.Button(interactive=True),
            self.run: run.id,
        }
        try:
            async for updates in self._follow(run, self.view):
                if run.done and run.error:
                    updates |= {
                        self.message: alert(run.error),
                        self.view.status: links(run.id) if run.trace else "",
                    }
                yield updates
        except Exception as e:
            yield {self.message: alert(error_line(e, f"showing run {run.id}"))}

    def ended(self, id: str) -> Updates:
        """A question was answered or refused: allow the next one."""
        import gradio as gr

        if id in self.runs.running:
            return {self.run: gr.skip()}
        return {
            self.ask_button: gr.Button(interactive=True),
            self.stop_button: gr.Button(interactive=False),
            self.run: "",
        }

    async def stopped(self, id: str) -> None:
        await self.runs.stop(id)

    async def listed(self, chosen: Any) -> Updates:
        choices = await self._choices()
        note = "" if choices else el("p", _NO_RUNS, class_="a2s-note")
        return {
            self.past: _picked(choices, [_text(chosen), 0]),
            **({self.past_view.status: note} if note else {}),
        }

    async def listed_two(self, a: Any, b: Any) -> Updates:
        choices = [c for c in await self._choices() if c[1] not in self.runs.running]
        return {self.two[0]: _picked(choices, [_text(a), 1, 0]), self.two[1]: _picked(choices, [_text(b), 0])}

    async def reopened(self, id: Any) -> AsyncIterator[Updates]:
        """A past run was selected. If it is still running, it is followed."""
        import gradio as gr

        id = _text(id)
        if not id:
            yield {self.past_view.status: gr.skip()}
            return
        try:
            if run := self.runs.running.get(id):
                async for updates in self._follow(run, self.past_view):
                    yield updates
            else:
                yield {
                    **self.past_view.cleared(),
                    self.past_view.chain: await asyncio.to_thread(past_run, id, self.runs),
                }
        except Exception as e:
            yield self.past_view.cleared(alert(error_line(e, f"showing run {id}")))

    async def compared(self, a: Any, b: Any) -> Updates:
        ids = _text(a), _text(b)
        if not all(ids):
            return {self.comparison: el("p", _NOT_TWO, class_="a2s-note")}
        try:
            return {self.comparison: await asyncio.to_thread(compared, ids, self.runs, self.names)}
        except Exception as e:
            return {self.comparison: alert(error_line(e, f"comparing {' and '.join(ids)}"))}

    async def _choices(self) -> list[tuple[str, str]]:
        return [(label(p, self.names), p.id) for p in await asyncio.to_thread(self.runs.past)]

    async def _follow(self, run: Run, view: _View) -> AsyncIterator[Updates]:
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


def _drawn(view: _View, trace: Trace, pictures: Pictures, running: bool) -> Updates:
    """The updates that show a chain with its pictures."""
    shown = chain(trace, pictures, running)
    return {view.chain: shown, view.style: style(pictures)}


def _html(value: str = "", **more: Any) -> Any:
    """An HTML component without Gradio's default style and click handler."""
    import gradio as gr

    return gr.HTML(value, apply_default_css=False, js_on_load=None, **more)


def _on(triggers: Any, do: Any, inputs: Any, outputs: Any) -> Any:
    """Register a handler. The result has `then`, which registers an event that follows this one."""
    import gradio as gr

    return gr.on(triggers, do, inputs=inputs, outputs=outputs, **_EVENT)


def _text(value: Any) -> str:
    """The value if it is a string, else "", which no list offers."""
    return value if isinstance(value, str) else ""


def _offered(clips: Mapping[str, Clip]) -> list[tuple[str, str]]:
    return [(c.label, key) for key, c in clips.items()]


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


def _size(megabytes: int) -> str:
    return f"{megabytes} MB" if megabytes < 1024 else f"{megabytes / 1024:.3g} GB"
