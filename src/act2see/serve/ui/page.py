"""The page's contents as HTML: the status and links of a run, two runs side by side, a line of the history.

`act2see.trace.page` draws the traces. All text passes through `el`, which escapes it. Text from users or
models must not reach Gradio's own messages, which render HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from act2see.serve.ui.runs import Run, Runs, RunSummary
from act2see.tools.frames import Video
from act2see.trace.markup import Html, el, plain
from act2see.trace.page import article, earlier_list
from act2see.trace.pictures import Pictures
from act2see.trace.record import Call, Turn
from act2see.trace.timeline import clock, count
from act2see.trace.trace import Trace

RUNS = "runs"
"""The path under which the server offers traces."""
CLIPS = "clips"
"""The path under which the server offers videos."""


def alert(message: str) -> Html:
    """Return an error message. Screen readers announce it."""
    return el("p", message, role="alert", class_="a2s-alert", dir="auto")


def status(run: Run) -> Html:
    """Return the state of a run, as a line that screen readers announce, and its links once it has ended."""
    trace = run.trace or run.live.trace()
    return el("div", _state(run, trace), links(run.id) if run.done and trace else None, data_run=run.id)


def _state(run: Run, trace: Trace | None) -> Html:
    if run.error:
        return alert(run.error)
    if run.stopped:
        return _line(
            "Stopped. The run so far was saved." if trace else "Stopped before the video was opened."
        )
    if run.done:
        if trace and trace.refused:
            return _line("Not answered: ", el("bdi", trace.answer or ""))
        answer = (trace.choice or trace.answer) if trace else None
        return _line("Answered: ", el("bdi", answer or "(empty)"))
    if trace is None:
        return _line("Opening the video and loading the models …", kind="busy")
    if trace.segments and isinstance(last := trace.segments[-1], Call):
        waits = f": {run.live.indexing}" if run.live.indexing else ""
        return _line(f"Calling {last.tag}{waits} …", kind="busy")
    return _line("Thinking …", kind="busy")


def _line(*words: str, kind: str = "") -> Html:
    return el("p", words, role="status", class_=f"a2s-status {kind}".strip())


def instructions(config: str, guarded: bool) -> Html:
    """Return the instructions that are shown until the first question is asked.

    Args:
        config: The name of the configuration.
        guarded: Whether the configuration refuses videos that its models cannot understand.
    """
    steps = [
        "Pick a video, or upload your own.",
        "Type a question about it. If you list options, the answer is one of them.",
        "Press Ask or Enter. The chain of thought appears here as it is written, with every frame that is "
        "retrieved or imagined.",
    ]
    note = (
        f"The configuration {config} understands only one kind of video: coloured shapes on a "
        "3 \N{MULTIPLICATION SIGN} 3 board. "
    )
    others = "For your own videos, choose another one under “Tools, budget, configuration”."
    return el(
        "div",
        el("h2", "No question has been asked yet"),
        el("ol", (el("li", s) for s in steps)),
        el("p", note, others) if guarded else None,
        class_="a2s-empty",
    )


def conversation(turns: Sequence[Turn]) -> Html | str:
    """Return the turns that the next question follows; empty if there are none."""
    if not turns:
        return ""
    about = el("p", "The next question follows:", class_="a2s-note")
    return el("div", about, earlier_list(turns), class_="a2s fragment a2s-earlier")


def new_conversation() -> Html:
    """Return the line that confirms a new conversation. Screen readers announce it."""
    return _line("The next question starts a new conversation.")


def links(id: str) -> Html:
    """Return links to a run's trace and its page."""
    base = f"{RUNS}/{quote(id, safe='')}"
    return el(
        "p",
        el("a", "Download the trace (JSON)", href=f"{base}/trace.json", download=f"{id}.json"),
        el("a", "Download the page (HTML)", href=f"{base}/trace.html", download=f"{id}.html"),
        el("a", "Open the page", href=f"{base}/trace.html", target="_blank", rel="noopener"),
        class_="a2s-links",
    )


def chain(trace: Trace, pictures: Pictures, running: bool = False) -> Html:
    """Return a trace without the data of its pictures, which `style` returns."""
    return el("div", article(trace, pictures, fragment=True, running=running), class_="a2s fragment")


def style(pictures: Pictures) -> Html:
    """Return the data of the pictures, as a style sheet."""
    return el("style", pictures.css())


def past_run(id: str, runs: Runs) -> Html:
    """Return a run on disk, with its pictures. Raises `TraceError` if it cannot be read."""
    trace = runs.load(id)
    pictures = Pictures(runs.frames(id))
    content = chain(trace, pictures)  # before `style`: it loads the pictures
    return Html(style(pictures) + content + links(id))


def comparison(ids: tuple[str, str], runs: Runs, names: Mapping[str, str]) -> Html:
    """Return two runs on disk, side by side.

    Args:
        ids: The ids of the runs.
        runs: The runs of the page.
        names: The names of the configurations, by hash.

    Raises:
        TraceError: One of the runs cannot be read.
    """
    traces = [runs.load(id) for id in ids]
    columns = []
    styles = []
    for id, trace in zip(ids, traces, strict=True):
        pictures = Pictures(runs.frames(id), budget=800_000)
        columns.append(el("div", chain(trace, pictures), class_="a2s-column"))
        styles.append(style(pictures))
    return Html("".join(styles) + _table(traces, names) + el("div", columns, class_="a2s-columns"))


def _table(traces: list[Trace], names: Mapping[str, str]) -> Html:
    facts = [_facts(trace, names) for trace in traces]
    rows = []
    for name in facts[0]:
        values = [fact[name] for fact in facts]
        cells = [el("td", value) for value in values]
        differs = "differs" if len(set(values)) > 1 else None
        rows.append(el("tr", el("th", name, scope="row"), cells, class_=differs))
    head = el("tr", el("td"), (el("th", f"Run {letter}", scope="col") for letter in "AB"))
    return el(
        "table",
        el("caption", "Differences are in bold."),
        el("thead", head),
        el("tbody", rows),
        class_="a2s-compared",
    )


def _facts(trace: Trace, names: Mapping[str, str]) -> dict[str, str]:
    """Return the rows of the comparison, by title."""
    later = trace.shown[len(trace.initial) :]
    imagined = sum(frame.imagined for frame in later)
    versions = trace.versions
    return {
        "Answer": _answer(trace),
        "Question": trace.question.text,
        "Asked before": "; ".join(turn.line for turn in trace.question.earlier) or "nothing",
        "Configuration": names.get(versions.config, versions.config or "?"),
        "Tools": ", ".join(versions.tools) or "none",
        "Calls": ", ".join(f"{call.tag}: {call.query}" for call in trace.calls) or "none",
        "Frames": f"{len(later) - imagined} retrieved, {imagined} imagined",
        "Tokens": _tokens(trace),
        "Seconds": f"{sum(trace.usage.node_seconds.values()):.1f}",
    }


def _tokens(trace: Trace) -> str:
    hidden = f", {trace.usage.thinking:,} hidden" if trace.usage.thinking else ""
    return f"{trace.usage.tokens:,}{hidden}"


def _answer(trace: Trace) -> str:
    if trace.answer is None:
        return "none"
    if trace.refused:
        return f"none: {trace.answer}"
    return trace.choice or trace.answer or "(empty)"


def run_label(run: RunSummary, names: Mapping[str, str]) -> str:
    """Return a run as a line of plain text.

    Args:
        run: The run.
        names: The names of the configurations, by hash.
    """
    question = plain(run.question)
    if len(question) > 70:
        question = f"{question[:69]}…"
    if run.running:
        return f"running · {question}"
    config = [names[run.config]] if run.config in names else []
    tools = plain(", ".join(run.tools)) or "no tools"
    answer = "no answer" if run.answer is None else f"“{plain(run.answer[:30])}”"
    # The question comes last: a narrow list cuts off the end, and runs often share a question.
    return " · ".join([f"{run.when:%Y-%m-%d %H:%M:%S}", *config, tools, answer, question])


def player(key: str, name: str) -> Html:
    """Return a player for a video."""
    return el(
        "video",
        src=f"{CLIPS}/{key}",
        controls="",
        preload="metadata",
        playsinline="",
        aria_label=f"The clip {name}",
        class_="a2s-clip",
    )


def upload_confirmation(info: Video, name: str) -> Html:
    """Return the message after an upload: the name and properties of the video."""
    size = f"{info.width} \N{MULTIPLICATION SIGN} {info.height}"
    facts = f"{clock(info.seconds, info.seconds)}, {size}, {count(info.frames, 'frame')}"
    return el("p", el("bdi", name), f": {facts}. It is now selected.", role="status", class_="a2s-status")
