"""Asking a person before a tool is called.

A node of its own stands between `reason` and the tools whose calls wait for a person. LangGraph runs an
interrupted node again from its start, so nothing before the interrupt has an effect. Tool nodes have a time
limit, retries and an error handler, none of which may apply while a person takes an hour, or mistypes. The
decision is saved before the tool runs: neither a retried tool nor a process that dies in it asks a person
again.

A decision is checked before LangGraph saves it, its picture file included. One that cannot be carried out
raises `DecisionError`, and the run waits for another. A picture's path may come from a client of a server: it
is confined to the same folders as videos (`tools/video/folders.py`), if there are any, and is read once, when
the decision is checked. `ask_person` reads files, so it must not be called in an event loop.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from act2see.errors import DecisionError, StoreError
from act2see.tools.frames import FrameRef, Record, Supplied
from act2see.tools.runtime.files import is_text, read_file
from act2see.tools.runtime.text import first_problem
from act2see.tools.video.folders import FencedLibrary, Folders
from act2see.tools.video.reader import frames_at
from act2see.trace.record import Frames, Review, Text
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from PIL import Image

    from act2see.tools.base import Resources

MAX_PIXELS = 50_000_000  # of a picture file
MAX_BYTES = 64 << 20  # of a picture file
_MAX_THOUGHT = 500  # characters of the thought that a person is shown
_FIELDS: dict[str, set[str]] = {
    "accept": set(),
    "replace": {"query"},
    "supply": {"frame", "seconds"},
    "refuse": {"reason"},
}
"""The fields that each type of decision takes, besides `by`."""


class Decision(Record):
    """A person's answer to a waiting call: the value of `Command(resume={...})`."""

    type: Literal["accept", "replace", "supply", "refuse"]
    """accept: call the tool. replace: call it with `query` instead. supply: show `frame` or the frame at
    `seconds` instead. refuse: do not call it; the model is told the `reason`."""
    query: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    frame: str | None = None
    """The path of a picture file."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """A time in the video."""
    reason: Annotated[str, Field(max_length=1000)] | None = None
    by: Annotated[str, Field(min_length=1, max_length=200)] = "a person"
    """Who decided, as the trace names them."""

    @model_validator(mode="after")
    def _check_fields(self) -> Decision:
        given = {key for key in ("query", "frame", "seconds", "reason") if getattr(self, key) is not None}
        if extra := given - _FIELDS[self.type]:
            raise ValueError(f"{self.type!r} takes no {sorted(extra)[0]!r}")
        for key in ("query", "frame", "reason", "by"):
            text = getattr(self, key) or ""
            if "\0" in text or not is_text(text):
                raise ValueError(f"{key!r} holds a null character or a lone surrogate: give Unicode text")
        if self.type == "supply" and len(given) != 1:
            raise ValueError(
                "'supply' needs either 'frame', the path of a picture, or 'seconds', a time in the video"
            )
        if self.type == "replace" and not (self.query or "").strip():
            raise ValueError("'replace' needs 'query', what to look for instead")
        return self


def ask_person(trace: Trace, resources: Resources) -> tuple[Decision, Image.Image | None]:
    """Interrupt the run until a person has decided about its last call.

    Returns:
        The decision, and the picture that it supplies.

    Raises:
        DecisionError: The decision cannot be carried out. Nothing is saved of it, and the run still waits.
    """
    from langgraph.errors import is_invalid_resume
    from langgraph.types import interrupt

    call = trace.calls[-1]
    thought = "".join(segment.text for segment in trace.segments if isinstance(segment, Text))
    request = {
        "type": "approve",
        "run": trace.id,
        "tag": call.tag,
        "query": call.query,
        "thought": thought[-_MAX_THOUGHT:],
        "video": trace.video.path,
        "question": trace.question.text,
    }
    supplied: Image.Image | None = None

    def read_picture(decision: Decision) -> Decision:
        nonlocal supplied
        if decision.seconds is not None and decision.seconds > trace.video.seconds:
            raise ValueError(
                f"'seconds' is {decision.seconds:g}, and the video lasts {trace.video.seconds:.1f} s"
            )
        supplied = None
        if decision.frame is not None:
            try:
                supplied = open_picture(decision.frame, folders_of(resources))
            except StoreError as e:
                raise ValueError(str(e)) from e
        return decision

    schema: Any = Annotated[Decision, AfterValidator(read_picture)]
    try:
        decision: Decision = interrupt(request, response_schema=schema)
        return decision, supplied
    except ValidationError as e:
        if not is_invalid_resume(e):
            raise
        wrong = DecisionError(
            f"this decision about <{call.tag}> cannot be used ({decision_problem(e)}); the run still waits: "
            'resume it with {"type": "accept"}, {"type": "replace", "query": ...}, {"type": "supply", '
            '"frame": ...} or {"type": "refuse"}'
        )
        wrong.__dict__.update(e.__dict__)  # LangGraph's mark, which tells a wrong answer from a failed node
        raise wrong from e


def decision_problem(error: ValidationError) -> str:
    """Why a decision cannot be used, in a few words."""
    path, problem = first_problem(error)
    return f"{path}: {problem}" if path else problem


def review_of(decision: Decision) -> Review:
    """The decision as the trace keeps it."""
    return Review(
        decision=decision.type,
        by=decision.by,
        query=(decision.query or "").strip(),
        reason=(decision.reason or "").strip(),
    )


def resolve_decision(
    decision: Decision, trace: Trace, video: str, resources: Resources, supplied: Image.Image | None = None
) -> Frames | None:
    """The reply to the last call if its tool is not to be called; None if it is. Reads and stores pixels.

    Args:
        decision: The person's decision.
        trace: The trace that ends with the call.
        video: The path of the video.
        resources: The store and the finder of the graph.
        supplied: The decision's picture, if it has been read already.

    Raises:
        StoreError: The picture cannot be read.
    """
    call, review = trace.calls[-1], review_of(decision)
    if decision.type == "refuse":
        why = f": {review.reason.rstrip('.')}" if review.reason else ""
        return Frames(tag=call.tag, note=f"A person refused this call{why}. Go on without it.", review=review)
    if decision.type != "supply":
        return None
    if decision.seconds is not None:
        library = resources.finder.library
        numbers = frames_at(library.probe(video).seconds, [decision.seconds])
        [frame] = library.pictures(video, numbers, Supplied(by=decision.by, query=call.query))
    else:
        given = supplied or open_picture(decision.frame or "", folders_of(resources))
        made = Supplied(by=decision.by, query=call.query, file=os.path.basename(decision.frame or ""))
        frame = _store_picture(given, made, trace, resources)
    return Frames(tag=call.tag, frames=(frame,), note="A person supplied this frame.", review=review)


def replacement_note(review: Review | None) -> str:
    """The sentence that tells the model that a person changed its query; empty if nobody did."""
    return f'A person asked for "{review.query}" instead.' if review and review.query else ""


def folders_of(resources: Resources) -> Folders | None:
    """The folders to which files from outside are confined; None if any file may be opened."""
    library = resources.finder.library
    return library.folders if isinstance(library, FencedLibrary) else None


def open_picture(path: str, folders: Folders | None = None) -> Image.Image:
    """Read and decode a picture file.

    Args:
        path: The file.
        folders: The folders that it must be in; by default any file is read.

    Raises:
        StoreError: It may not be opened, is no regular file, is no PNG, JPEG or WebP, or is too large.
    """
    from PIL import Image

    try:
        data = read_file(path, MAX_BYTES) if folders is None else folders.read_picture(path, MAX_BYTES)
        image = Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"])
        if image.width * image.height > MAX_PIXELS:
            raise StoreError(f"the picture {path} has {image.width} x {image.height} pixels; make it smaller")
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        problem = getattr(e, "strerror", None) or "it is no PNG, JPEG or WebP picture"
        raise StoreError(f"the picture {path} cannot be read: {problem}") from e
    return image


def _store_picture(given: Image.Image, made: Supplied, trace: Trace, resources: Resources) -> FrameRef:
    """Store a picture, no larger than the video's frames; its time is that of the frame shown before it."""
    import numpy as np
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(given).convert("RGB")
    side = resources.finder.library.max_side
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return resources.store.ref(np.asarray(image), trace.shown[-1].seconds, made)
