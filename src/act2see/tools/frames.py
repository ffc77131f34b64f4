"""What is known of a frame: everything but its pixels.

A `FrameRef` names pixels by their content hash and says where they come from. It is small, immutable and
serialisable, so traces, checkpoints and corpora hold references and a `FrameStore` holds pictures. Times are
presentation timestamps in seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Base of everything that is saved: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    """A frame by reference. `seconds` is where it stands in the video (for an imagined frame: its anchor)."""

    digest: str
    width: int
    height: int
    seconds: float
    provenance: Provenance = Initial()

    @property
    def imagined(self) -> bool:
        p = self.provenance.source.provenance if isinstance(self.provenance, Cropped) else self.provenance
        return isinstance(p, Generated) or (isinstance(p, Supplied) and bool(p.file))

    @property
    def part(self) -> str:
        """Which part of a frame this is: `from 20 to 60 % across, from 0 to 50 % down`; empty for a whole
        one."""
        if not isinstance(self.provenance, Cropped):
            return ""
        left, top, right, bottom = (f"{100 * v:.0f}" for v in self.provenance.box)
        return f"from {left} to {right} % across, from {top} to {bottom} % down"


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
