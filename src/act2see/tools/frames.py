"""Records of videos and frames: everything that is kept of them but pixels.

A `FrameRef` names pixels by their content hash and says where they come from. It is small, immutable and
serialisable, so traces, checkpoints and corpora hold references and a `FrameStore` holds pictures. Times are
presentation timestamps in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Base of everything that is saved: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Video(Record):
    """The facts of a video, or of a part of one."""

    path: str
    """The file; `clip.mp4#t=2,8` for a part of it."""
    digest: str
    """A hash of the content (`tools.video.reader.video_digest`)."""
    seconds: float
    width: int
    """In pixels, upright, as is `height`."""
    height: int
    frames: int
    """How many there are."""
    fps: float
    """An average, never used to place frames."""

    @property
    def name(self) -> str:
        """The file name: a full path says more about the person than about the clip."""
        path = self.path.partition("?")[0] if "://" in self.path else self.path
        return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or "video"

    def fit(self, max_side: int) -> tuple[int, int]:
        """Width and height with the longer side at most `max_side`: aspect kept, never enlarged."""
        scale = min(1.0, max_side / max(self.width, self.height))
        return max(2, round(self.width * scale)), max(2, round(self.height * scale))


class Initial(Record):
    """One of the frames that the model is given before it begins."""

    kind: Literal["initial"] = "initial"


class Retrieved(Record):
    """A real frame, found by a query."""

    kind: Literal["retrieved"] = "retrieved"
    query: str
    score: float
    """The similarity that ranked it."""
    index_id: str = ""
    """The index that was searched."""


class Generated(Record):
    """An imagined frame, made by image-to-image generation."""

    kind: Literal["generated"] = "generated"
    prompt: str
    anchor: FrameRef
    """The real frame that it was made from."""
    seed: int
    strength: float
    """How much of the anchor was replaced by noise, from 0 to 1."""
    model: str
    faithfulness: float | None = None
    """The similarity of the result to the prompt."""
    anchor_score: float | None = None
    """The similarity of the anchor to the prompt. A result below it did not do what was asked."""
    scores: tuple[float, ...] = ()
    """The similarity for each of several consecutive seeds, of which the best was kept."""

    @property
    def verdict(self) -> str:
        """The similarities in words; empty if nothing was measured."""
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
    """A real frame that a tool took without ranking: by its time, or for the text in it."""

    kind: Literal["taken"] = "taken"
    query: str


class Cropped(Record):
    """A part of a frame, with more pixels than the model was shown of it."""

    kind: Literal["cropped"] = "cropped"
    query: str
    source: FrameRef
    """The whole frame, of the video or imagined; never a part itself."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom, in shares of the source's width and height."""


class Supplied(Record):
    """A frame that a person gave in answer to a call: a picture file, or the frame of the video at a time.

    A picture file proves nothing about the video, so it counts as imagined; its time is that of the frame
    that the model saw before it.
    """

    kind: Literal["supplied"] = "supplied"
    by: str
    """Who gave it."""
    query: str
    file: str = ""
    """The file's name; empty for a frame of the video."""


Provenance = Annotated[
    Initial | Retrieved | Taken | Cropped | Generated | Supplied, Field(discriminator="kind")
]


class FrameRef(Record):
    """A frame by reference."""

    digest: str
    """The content hash of its pixels, by which a `FrameStore` finds them."""
    width: int
    """In pixels, as is `height`."""
    height: int
    seconds: float
    """Its time in the video; for an imagined frame, that of the frame it was made from."""
    provenance: Provenance = Initial()
    """Where it comes from."""

    @property
    def imagined(self) -> bool:
        """Whether it is not a frame of the video: generated, a picture file, or cut from one of these."""
        made = self.provenance
        if isinstance(made, Cropped):
            made = made.source.provenance
        return isinstance(made, Generated) or (isinstance(made, Supplied) and bool(made.file))

    @property
    def part(self) -> str:
        """Its part of the source: `from 20 to 60 % across, from 0 to 50 % down`; empty for a whole frame."""
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
        """The time at which a timeline marks it: its anchor's for a generated frame, else its own."""
        return self.anchor.seconds if self.anchor else self.seconds

    @property
    def query(self) -> str:
        """The query that it answers; empty for an initial frame."""
        match self.provenance:
            case Initial():
                return ""
            case Generated(prompt=prompt):
                return prompt
            case made:
                return made.query

    @property
    def score(self) -> float | None:
        """The similarity by which it, or its anchor, was chosen; None if nothing ranked it."""
        match self.provenance:
            case Retrieved(score=score):
                return score
            case Generated(anchor_score=score):
                return score
            case _:
                return None

    @property
    def similarity(self) -> float | None:
        """The similarity of its pixels to its query: a generated frame's own, not its anchor's."""
        if isinstance(self.provenance, Generated):
            return self.provenance.faithfulness
        return self.score

    @property
    def origin(self) -> str:
        """How it came, in words that `at 3.7 s` can follow: `retrieved`, `imagined from the frame`."""
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
        """Its provenance as short lines for a caption that shows time and query elsewhere; may be empty."""
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
        """Its time, or what it is instead: `3.7 s`, `imagined from 3.7 s`, `not in the video`.

        Args:
            time: Writes a time in seconds.
        """
        if self.anchor:
            return f"imagined from {time(self.anchor_seconds)}"
        return "not in the video" if self.imagined else time(self.seconds)

    def describe(self) -> str:
        """Its provenance in one line: `frame at 3.7 s, found for "the circle" (score 0.90)`."""
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
    """How similar each part of a video is to a query."""

    start: float
    """The time of the first value, in seconds."""
    step: float
    """Seconds from one value to the next."""
    values: tuple[float, ...]
    """At most 128, each the best of its part."""


Generated.model_rebuild()
Cropped.model_rebuild()


def stamp(seconds: float) -> str:
    """A time as the model reads it: `<3.7 seconds>`."""
    return f"<{seconds:.1f} seconds>"
