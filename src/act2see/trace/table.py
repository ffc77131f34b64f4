"""Many traces as pandas DataFrames, with a row for each trace or for each call.

    frame = traces_frame(load_traces("traces.jsonl"))
    frame.groupby("config")[["calls", "tokens", "seconds"]].mean()

Columns contain plain numbers and words, so that all of pandas works on them. Unknown values are missing
(NaN). pandas is installed by the extra `notebook`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from act2see.errors import ConfigError
from act2see.tools.frames import Generated
from act2see.trace.record import Frames
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
    """Return a row for each trace: question and answer, calls and results, cost.

    - `answer` is missing if the run is not finished.
    - `calls` counts all calls, `failed` those that were not run, and `refused` those that were run and
      returned no frame. `real` and `imagined` count the returned frames.
    - `tokens` counts the tokens that the model wrote, `prefilled` those that it read, and `cached` those of
      its prefix that were in the cache.
    - `seconds` is the time of all nodes together, and `seconds_NODE` the time of one node.

    Raises:
        ConfigError: pandas is not installed.
    """
    rows = [_trace_row(t) for t in traces]
    nodes = sorted({key for row in rows for key in row} - set(_TRACE))
    return _build_frame(rows, (*_TRACE, *nodes))


def calls_frame(traces: Iterable[Trace]) -> DataFrame:
    """Return a row for each call of each trace, numbered from 1 as in `Trace.calls` and `fork`.

    - `at` is the time of the first returned frame in seconds; for an imagined frame, the time of its anchor.
    - `score` is the similarity by which the frame was found, and `best` the highest similarity of the search.

    Raises:
        ConfigError: pandas is not installed.
    """
    rows: list[Row] = []
    for trace in traces:
        rows += _call_rows(trace)
    return _build_frame(rows, _CALL)


def _build_frame(rows: list[Row], columns: tuple[str, ...]) -> DataFrame:
    try:
        import pandas
    except ImportError as e:
        raise ConfigError("a DataFrame needs pandas: pip install 'act2see[notebook]'") from e
    return pandas.DataFrame(rows, columns=list(columns))


def _trace_row(trace: Trace) -> Row:
    usage, versions = trace.usage, trace.versions
    results = [result for call, result in trace.looks if call.outcome == "ok" and result]
    return {
        "trace": trace.id,
        "video": trace.video.name,
        "clip_seconds": trace.video.seconds,
        "question": trace.question.text,
        "options": len(trace.question.options),
        "answer": trace.answer,
        "choice": trace.choice,
        "forced": trace.forced,
        "calls": len(trace.calls),
        "failed": sum(call.outcome != "ok" for call in trace.calls),
        "refused": sum(not result.frames for result in results),
        "real": sum(not f.imagined for f in trace.returned),
        "imagined": sum(f.imagined for f in trace.returned),
        "tokens": usage.tokens,
        "hidden_tokens": usage.thinking,
        "prefilled": sum(loop.prefilled for loop in usage.loops),
        "cached": sum(loop.cached for loop in usage.loops),
        "loops": len(usage.loops),
        "seconds": usage.seconds,
        "reasoner": versions.reasoner,
        "tools": ", ".join(versions.tools),
        "config": versions.config,
        "seed": versions.seed,
        **{f"seconds_{node}": seconds for node, seconds in usage.node_seconds.items()},
    }


def _call_rows(trace: Trace) -> Iterator[Row]:
    for n, (call, result) in enumerate(trace.looks, start=1):
        row: Row = {
            "trace": trace.id,
            "n": n,
            "tag": call.tag,
            "query": call.query,
            "outcome": call.outcome,
            "frames": 0,
            "imagined": False,
            "note": "",
        }
        yield row | (_result_columns(result) if result else {})


def _result_columns(result: Frames) -> Row:
    """Return the columns of a call that come from its result."""
    row: Row = {
        "frames": len(result.frames),
        "best": max(result.curve.values, default=None) if result.curve else None,
        "note": result.note,
        "review": result.review.decision if result.review else None,
        "seconds": result.seconds,
    }
    if result.frames:
        first = result.frames[0]
        row |= {"imagined": first.imagined, "at": first.anchor_seconds, "score": first.score}
        if isinstance(first.provenance, Generated):
            row |= {
                "faithfulness": first.provenance.faithfulness,
                "anchor_score": first.provenance.anchor_score,
            }
    return row
