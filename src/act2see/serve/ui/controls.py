"""The controls of the tab Ask, and their event handlers.

A handler sends only changes: the text of the chain while tokens arrive, and each picture once. An error is
shown as text beside the control that caused it, and the form keeps its values. A browser can send values of
any type, so the handlers check them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from act2see.errors import QuestionError
from act2see.graphs.config import Config
from act2see.graphs.earlier import following_turns
from act2see.serve.ui.catalog import CatalogVideo, VideoCatalog
from act2see.serve.ui.components import EVENT, RunView, Updates, follow, html, on, text_of
from act2see.serve.ui.form import Talk, read_form
from act2see.serve.ui.history import History
from act2see.serve.ui.page import (
    alert,
    conversation,
    instructions,
    links,
    new_conversation,
    player,
    status,
    upload_confirmation,
)
from act2see.serve.ui.runs import Runs, error_line
from act2see.tools.runtime.text import format_bytes
from act2see.trace.markup import el
from act2see.trace.record import Turn

# On a phone the answer is below the form, and an error can be above the visible part. A busy page may skip a
# run's first status, so the first one that arrives scrolls to the answer.
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
# The button that was pressed disappears, so the keyboard's focus moves on.
_FOCUS_QUESTION = "() => { document.querySelector('#question textarea').focus(); }"
_SHOW_READY = "() => { document.body.dataset.ready = ''; }"
_ABOUT = (
    "Ask a question about a video. The model thinks, looks at the video again or imagines frames, "
    "and answers."
)


class Controls:
    """The controls of the page. `draw` creates them; call it inside a `gr.Blocks`.

    Args:
        configs: The configurations by name. The first one is selected.
        catalog: The videos that the page offers.
        runs: The runs of the page.
        max_upload: The maximum size of an upload, in MiB.
    """

    def __init__(
        self, configs: Mapping[str, Config], catalog: VideoCatalog, runs: Runs, max_upload: int
    ) -> None:
        self.configs = dict(configs)
        self.catalog = catalog
        self.runs = runs
        self.max_upload = max_upload
        self.history = History(runs, {config.hash: name for name, config in self.configs.items()})

    def draw(self, blocks: Any) -> None:
        """Create the controls and register their event handlers."""
        import gradio as gr

        with gr.Column(elem_classes="a2s-head"):
            html(el("h1", "Act2See") + el("p", _ABOUT))
        with gr.Tabs():
            with gr.Tab("Ask", id="ask"):
                self._draw_ask(gr)
            with gr.Tab("Past runs", id="past", interactive=False) as past_tab:
                self.history.draw_past(past_tab)
            with gr.Tab("Compare", id="compare", interactive=False) as compare_tab:
                self.history.draw_compare(compare_tab)
        # The controls are disabled until `on_open`, the server's first answer, enables them. Then the page's
        # body gets the attribute `data-ready`, which ui.css and tests use.
        self.controls = [
            self.upload,
            self.video,
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
        opened = on(blocks.load, self.on_open, None, [*self.controls, self.message])
        opened.then(None, js=_SHOW_READY)

    def _draw_ask(self, gr: Any) -> None:
        """Draw the tab Ask: the form on the left, the run on the right."""
        name, config = next(iter(self.configs.items()))
        videos = self.catalog.videos()
        first = next(iter(videos.values()), None)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._draw_video(gr, videos, first)
                self._draw_question(gr, first)
                with gr.Accordion("Tools, budget, configuration", open=False):
                    self._draw_settings(gr, name, config)
            with gr.Column(scale=3, min_width=300, elem_id="answering", elem_classes="a2s-view"):
                guarded = config.view.guard is not None
                self.view = RunView(html(), html(), html(instructions(name, guarded), elem_id="chain"))
        # The id of the run that this page shows.
        self.run = gr.State("")
        self.talk = gr.State(Talk())
        # The key of the sample whose question and options were filled in.
        self.sample = gr.State(first.key if first and first.question else "")
        self._register_handlers()

    def _draw_video(self, gr: Any, videos: Mapping[str, CatalogVideo], first: CatalogVideo | None) -> None:
        """Draw the upload, the list of videos and the player, with the first video selected."""
        self.upload = gr.File(
            label=f"Upload a video (at most {format_bytes(self.max_upload << 20, binary=True)})",
            height=150,
            interactive=False,
            elem_id="upload",
        )
        self.upload_message = html(elem_id="upload-message")
        self.video = gr.Dropdown(
            _choices(videos),
            value=first and first.key,
            label="Video",
            interactive=False,
            elem_id="clip",
        )
        self.player = html(player(first.key, first.label) if first else "")

    def _draw_question(self, gr: Any, first: CatalogVideo | None) -> None:
        """Draw the question, its options and the buttons, filled in if the first video is a sample."""
        self.earlier = html(elem_id="earlier")
        self.afresh_button = gr.Button(
            "Start a new conversation", size="sm", visible=False, elem_id="afresh-button"
        )
        self.question = gr.Textbox(
            first.question if first else "",
            label="Question",
            placeholder="Ask in your own words: what, where, when, how many …? (press Enter)",
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

    def _draw_settings(self, gr: Any, name: str, config: Config) -> None:
        """Draw the settings, filled in from a configuration."""
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
        self.seed = gr.Number(config.seed, label="Seed", precision=0, interactive=False, elem_id="seed")

    def _register_handlers(self) -> None:
        settings = [self.tools, self.calls, self.tokens, self.seed]
        form = [self.video, self.question, self.options, self.config, *settings]
        buttons = [self.ask_button, self.stop_button]
        run_outputs = [*self.view.parts, self.message, self.upload_message, *buttons, self.run]
        run_outputs += [self.talk, self.afresh_button]
        filled = [self.sample, self.question]
        follows = [self.talk, self.earlier, self.afresh_button]
        video_outputs = [self.player, *filled, self.options, self.message, *follows]
        on(self.upload.upload, self.on_upload, [self.upload], [self.upload, self.video, self.upload_message])
        on(self.video.change, self.on_video, [self.video, self.talk, *filled], video_outputs)
        on(self.config.change, self.on_config, [self.config], settings)
        asking = [self.ask_button.click, self.question.submit]
        asked = on(asking, self.on_ask, [self.run, self.talk, *form], run_outputs)
        # The page ignores Ask until `on_ask` is complete, so a second event enables the button.
        end_outputs = [*buttons, self.run, self.earlier, self.afresh_button]
        asked.then(self.on_end, [self.run, self.talk, self.video], end_outputs, **EVENT)
        afresh = on(self.afresh_button.click, self.on_afresh, [], follows)
        afresh.then(None, js=_FOCUS_QUESTION)
        on(self.stop_button.click, self.on_stop, [self.run], [])
        self.view.status.change(None, [self.view.status], None, js=_SHOW_ANSWER)
        self.message.change(None, [self.message], None, js=_SHOW_ERROR)

    # Event handlers: they take the values of controls and return updates.

    async def on_open(self) -> Updates:
        """Enable the controls and list the videos when the page is opened."""
        import gradio as gr

        enabled: Updates = {control: gr.update(interactive=True) for control in self.controls}
        try:
            videos = await asyncio.to_thread(self.catalog.videos)
        except Exception as e:
            return enabled | {self.message: alert(error_line(e, "opening the page"))}
        return enabled | {self.video: gr.Dropdown(_choices(videos), interactive=True)}

    async def on_upload(self, upload: Any) -> Updates:
        """Store an uploaded video and select it."""
        import gradio as gr

        if upload is None:
            return {self.upload: gr.skip()}
        try:
            if not isinstance(upload, dict):
                raise QuestionError("this is not an uploaded file: choose a file")
            video, info = await asyncio.to_thread(self.catalog.add_upload, str(upload.get("path")))
        except Exception as e:
            return {self.upload: None, self.upload_message: alert(error_line(e, "an upload"))}
        videos = await asyncio.to_thread(self.catalog.videos)
        return {
            self.upload: None,
            self.video: gr.Dropdown(_choices(videos), value=video.key),
            self.upload_message: upload_confirmation(info, video.label.removeprefix("upload: ")),
        }

    async def on_video(self, key: Any, talk: Talk, sample: str, question: Any) -> Updates:
        """Show the selected video. A conversation ends when another video is selected.

        A sample fills in its question and options. They are removed again when another video is selected,
        except a question that the user has edited.
        """
        videos = await asyncio.to_thread(self.catalog.videos)
        video = videos.get(text_of(key))
        previous_sample = videos.get(sample)
        if video is None:
            return {self.player: ""}
        updates: Updates = {
            self.player: player(video.key, video.label),
            self.sample: video.key if video.question else "",
            self.message: "",  # it was about the previous video
        }
        if not talk.about(key):
            updates |= {self.talk: Talk(), **self._show_earlier(())}
        if video.question:
            updates[self.question] = video.question
            updates[self.options] = "\n".join(video.options)
        elif previous_sample:
            updates[self.options] = ""
            if question == previous_sample.question:
                updates[self.question] = ""
        return updates

    def on_config(self, name: Any) -> Updates:
        """Fill in the settings of the selected configuration."""
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

    async def on_ask(self, running: str, talk: Talk, *form: Any) -> AsyncIterator[Updates]:
        """Start a run and show it until it ends. It follows the questions before it about the same video."""
        import gradio as gr

        try:
            if running in self.runs.running:
                raise QuestionError(
                    "the previous question is still being answered: wait for the answer, or press Stop"
                )
            videos = await asyncio.to_thread(self.catalog.videos)
            request = read_form(videos, self.configs, *form)
            run = self.runs.begin(talk.asked(request, form[0]))
        except Exception as e:
            yield {self.message: alert(error_line(e, "a question"))}
            return
        yield {
            **self.view.clear(status(run)),
            self.message: "",
            self.upload_message: "",
            self.ask_button: gr.Button(interactive=False),
            self.stop_button: gr.Button(interactive=True),
            self.afresh_button: gr.Button(interactive=False),
            self.run: run.id,
        }
        try:
            async for updates in follow(run, self.view):
                if run.done and run.error:
                    updates[self.message] = alert(run.error)
                    updates[self.view.status] = links(run.id) if run.trace else ""
                if run.done and run.trace:
                    updates[self.talk] = Talk(form[0], following_turns(run.trace))
                yield updates
        except Exception as e:
            yield {self.message: alert(error_line(e, f"showing run {run.id}"))}

    def on_end(self, id: str, talk: Talk, key: Any) -> Updates:
        """Allow the next question when one was answered or refused, and show what it follows."""
        import gradio as gr

        if id in self.runs.running:
            return {self.run: gr.skip()}
        return {
            self.ask_button: gr.Button(interactive=True),
            self.stop_button: gr.Button(interactive=False),
            self.run: "",
            **self._show_earlier(talk.about(key)),
        }

    def on_afresh(self) -> Updates:
        """Forget the conversation."""
        return {self.talk: Talk(), **self._show_earlier(()), self.earlier: new_conversation()}

    def _show_earlier(self, turns: Sequence[Turn]) -> Updates:
        """Show the turns that the next question follows, and the button that forgets them."""
        import gradio as gr

        button = gr.Button(visible=bool(turns), interactive=True)
        return {self.earlier: conversation(turns), self.afresh_button: button}

    async def on_stop(self, id: str) -> None:
        await self.runs.stop(id)


def _choices(videos: Mapping[str, CatalogVideo]) -> list[tuple[str, str]]:
    """Return the labels and keys of the videos."""
    return [(video.label, key) for key, video in videos.items()]
