"""A summary of a trace for other agents: the answer with its evidence, as text and as references.

The text has a line for each frame that a tool returned: the frame's time, how it was found, and whether it is
imagined. The references are JSON data, which every checkpointer can save.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from act2see.tools.runtime.outside import one_line, quote_tags
from act2see.tools.runtime.text import drop_controls
from act2see.trace.trace import Trace


def evidence(trace: Trace) -> str:
    """Return the answer and its evidence as plain text, with a line for each frame that a tool returned."""
    answer = (trace.answer or "").strip()
    choice = trace.choice
    chosen = f" ({choice})" if choice and choice != answer else ""
    # The answer may repeat words of others: a note, a subtitle, a screen.
    lines = [drop_controls(f"Answer: {answer or 'none'}{chosen}")]
    if times := [frame.seconds for frame in trace.initial]:
        lines.append(f"Seen at the start: {len(times)} frames, {min(times):.1f} s to {max(times):.1f} s.")
    later = trace.shown[len(trace.initial) :]
    # A person's name and a query are part of it; neither may forge a line.
    lines += [f"- {one_line(quote_tags(frame.describe()))}" for frame in later]
    if any(frame.imagined for frame in later):
        lines.append("Imagined frames show what might be; they are not in the video.")
    return "\n".join(lines)


def references(trace: Trace) -> dict[str, Any]:
    """Return the id, the answer and the frames that tools returned, by digest in the store, as JSON data."""
    frames = [
        {"digest": frame.digest, "seconds": frame.seconds, "imagined": frame.imagined}
        for frame in trace.shown[len(trace.initial) :]
    ]
    refused = {"refused": True} if trace.refused else {}
    return {
        "run": trace.id,
        "video": trace.video.digest,
        "answer": trace.answer,
        "choice": trace.choice,
        "frames": frames,
        **refused,
    }


def result_evidence(result: Mapping[str, Any]) -> str:
    """Return the evidence in a graph's result, from its trace or from the parts of a long video."""
    if result.get("trace"):
        return evidence(Trace.model_validate(result["trace"]))
    lines = [drop_controls(f"Answer: {str(result['answer']).strip() or 'none'}")]
    if result.get("found") is False:
        lines.append("No part of the video shows it; the answer is a guess.")
    for part in result.get("evidence") or ():
        lines.append(f"- from {part['start']:.1f} s to {part['stop']:.1f} s of the video:")
        lines += [f"  {line}" for line in part["text"].splitlines()]
    return "\n".join(lines)


def result_references(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the references in a graph's result, from its trace or from the parts of a long video."""
    if result.get("trace"):
        return references(Trace.model_validate(result["trace"]))
    frames: list[dict[str, Any]] = []
    for part in result.get("evidence") or ():
        frames += part["frames"]
    return {"answer": result["answer"], "found": result.get("found"), "frames": frames}
