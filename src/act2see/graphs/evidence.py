"""A trace in short, for other agents: the answer with its evidence, as text and as references.

The text has a line for each frame that came back: when it stands in the video, how it was found, and whether
it is imagined. The references are JSON data, so that every checkpointer takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from act2see.trace.trace import Trace


def evidence(trace: Trace) -> str:
    """The answer, and what it rests on: a line for each frame that came back. Plain text."""
    answer, choice = (trace.answer or "").strip(), trace.choice
    chosen = f" ({choice})" if choice and choice != answer else ""
    lines = [f"Answer: {answer or 'none'}{chosen}"]
    if times := [frame.seconds for frame in trace.initial]:
        lines.append(f"Seen at the start: {len(times)} frames, {min(times):.1f} s to {max(times):.1f} s.")
    later = trace.shown[len(trace.initial) :]
    lines += [f"- {frame.describe()}" for frame in later]
    if any(frame.imagined for frame in later):
        lines.append("Imagined frames show what might be; they are not in the video.")
    return "\n".join(lines)


def references(trace: Trace) -> dict[str, Any]:
    """The id, the answer and the frames that came back, by their digests in the frame store. JSON data."""
    frames = [
        {"digest": frame.digest, "seconds": frame.seconds, "imagined": frame.imagined}
        for frame in trace.shown[len(trace.initial) :]
    ]
    return {
        "run": trace.id,
        "video": trace.video.digest,
        "answer": trace.answer,
        "choice": trace.choice,
        "frames": frames,
    }


def result_evidence(result: Mapping[str, Any]) -> str:
    """The evidence of a graph's result: of its trace, or of the parts of a long video."""
    if result.get("trace"):
        return evidence(Trace.model_validate(result["trace"]))
    lines = [f"Answer: {str(result['answer']).strip() or 'none'}"]
    if result.get("found") is False:
        lines.append("No part of the video shows it; the answer is a guess.")
    for part in result.get("evidence") or ():
        lines.append(f"- from {part['start']:.1f} s to {part['stop']:.1f} s of the video:")
        lines += [f"  {line}" for line in part["text"].splitlines()]
    return "\n".join(lines)


def result_references(result: Mapping[str, Any]) -> dict[str, Any]:
    """The references of a graph's result: of its trace, or of the parts of a long video."""
    if result.get("trace"):
        return references(Trace.model_validate(result["trace"]))
    frames = [frame for part in result.get("evidence") or () for frame in part["frames"]]
    return {"answer": result["answer"], "found": result.get("found"), "frames": frames}
