"""Records of videos and frames: everything that is kept of them but pixels.

A `FrameRef` names pixels by their content hash and says where they come from. It is small, immutable and
serialisable, so traces, checkpoints and corpora hold references and a `FrameStore` holds pictures. Times are
presentation timestamps in seconds.
"""

from __future__ import annotations

import re
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
    """A real frame, found by a query. `score` is the similarity that ranked it."""

    kind: Literal["retrieved"] = "retrieved"
    query: str
    score: float
    index_id: str = ""


class Generated(Record):
    """An imagined frame: made from `anchor`, a real one, by image-to-image generation.

    `faithfulness` is the similarity of the result to the prompt, `anchor_score` that of the anchor: a result
    that is no closer to its prompt than its anchor was did not do what was asked. Where consecutive seeds
    were tried and the most similar result was kept, `scores` has the similarity of each.
    """

    kind: Literal["generated"] = "generated"
    prompt: str
    anchor: FrameRef
    seed: int
    strength: float
    model: str
    faithfulness: float | None = None
    anchor_score: float | None = None
    scores: tuple[float, ...] = ()

    @property
    def verdict(self) -> str:
        """The similarities in words; empty where nothing was measured."""
        said = f"faithfulness {self.faithfulness:.2f}" if self.faithfulness is not None else ""
        if self.faithfulness is not None and self.anchor_score is not None:
            closer = "closer" if self.faithfulness > self.anchor_score else "no closer"
            said += f", anchor {self.anchor_score:.2f}: {closer} to the query than its anchor was"
        if self.scores:
            said += f"; the best of {len(self.scores)} ({', '.join(f'{s:.2f}' for s in self.scores)})"
        return said


class Taken(Record):
    """A real frame that nothing ranked: a tool took it by its time, or for the text in it."""

    kind: Literal["taken"] = "taken"
    query: str


class Cropped(Record):
    """A part of `source`, a frame of the video or an imagined one, at more pixels than the model was shown of
    it.

    `box` is (left, top, right, bottom) in shares of the source's width and height. A part of a part names the
    whole frame.
    """

    kind: Literal["cropped"] = "cropped"
    query: str
    source: FrameRef
    box: tuple[float, float, float, float]


class Supplied(Record):
    """A frame that a person gave in answer to a call: a picture file, or the frame of the video at a time.

    A picture file proves nothing about the video, so it is marked as imagined; its time is that of the frame
    that the model saw before it. `file` is the file's name, empty for a frame of the video.
    """

    kind: Literal["supplied"] = "supplied"
    by: str
    query: str
    file: str = ""


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
        """Whether it is no frame of the video: generated, given as a picture file, or cut from one of these."""
        made = self.provenance.source.provenance if isinstance(self.provenance, Cropped) else self.provenance
        return isinstance(made, Generated) or (isinstance(made, Supplied) and bool(made.file))

    @property
    def part(self) -> str:
        """Its part of the source frame: `from 20 to 60 % across, from 0 to 50 % down`; empty for a whole one."""
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
    """How similar each part of the video is to a query: at most 128 values, each the best of its part."""

    start: float
    step: float
    values: tuple[float, ...]


Generated.model_rebuild()
Cropped.model_rebuild()


def stamp(seconds: float) -> str:
    """How a time is written for the model: `<3.7 seconds>`."""
    return f"<{seconds:.1f} seconds>"
