"""Asking a person for approval before a tool is called.

The node `approve` runs between `reason` and the tool. It is separate from the tool's node for two reasons:
the time limit, the retries and the error handler of a tool must not apply while a person decides, and the
decision is saved before the tool runs, so that neither a retry nor a crash asks the person again. LangGraph
runs an interrupted node again from its start, so the code before the interrupt must not have effects.

A decision and its picture file are checked before LangGraph saves the decision. An invalid decision raises
`DecisionError`, and the run waits for another one. The path of a picture may come from a client of a server,
so it must be in the same folders as videos (`tools/video/folders.py`), if the server has any. The picture is
read only once, when the decision is checked. If the configuration has a guard, it checks the picture as it
checks a video: a model that knows only boards would take a photo for one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from act2see.errors import DecisionError, StoreError
from act2see.graphs.state import waiting_call
from act2see.tools.frames import FrameRef, Record, Supplied
from act2see.tools.runtime.files import is_text, read_file
from act2see.tools.runtime.picture_files import MAX_BYTES, MAX_PIXELS, decode_picture
from act2see.tools.runtime.text import first_problem
from act2see.tools.video.folders import FencedLibrary, Folders
from act2see.tools.video.pixels import opaque
from act2see.tools.video.reader import frames_at
from act2see.trace.record import Frames, Review, Text
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from PIL import Image

    from act2see.tools.base import Resources
    from act2see.tools.video.store import Pixels

_MAX_THOUGHT = 500  # characters; the end of the thought is shown to the person
_FIELDS: dict[str, set[str]] = {
    "accept": set(),
    "replace": {"query"},
    "supply": {"frame", "seconds"},
    "refuse": {"reason"},
}
"""The fields that each type of decision takes in addition to `by`."""


class Decision(Record):
    """A person's decision about a waiting call: the value of `Command(resume={...})`."""

    type: Literal["accept", "replace", "supply", "refuse"]
    """accept: call the tool. replace: call it with `query` instead. supply: show `frame` or the frame at
    `seconds` without calling it. refuse: do not call it, and tell the model the `reason`."""
    query: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """The new query."""
    frame: str | None = None
    """The path of a picture file."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """A time in the video, in seconds."""
    reason: Annotated[str, Field(max_length=1000)] | None = None
    """The reason for refusing the call."""
    by: Annotated[str, Field(min_length=1, max_length=200)] = "a person"
    """The name of the person, for the trace."""

    @model_validator(mode="after")
    def _check_fields(self) -> Decision:
        texts = {"query": self.query, "frame": self.frame, "reason": self.reason, "by": self.by}
        values = {"query": self.query, "frame": self.frame, "seconds": self.seconds, "reason": self.reason}
        used = {name for name, value in values.items() if value is not None}
        if extra := used - _FIELDS[self.type]:
            raise ValueError(f"{self.type!r} does not take {sorted(extra)[0]!r}")
        for name, text in texts.items():
            if text and ("\0" in text or not is_text(text)):
                raise ValueError(f"{name!r} holds a null character or a lone surrogate: use Unicode text")
        if self.type == "supply" and len(used) != 1:
            raise ValueError(
                "'supply' needs either 'frame', the path of a picture, or 'seconds', a time in the video"
            )
        if self.type == "replace" and not (self.query or "").strip():
            raise ValueError("'replace' needs 'query', the new query")
        return self


def ask_person(
    trace: Trace, resources: Resources, refuses: Callable[[Pixels], str | None]
) -> tuple[Decision, Image.Image | None]:
    """Interrupt the run until a person has decided about its last call.

    This reads files, so call it in a thread and not in an event loop.

    Args:
        trace: The trace that ends with the call.
        resources: The store and the finder of the graph.
        refuses: Returns why a supplied picture, `(height, width, 3)`, must not be shown; None if it may be.

    Returns:
        The decision, and the picture that it supplies.

    Raises:
        DecisionError: The decision is invalid. It is not saved, and the run still waits.
    """
    from langgraph.errors import is_invalid_resume
    from langgraph.types import interrupt

    call = waiting_call(trace)
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
    refusal: str | None = None

    def read_picture(decision: Decision) -> Decision:
        nonlocal supplied, refusal
        if decision.seconds is not None and decision.seconds > trace.video.seconds:
            raise ValueError(
                f"'seconds' is {decision.seconds:g}, but the video lasts {trace.video.seconds:.1f} s"
            )
        supplied = refusal = None
        if decision.frame is not None:
            try:
                supplied = open_picture(decision.frame, folders_of(resources))
            except StoreError as e:
                raise ValueError(str(e)) from e
            if why := refuses(fit_picture(supplied, resources)):
                refusal = refused_picture(decision.frame, why)
                raise ValueError(refusal)
        return decision

    schema: Any = Annotated[Decision, AfterValidator(read_picture)]
    try:
        decision: Decision = interrupt(request, response_schema=schema)
        return decision, supplied
    except ValidationError as e:
        if not is_invalid_resume(e):
            raise
        problem = refusal or decision_problem(e)  # the former is not shortened
        wrong = DecisionError(
            f"this decision about <{call.tag}> cannot be used ({problem}); the run still waits: "
            'resume it with {"type": "accept"}, {"type": "replace", "query": ...}, {"type": "supply", '
            '"frame": ...} or {"type": "refuse"}'
        )
        wrong.problem = problem
        # This copies LangGraph's mark (`is_invalid_resume`), so that the run keeps waiting and does not fail.
        wrong.__dict__.update(e.__dict__)
        raise wrong from e


def decision_problem(error: ValidationError) -> str:
    """Return in a few words why a decision cannot be used."""
    path, problem = first_problem(error)
    return f"{path}: {problem}" if path else problem


def review_of(decision: Decision) -> Review:
    """Return the decision as the trace records it."""
    return Review(
        decision=decision.type,
        by=decision.by,
        query=(decision.query or "").strip(),
        reason=(decision.reason or "").strip(),
    )


def resolve_decision(
    decision: Decision, trace: Trace, video: str, resources: Resources, supplied: Image.Image | None = None
) -> Frames | None:
    """Carry out a decision that replaces the call. This reads and stores pixels.

    Args:
        decision: The person's decision.
        trace: The trace that ends with the call.
        video: The path of the video.
        resources: The store and the finder of the graph.
        supplied: The picture of the decision, if it has been read already.

    Returns:
        The reply to the call; None if the tool must be called.

    Raises:
        StoreError: The picture cannot be read.
        VideoError: The video cannot be read.
    """
    call = trace.calls[-1]
    review = review_of(decision)
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
        picture = supplied or open_picture(decision.frame or "", folders_of(resources))
        provenance = Supplied(by=decision.by, query=call.query, file=os.path.basename(decision.frame or ""))
        frame = _store_picture(picture, provenance, trace, resources)
    return Frames(tag=call.tag, frames=(frame,), note="A person supplied this frame.", review=review)


def replacement_note(review: Review | None) -> str:
    """Return the sentence that tells the model about the person's query; empty if no query was replaced."""
    return f'A person asked for "{review.query}" instead.' if review and review.query else ""


def folders_of(resources: Resources) -> Folders | None:
    """Return the only folders from which files may be opened; None if any file may be opened."""
    library = resources.finder.library
    return library.folders if isinstance(library, FencedLibrary) else None


def open_picture(path: str, folders: Folders | None = None) -> Image.Image:
    """Read and decode a picture file.

    Args:
        path: The file.
        folders: The folders that the file must be in; by default any file is allowed.

    Raises:
        StoreError: The file may not be opened, is not a regular file, is not a PNG, JPEG or WebP picture, or
            is too large.
    """
    try:
        data = read_file(path, MAX_BYTES) if folders is None else folders.read_picture(path, MAX_BYTES)
        return decode_picture(data, ("PNG", "JPEG", "WEBP"), MAX_PIXELS)
    except (OSError, ValueError) as e:  # PictureError, or a name that no file can have
        why = getattr(e, "strerror", None) or e
        raise StoreError(f"the picture {path} cannot be read: {why}") from e


def refused_picture(path: str, why: str) -> str:
    """Return the sentence that says why the guard refuses a picture."""
    return f"the picture {path} is refused, as a video of it would be: {why.rstrip('.')}"


def fit_picture(picture: Image.Image, resources: Resources) -> Pixels:
    """Return the pixels of a picture as the model sees them: upright, and no larger than a video's frames."""
    import numpy as np
    from PIL import Image

    image = upright_picture(picture)
    side = resources.finder.library.max_side  # pixels
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def upright_picture(picture: Image.Image) -> Image.Image:
    """Return a picture in RGB, turned as its EXIF data says, and on white where it is transparent."""
    from PIL import ImageOps

    with suppress(Exception):  # damaged EXIF data raises errors of any kind; the pixels are whole
        picture = ImageOps.exif_transpose(picture)
    return opaque(picture)


def _store_picture(
    picture: Image.Image, provenance: Supplied, trace: Trace, resources: Resources
) -> FrameRef:
    """Store a picture, with the time of the frame that was shown last."""
    return resources.store.ref(fit_picture(picture, resources), trace.shown[-1].seconds, provenance)
