"""The page's controls under Ask, and their event handlers.

A handler sends only what has changed: while tokens arrive that is the text of the chain; a picture is sent
once, when it arrives. An error is shown as text beside the control that caused it, and the form keeps its
values. A browser can send values of any type, so the handlers check them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from act2see.errors import QuestionError
from act2see.graphs.config import Config
from act2see.serve.ui.catalog import CatalogVideo, VideoCatalog
from act2see.serve.ui.components import EVENT, RunView, Updates, follow, html, on, text_of
from act2see.serve.ui.form import read_form
from act2see.serve.ui.history import History
from act2see.serve.ui.page import (
    alert,
    links,
    nothing_asked,
    player,
    status,
    taken,
)
from act2see.serve.ui.runs import Runs, error_line
from act2see.tools.runtime.text import format_bytes
from act2see.trace.markup import el

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


class Controls:
    """The controls of the page. `draw` creates them, inside a `gr.Blocks`."""

    def __init__(
        self, configs: Mapping[str, Config], catalog: VideoCatalog, runs: Runs, max_upload: int
    ) -> None:
        self.configs, self.catalog, self.runs, self.max_upload = dict(configs), catalog, runs, max_upload
        self.history = History(runs, {config.hash: name for name, config in self.configs.items()})

    def draw(self, blocks: Any) -> None:
        import gradio as gr

        with gr.Column(elem_classes="a2s-head"):
            about = (
                "Ask a question about a video. The model thinks, looks at the video again or imagines "
                "frames, and answers."
            )
            html(el("h1", "Act2See") + el("p", about))
        with gr.Tabs():
            with gr.Tab("Ask", id="ask"):
                self._draw_ask(gr)
            with gr.Tab("Past runs", id="past", interactive=False) as past_tab:
                self.history.draw_past(past_tab)
            with gr.Tab("Compare", id="compare", interactive=False) as compare_tab:
                self.history.draw_compare(compare_tab)
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
        opened = on(blocks.load, self.opened, None, [*self.controls, self.message])
        opened.then(None, js=_SHOW_READY)

    def _draw_ask(self, gr: Any) -> None:
        name, config = next(iter(self.configs.items()))
        clips = self.catalog.clips()
        first = next(iter(clips.values()), None)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self.upload = gr.File(
                    label=f"Upload a video (at most {format_bytes(self.max_upload << 20, binary=True)})",
                    height=150,
                    interactive=False,
                    elem_id="upload",
                )
                self.upload_message = html(elem_id="upload-message")
                self.clip = gr.Dropdown(
                    _offered(clips),
                    value=first and first.key,
                    label="Video",
                    interactive=False,
                    elem_id="clip",
                )
                self.player = html(player(first.key, first.label) if first else "")
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
                self.message = html(elem_id="message")
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
                self.view = RunView(
                    html(),
                    html(),
                    html(nothing_asked(name, guarded=config.view.guard is not None), elem_id="chain"),
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
        on(self.upload.upload, self.uploaded, [self.upload], [self.upload, self.clip, self.upload_message])
        on(
            self.clip.change,
            self.picked,
            [self.clip, *filled],
            [self.player, *filled, self.options, self.message],
        )
        on(
            self.config.change,
            self.configured,
            [self.config],
            [self.tools, self.calls, self.tokens, self.seed],
        )
        asked = on([self.ask_button.click, self.question.submit], self.asked, [self.run, *form], shown)
        # The page ignores Ask until `asked` is complete, so the event that follows enables the button.
        asked.then(self.ended, [self.run], [self.ask_button, self.stop_button, self.run], **EVENT)
        on(self.stop_button.click, self.stopped, [self.run], [])
        self.view.status.change(None, [self.view.status], None, js=_SHOW_ANSWER)
        self.message.change(None, [self.message], None, js=_SHOW_ERROR)

    # Event handlers: they take the values of controls and return updates.

    async def opened(self) -> Updates:
        """The page was opened: enable its controls and refresh the list of videos."""
        import gradio as gr

        enabled: Updates = {control: gr.update(interactive=True) for control in self.controls}
        try:
            clips = await asyncio.to_thread(self.catalog.clips)
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
            clip, info = await asyncio.to_thread(self.catalog.take, str(upload.get("path")))
        except Exception as e:
            return {self.upload: None, self.upload_message: alert(error_line(e, "an upload"))}
        clips = await asyncio.to_thread(self.catalog.clips)
        chosen = gr.Dropdown(_offered(clips), value=clip.key)
        return {
            self.upload: None,
            self.clip: chosen,
            self.upload_message: taken(info, clip.label.removeprefix("upload: ")),
        }

    async def picked(self, key: Any, sample: str, question: Any) -> Updates:
        """A video was selected. A sample fills in its question and options, which are removed again when
        another video is selected."""
        clips = await asyncio.to_thread(self.catalog.clips)
        clip, before = clips.get(text_of(key)), clips.get(sample)
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

        config = self.configs.get(text_of(name))
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
            clips = await asyncio.to_thread(self.catalog.clips)
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
            async for updates in follow(run, self.view):
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


def _offered(clips: Mapping[str, CatalogVideo]) -> list[tuple[str, str]]:
    return [(c.label, key) for key, c in clips.items()]
