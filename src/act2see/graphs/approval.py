"""Asking a person before a tool is called.

A node of its own stands between `reason` and the tools whose calls wait for a person. LangGraph runs an
interrupted node again from its start, so nothing before the interrupt has an effect; and tool nodes have a
time limit, retries and an error handler, none of which may meet a person who takes an hour or mistypes. The
decision is saved before the tool runs: a tool that is tried again, or a process that dies in it, asks nobody
twice.

A decision is checked before LangGraph saves it, its picture file included. One that cannot be carried out
raises `DecisionError`, and the run waits for another. A picture's path may come from a client of a server: it
goes through the same door as videos (`tools/video/folders.py`), where there is one, and is read once, when
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
from act2see.tools.video.folders import FencedLibrary, Folders
from act2see.tools.video.reader import frames_at
from act2see.trace.record import Frames, Review, Text
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from PIL import Image

    from act2see.tools.base import Resources

MAX_PIXELS = 50_000_000
MAX_BYTES = 64 << 20
_THOUGHT = 500
_TAKES: dict[str, set[str]] = {
    "accept": set(),
    "replace": {"query"},
    "supply": {"frame", "seconds"},
    "refuse": {"reason"},
}


class Decision(Record):
    """What a person says to a waiting call: the value of `Command(resume={...})`.

    accept: call the tool. replace: call it with `query` instead. supply: show this frame instead, a picture
    file (`frame`, its path) or the video's own at `seconds`. refuse: do not call it; the model is told the
    `reason`.
    """

    type: Literal["accept", "replace", "supply", "refuse"]
    query: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    frame: str | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    reason: Annotated[str, Field(max_length=1000)] | None = None
    by: Annotated[str, Field(min_length=1, max_length=200)] = "a person"

    @model_validator(mode="after")
    def _whole(self) -> Decision:
        given = {k for k in ("query", "frame", "seconds", "reason") if getattr(self, k) is not None}
        if extra := given - _TAKES[self.type]:
            raise ValueError(f"{self.type!r} takes no {sorted(extra)[0]!r}")
        for key in ("query", "frame", "reason", "by"):
            if "\0" in (text := getattr(self, key) or "") or not is_text(text):
                raise ValueError(
                    f"{key!r} holds a null character, or half a surrogate pair: give Unicode text"
                )
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
    said = "".join(s.text for s in trace.segments if isinstance(s, Text))[-_THOUGHT:]
    asked = {"type": "approve", "run": trace.id, "tag": call.tag, "query": call.query, "thought": said}
    asked |= {"video": trace.video.path, "question": trace.question.text}
    supplied: Image.Image | None = None

    def read_picture(decision: Decision) -> Decision:
        nonlocal supplied
        if decision.seconds is not None and decision.seconds > trace.video.seconds:
            raise ValueError(
                f"'seconds' is {decision.seconds:g}, and the video lasts {trace.video.seconds:.1f} s"
            )
        try:
            supplied = picture(decision.frame, folders_of(resources)) if decision.frame is not None else None
        except StoreError as e:
            raise ValueError(str(e)) from e
        return decision

    schema: Any = Annotated[Decision, AfterValidator(read_picture)]
    try:
        decision: Decision = interrupt(asked, response_schema=schema)
        return decision, supplied
    except ValidationError as e:
        if not is_invalid_resume(e):
            raise
        wrong = DecisionError(
            f"this decision about <{call.tag}> cannot be used ({fault(e)}); the run still waits: "
            'resume it with {"type": "accept"}, {"type": "replace", "query": ...}, {"type": "supply", "frame": ...} or {"type": "refuse"}'
        )
        wrong.__dict__.update(e.__dict__)  # LangGraph's mark, which tells a wrong answer from a failed node
        raise wrong from e


def fault(e: ValidationError) -> str:
    """What is wrong with a decision, in a few words."""
    first = e.errors()[0]
    where = f"{first['loc'][-1]}: " if first["loc"] else ""
    return f"{where}{first['msg'].removeprefix('Value error, ')}"


def review_of(decision: Decision) -> Review:
    """The decision as the trace keeps it."""
    return Review(
        decision=decision.type,
        by=decision.by,
        query=(decision.query or "").strip(),
        reason=(decision.reason or "").strip(),
    )


def instead(
    decision: Decision, trace: Trace, video: str, resources: Resources, supplied: Image.Image | None = None
) -> Frames | None:
    """What the model is given where its tool is not called: a person's frame, or that it was refused. Reads
    and stores pixels.

    `supplied` is the decision's picture where it has been read already.
    """
    call, review = trace.calls[-1], review_of(decision)
    if decision.type == "refuse":
        why = f": {review.reason.rstrip('.')}" if review.reason else ""
        return Frames(tag=call.tag, note=f"A person refused this call{why}. Go on without it.", review=review)
    if decision.type != "supply":
        return None
    if decision.seconds is not None:
        clips = resources.finder.clips
        numbers = frames_at(clips.clip(video).seconds, [decision.seconds])
        [frame] = clips.pictures(video, numbers, Supplied(by=decision.by, query=call.query))
    else:
        given = supplied or picture(decision.frame or "", folders_of(resources))
        made = Supplied(by=decision.by, query=call.query, file=os.path.basename(decision.frame or ""))
        frame = _stored(given, made, trace, resources)
    return Frames(tag=call.tag, frames=(frame,), note="A person supplied this frame.", review=review)


def replaced(review: Review | None) -> str:
    """The sentence that tells the model of another query than its own."""
    return f'A person asked for "{review.query}" instead.' if review and review.query else ""


def folders_of(resources: Resources) -> Folders | None:
    """The folders that files from outside must lie in; None where any file may be opened."""
    clips = resources.finder.clips
    return clips.folders if isinstance(clips, FencedLibrary) else None


def _stored(given: Image.Image, made: Supplied, trace: Trace, resources: Resources) -> FrameRef:
    import numpy as np
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(given).convert("RGB")
    side = resources.finder.clips.max_side
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return resources.store.ref(np.asarray(image), trace.shown[-1].seconds, made)


def picture(path: str, folders: Folders | None = None) -> Image.Image:
    """A picture file, decoded: one in `folders`, where these are given. Reads the file.

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
        said = getattr(e, "strerror", None) or "it is no PNG, JPEG or WebP picture"
        raise StoreError(f"the picture {path} cannot be read: {said}") from e
    return image
