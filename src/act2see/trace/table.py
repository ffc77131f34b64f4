"""Many traces as pandas DataFrames: a row for each trace, a row for each call.

    frame = traces_frame(load_traces("traces.jsonl"))
    frame.groupby("config")[["calls", "tokens", "seconds"]].mean()

Columns hold plain numbers and words, so that all of pandas works on them; what is not known is missing (NaN).
pandas comes with the extra `notebook`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from act2see.errors import ConfigError
from act2see.tools.frames import Generated, Retrieved
from act2see.trace.record import Answer, Frames
from act2see.trace.timeline import spot
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from pandas import DataFrame

Row = dict[str, Any]
_TRACE = (
    "trace",
    "video",
    "clip_seconds",
    "question",
    "options",
    "answer",
    "choice",
    "forced",
    "calls",
    "failed",
    "refused",
    "real",
    "imagined",
    "tokens",
    "prefilled",
    "cached",
    "loops",
    "seconds",
    "reasoner",
    "tools",
    "config",
    "seed",
)
_CALL = (
    "trace",
    "n",
    "tag",
    "query",
    "outcome",
    "frames",
    "imagined",
    "at",
    "score",
    "best",
    "faithfulness",
    "anchor_score",
    "note",
    "review",
    "seconds",
)


def traces_frame(traces: Iterable[Trace]) -> DataFrame:
    """A row for each trace: what was asked and answered, what was called and came back, what it took.

    `calls` counts all calls, `failed` those that could not be run, `refused` those that were run and brought
    no frame; `real` and `imagined` are frames that came back. `answer` is missing where the run is not
    finished. `seconds` is of all nodes, and `seconds_NODE` of each; tokens are those that the model wrote
    (`tokens`) and read (`prefilled`, and from its `cached` prefix). Raises `ConfigError` without pandas.
    """
    rows = [_trace(t) for t in traces]
    nodes = sorted({key for row in rows for key in row} - set(_TRACE))
    return _table(rows, (*_TRACE, *nodes))


def calls_frame(traces: Iterable[Trace]) -> DataFrame:
    """A row for each call of each trace, numbered from 1 as `Trace.calls` and `fork` do.

    `at` is the time of the first frame that came back (seconds; an imagined frame's anchor), `score` the
    similarity by which it was found, `best` the highest of the search. Raises `ConfigError` without pandas.
    """
    return _table([row for t in traces for row in _calls(t)], _CALL)


def _table(rows: list[Row], columns: tuple[str, ...]) -> DataFrame:
    try:
        import pandas
    except ImportError as e:
        raise ConfigError("a DataFrame needs pandas: pip install 'act2see[notebook]'") from e
    return pandas.DataFrame(rows, columns=list(columns))


def _trace(trace: Trace) -> Row:
    later, usage, v = trace.shown[len(trace.initial) :], trace.usage, trace.versions
    ran = [came for call, came in trace.looks if call.outcome == "ok" and came]
    seconds = usage.node_seconds
    return {
        "trace": trace.id,
        "video": re.split(r"[\\/]", trace.video.path)[-1],
        "clip_seconds": trace.video.seconds,
        "question": trace.question.text,
        "options": len(trace.question.options),
        "answer": trace.answer,
        "choice": trace.choice,
        "forced": any(isinstance(s, Answer) and s.forced for s in trace.segments),
        "calls": len(trace.calls),
        "failed": sum(call.outcome != "ok" for call in trace.calls),
        "refused": sum(not came.frames for came in ran),
        "real": sum(not f.imagined for f in later),
        "imagined": sum(f.imagined for f in later),
        "tokens": usage.tokens,
        "prefilled": sum(loop.prefilled for loop in usage.loops),
        "cached": sum(loop.cached for loop in usage.loops),
        "loops": len(usage.loops),
        "seconds": sum(seconds.values()),
        "reasoner": v.reasoner,
        "tools": ", ".join(v.tools),
        "config": v.config,
        "seed": v.seed,
        **{f"seconds_{node}": value for node, value in seconds.items()},
    }


def _calls(trace: Trace) -> Iterator[Row]:
    for n, (call, came) in enumerate(trace.looks, start=1):
        first = came.frames[0] if came and came.frames else None
        yield {
            "trace": trace.id,
            "n": n,
            "tag": call.tag,
            "query": call.query,
            "outcome": call.outcome,
            "frames": len(came.frames) if came else 0,
            "imagined": bool(first and first.imagined),
            "at": spot(first) if first else None,
            **_scores(came),
            "note": came.note if came else "",
            "review": came.review.decision if came and came.review else None,
            "seconds": came.seconds if came else None,
        }


def _scores(came: Frames | None) -> Row:
    p = came.frames[0].provenance if came and came.frames else None
    made = p if isinstance(p, Generated) else None
    return {
        "score": p.score if isinstance(p, Retrieved) else made.anchor_score if made else None,
        "best": max(came.curve.values, default=None) if came and came.curve else None,
        "faithfulness": made.faithfulness if made else None,
        "anchor_score": made.anchor_score if made else None,
    }
