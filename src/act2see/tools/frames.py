"""Records of videos and frames, without pixels.

A `FrameRef` identifies pixels by their content hash and records their provenance. It is small, immutable and
serialisable, so traces, checkpoints and corpora contain references, and a `FrameStore` contains the pictures.
Times are presentation timestamps in seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo


def _nan_for_none(value: Any) -> Any:
    """Return NaN for None, as which JSON keeps it."""
    return math.nan if value is None else value


def _nan_for_infinity(value: float) -> float:
    return value if math.isfinite(value) else math.nan


Number = Annotated[float, BeforeValidator(_nan_for_none), AfterValidator(_nan_for_infinity)]
"""A number of a record, or NaN. JSON has no NaN: it is saved as null, which is read as NaN."""

FROM_FILE = {"from_file": True}
"""The context of a validation of what a file says: `Seconds` and `Size` out of bounds are errors."""
_BOUND = 10**15  # seconds or pixels: 30 million years, and far from where arithmetic on floats overflows


def _bound_seconds(value: float, info: ValidationInfo) -> float:
    is_wild = abs(_bound_size(value, info)) > _BOUND
    return math.nan if is_wild else value


def _bound_size(value: Any, info: ValidationInfo) -> Any:
    if info.context == FROM_FILE and abs(value) > _BOUND:
        raise ValueError(f"must be at most {_BOUND:,}")
    return value


Seconds = Annotated[Number, AfterValidator(_bound_seconds)]
"""A time, a duration or a rate. Beyond 10^15 it is an error in a file, and NaN if a tool says so."""
Size = Annotated[int, AfterValidator(_bound_size)]
"""A number of pixels or frames, with the same bound in a file."""


class Record(BaseModel):
    """Base of all saved records: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Video(Record):
    """The facts of a video, or of a part of one."""

    path: str
    """Path of the file; `clip.mp4#t=2,8` for a part of it."""
    digest: str
    """Hash of the content (`tools.video.reader.video_digest`)."""
    seconds: Seconds
    """Duration of the video."""
    width: Size
    """Width of the upright picture, in pixels."""
    height: Size
    """Height of the upright picture, in pixels."""
    frames: Size
    """Number of frames."""
    fps: Seconds
    """Average frame rate, for display only: frames are placed by their timestamps."""

    @property
    def name(self) -> str:
        """File name, without the folders, which could reveal something about the person."""
        path = self.path.partition("?")[0] if "://" in self.path else self.path
        return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or "video"

    def fit(self, max_side: int) -> tuple[int, int]:
        """Return width and height with the longer side at most `max_side`, same aspect, never enlarged."""
        scale = min(1.0, max_side / max(self.width, self.height))
        return max(2, round(self.width * scale)), max(2, round(self.height * scale))


class Initial(Record):
    """One of the frames that the model is given before it starts."""

    kind: Literal["initial"] = "initial"


class Retrieved(Record):
    """A real frame, found by a query."""

    kind: Literal["retrieved"] = "retrieved"
    query: str
    score: Number
    """Similarity to the query, by which the frame was ranked."""
    index_id: str = ""
    """Name of the searched index."""


class Generated(Record):
    """An imagined frame, made by image-to-image generation."""

    kind: Literal["generated"] = "generated"
    prompt: str
    anchor: FrameRef
    """The real frame that it was made from."""
    seed: int
    strength: Number
    """Share of the anchor that was replaced by noise, from 0 to 1."""
    model: str
    faithfulness: float | None = None
    """Similarity of the result to the prompt."""
    anchor_score: float | None = None
    """Similarity of the anchor to the prompt. If the result has a lower one, it does not show the prompt."""
    scores: tuple[Number, ...] = ()
    """Similarities for consecutive seeds, if several were tried. The best result was kept."""

    @property
    def verdict(self) -> str:
        """The similarities in words; empty if none was measured."""
        words = ""
        if self.faithfulness is not None:
            words = f"faithfulness {self.faithfulness:.2f}"
            if self.anchor_score is not None:
                closer = "closer" if self.faithfulness > self.anchor_score else "no closer"
                words += f", anchor {self.anchor_score:.2f}: {closer} to the query than its anchor was"
        if self.scores:
            each = ", ".join(f"{score:.2f}" for score in self.scores)
            words += f"; the best of {len(self.scores)} ({each})"
        return words


class Taken(Record):
    """A real frame that a tool chose without ranking: by its time, or by the text in it."""

    kind: Literal["taken"] = "taken"
    query: str


class Cropped(Record):
    """A part of a frame, with more pixels than the model has seen of it."""

    kind: Literal["cropped"] = "cropped"
    query: str
    source: FrameRef
    """The whole frame, real or imagined, but never a part."""
    box: tuple[Number, Number, Number, Number]
    """Left, top, right, bottom, in shares of the source's width and height."""


class Supplied(Record):
    """A frame that a person supplied as the answer to a call: a picture file, or a frame of the video.

    A picture file proves nothing about the video, so it counts as imagined. Its time is that of the last
    frame that the model saw before it.
    """

    kind: Literal["supplied"] = "supplied"
    by: str
    """Name of the person."""
    query: str
    file: str = ""
    """Name of the file; empty for a frame of the video."""


Provenance = Annotated[
    Initial | Retrieved | Taken | Cropped | Generated | Supplied, Field(discriminator="kind")
]


class FrameRef(Record):
    """A frame by reference."""

    digest: str
    """Content hash of its pixels, by which a `FrameStore` finds them."""
    width: Size
    """Width in pixels."""
    height: Size
    """Height in pixels."""
    seconds: Seconds
    """Time in the video. An imagined frame has the time of the frame that it was made from."""
    provenance: Provenance = Initial()
    """Origin of the frame."""

    @property
    def imagined(self) -> bool:
        """Whether the frame is not of the video: generated, a picture file, or a part of one of these."""
        made = self.provenance
        if isinstance(made, Cropped):
            made = made.source.provenance
        return isinstance(made, Generated) or (isinstance(made, Supplied) and bool(made.file))

    @property
    def part(self) -> str:
        """The box in words: `from 20 to 60 % across, from 0 to 50 % down`; empty for a whole frame."""
        if not isinstance(self.provenance, Cropped):
            return ""
        left, top, right, bottom = (f"{100 * share:.0f}" for share in self.provenance.box)
        return f"from {left} to {right} % across, from {top} to {bottom} % down"

    @property
    def anchor(self) -> FrameRef | None:
        """The frame that a generated one was made from; None for any other frame."""
        return self.provenance.anchor if isinstance(self.provenance, Generated) else None

    @property
    def anchor_seconds(self) -> float:
        """Time on a timeline: that of the anchor for a generated frame, else the frame's own."""
        return self.anchor.seconds if self.anchor else self.seconds

    @property
    def query(self) -> str:
        """The query that the frame answers; empty for an initial frame."""
        match self.provenance:
            case Initial():
                return ""
            case Generated(prompt=prompt):
                return prompt
            case made:
                return made.query

    @property
    def score(self) -> float | None:
        """The similarity by which the frame or its anchor was chosen; None if it was not ranked."""
        match self.provenance:
            case Retrieved(score=score):
                return score
            case Generated(anchor_score=score):
                return score
            case _:
                return None

    @property
    def similarity(self) -> float | None:
        """The similarity of its own pixels, not its anchor's, to its query; None if it was not measured."""
        if isinstance(self.provenance, Generated):
            return self.provenance.faithfulness
        return self.score

    @property
    def origin(self) -> str:
        """The origin in words, to be followed by `at 3.7 s`: `retrieved`, `imagined from the frame`."""
        match self.provenance:
            case Initial():
                return "given at the start"
            case Retrieved():
                return "retrieved"
            case Taken():
                return "taken"
            case Cropped():
                return "cut from an imagined frame" if self.imagined else "cut from the frame"
            case Generated():
                return "imagined from the frame"
            case Supplied(by=by):
                return f"supplied by {by} after the frame" if self.imagined else f"supplied by {by}"

    @property
    def facts(self) -> tuple[str, ...]:
        """The provenance in short lines, without time and query; may be empty."""
        match self.provenance:
            case Retrieved(score=score):
                return (f"score {score:.2f}",)
            case Supplied(by=by):
                return (f"supplied by {by}",)
            case Cropped():
                return (f"a part: {self.part}",)
            case Generated() as made:
                settings = f"{made.model} · strength {made.strength:g} · seed {made.seed}"
                return (made.verdict, settings) if made.verdict else (settings,)
            case _:
                return ()

    def place(self, time: Callable[[float], str] = lambda seconds: f"{seconds:.1f} s") -> str:
        """Return its place in the video: `3.7 s`, `imagined from 3.7 s` or `not in the video`.

        Args:
            time: Formats a time in seconds.
        """
        if self.anchor:
            return f"imagined from {time(self.anchor_seconds)}"
        return "not in the video" if self.imagined else time(self.seconds)

    def describe(self) -> str:
        """Return its provenance in one line: `frame at 3.7 s, found for "the circle" (score 0.90)`."""
        made = self.provenance
        if isinstance(made, Generated):
            return f'imagined from the frame at {self.anchor_seconds:.1f} s: "{made.prompt}"'
        frame = "picture that is not in the video" if self.imagined else f"frame at {self.seconds:.1f} s"
        if self.part:
            frame = f"{frame}, {self.part}"
        match made:
            case Initial():
                return frame
            case Retrieved():
                return f'{frame}, found for "{made.query}" (score {made.score:.2f})'
            case Supplied():
                return f'{frame}, supplied by {made.by} for "{made.query}"'
            case Taken() | Cropped():
                return f'{frame}, for "{made.query}"'


class Curve(Record):
    """Similarity of a video to a query over time."""

    start: Seconds
    """Time of the first value, in seconds."""
    step: Seconds
    """Seconds from one value to the next."""
    values: tuple[Number, ...]
    """At most 128 values, each the highest similarity in its part of the video."""


Generated.model_rebuild()
Cropped.model_rebuild()


def stamp(seconds: float) -> str:
    """Return a time as the model reads it: `<3.7 seconds>`."""
    return f"<{seconds:.1f} seconds>"
