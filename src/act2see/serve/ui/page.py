"""The page's contents as HTML: a run's status, its links, two runs side by side, a line of the history.

`act2see.trace.page` draws the traces, here as everywhere. All text passes through `el`, which escapes it. No
text from users or models reaches Gradio's own messages, which render HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from act2see.serve.ui.runs import Past, Run, Runs
from act2see.tools.frames import Video
from act2see.trace.markup import Html, el, plain
from act2see.trace.page import article
from act2see.trace.pictures import Pictures
from act2see.trace.record import Call
from act2see.trace.timeline import clock, count
from act2see.trace.trace import Trace

RUNS, CLIPS = "runs", "clips"  # the paths under which the server has traces and videos


def alert(message: str) -> Html:
    """An error message: what went wrong and what to do."""
    return el("p", message, role="alert", class_="a2s-alert", dir="auto")


def status(run: Run) -> Html:
    """The state of a run, as a line that screen readers announce, or the reason why it failed."""
    trace = run.trace or run.live.trace()
    if run.error:
        said: Html = alert(run.error)
    elif run.stopped:
        said = _line(
            "Stopped. The run so far was saved." if trace else "Stopped before the video was opened."
        )
    elif run.done and trace and trace.refused:
        said = _line("Not answered: ", el("bdi", trace.answer or ""))
    elif run.done:
        said = _line("Answered: ", el("bdi", (trace and (trace.choice or trace.answer)) or "(empty)"))
    elif trace is None:
        said = _line("Opening the video and loading the models …", kind="busy")
    elif trace.segments and isinstance(last := trace.segments[-1], Call):
        said = _line(f"Calling {last.tag} …", kind="busy")
    else:
        said = _line("Thinking …", kind="busy")
    return el("div", said, links(run.id) if run.done and trace else None, data_run=run.id)


def _line(*words: str, kind: str = "") -> Html:
    return el("p", words, role="status", class_=f"a2s-status {kind}".strip())


def nothing_asked(config: str, guarded: bool) -> Html:
    """The instructions that are shown until the first question. `guarded`: the configuration refuses some
    videos."""
    steps = [
        "Pick a video, or upload one of your own.",
        "Type a question about it. If you list options, the answer is one of them.",
        "Press Ask or Enter. The chain of thought appears here as it is written, with every frame that is "
        "retrieved or imagined.",
    ]
    note = (
        f"The configuration {config} understands only one kind of video: coloured shapes on a "
        "3 \N{MULTIPLICATION SIGN} 3 board. "
    )
    others = "For your own videos choose another one under “Tools, budget, configuration”."
    return el(
        "div",
        el("h2", "No question has been asked yet"),
        el("ol", (el("li", s) for s in steps)),
        el("p", note, others) if guarded else None,
        class_="a2s-empty",
    )


def links(id: str) -> Html:
    """Links to a run's trace and its page."""
    to = f"{RUNS}/{quote(id, safe='')}"
    return el(
        "p",
        el("a", "Download the trace (JSON)", href=f"{to}/trace.json", download=f"{id}.json"),
        el("a", "Download the page (HTML)", href=f"{to}/trace.html", download=f"{id}.html"),
        el("a", "Open the page", href=f"{to}/trace.html", target="_blank", rel="noopener"),
        class_="a2s-links",
    )


def chain(trace: Trace, pictures: Pictures, running: bool = False) -> Html:
    """A trace without the data of its pictures, which `style` sends."""
    return el("div", article(trace, pictures, fragment=True, running=running), class_="a2s fragment")


def style(pictures: Pictures) -> Html:
    return el("style", pictures.css())


def past_run(id: str, runs: Runs) -> Html:
    """A run on disk, with its pictures. Raises `TraceError` if it cannot be read."""
    trace, pictures = runs.load(id), Pictures(runs.frames(id))
    shown = chain(trace, pictures)
    return Html(style(pictures) + shown + links(id))


def compared(ids: tuple[str, str], runs: Runs, names: Mapping[str, str]) -> Html:
    """Two runs on disk, side by side.

    Args:
        ids: The runs.
        runs: Where they are.
        names: Names of configurations, by hash.

    Raises:
        TraceError: One of them cannot be read.
    """
    traces = [runs.load(id) for id in ids]
    columns, styles = [], []
    for id, trace in zip(ids, traces, strict=True):
        pictures = Pictures(runs.frames(id), budget=800_000)
        columns.append(el("div", chain(trace, pictures), class_="a2s-column"))
        styles.append(style(pictures))
    return Html("".join(styles) + _table(traces, names) + el("div", columns, class_="a2s-columns"))


def _table(traces: list[Trace], names: Mapping[str, str]) -> Html:
    facts = [_facts(t, names) for t in traces]
    rows = []
    for what in facts[0]:
        values = [f[what] for f in facts]
        rows.append(
            el(
                "tr",
                el("th", what, scope="row"),
                (el("td", v) for v in values),
                class_="differs" if len({*values}) > 1 else None,
            )
        )
    head = el("tr", el("td"), (el("th", f"Run {letter}", scope="col") for letter in "AB"))
    return el(
        "table",
        el("caption", "Differences are in bold."),
        el("thead", head),
        el("tbody", rows),
        class_="a2s-compared",
    )


def _facts(trace: Trace, names: Mapping[str, str]) -> dict[str, str]:
    later = trace.shown[len(trace.initial) :]
    imagined = sum(f.imagined for f in later)
    v = trace.versions
    return {
        "Answer": _answer(trace),
        "Question": trace.question.text,
        "Configuration": names.get(v.config, v.config or "?"),
        "Tools": ", ".join(v.tools) or "none",
        "Calls": ", ".join(f"{c.tag}: {c.query}" for c in trace.calls) or "none",
        "Frames": f"{len(later) - imagined} retrieved, {imagined} imagined",
        "Tokens": f"{trace.usage.tokens:,}",
        "Seconds": f"{sum(trace.usage.node_seconds.values()):.1f}",
    }


def _answer(trace: Trace) -> str:
    if trace.answer is None:
        return "none"
    return f"none: {trace.answer}" if trace.refused else trace.choice or trace.answer or "(empty)"


def label(past: Past, names: Mapping[str, str]) -> str:
    """A past run as a line of plain text. `names` are those of configurations, by hash."""
    asked = plain(past.question)
    question = asked if len(asked) <= 70 else f"{asked[:69]}…"
    if past.running:
        return f"running · {question}"
    answer = "no answer" if past.answer is None else f"“{plain(past.answer[:30])}”"
    how = [names[past.config]] if past.config in names else []
    tools = plain(", ".join(past.tools)) or "no tools"
    # The question comes last: a narrow list cuts off the end, and runs often share a question.
    return " · ".join([f"{past.when:%Y-%m-%d %H:%M:%S}", *how, tools, answer, question])


def player(key: str, name: str) -> Html:
    """A player for a clip."""
    return el(
        "video",
        src=f"{CLIPS}/{key}",
        controls="",
        preload="metadata",
        playsinline="",
        aria_label=f"The clip {name}",
        class_="a2s-clip",
    )


def taken(info: Video, name: str) -> Html:
    """The confirmation of an upload."""
    size = f"{info.width} \N{MULTIPLICATION SIGN} {info.height}"
    facts = f"{clock(info.seconds, info.seconds)}, {size}, {count(info.frames, 'frame')}"
    return el("p", el("bdi", name), f": {facts}. It is now selected.", role="status", class_="a2s-status")
