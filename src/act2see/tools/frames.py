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
    that is no closer to its prompt than its anchor was did not do what was asked.
    """

    kind: Literal["generated"] = "generated"
    prompt: str
    anchor: FrameRef
    seed: int
    strength: float
    model: str
    faithfulness: float | None = None
    anchor_score: float | None = None


Provenance = Annotated[Initial | Retrieved | Generated, Field(discriminator="kind")]


class FrameRef(Record):
    """A frame by reference. `seconds` is where it stands in the video (for an imagined frame: its anchor)."""

    digest: str
    width: int
    height: int
    seconds: float
    provenance: Provenance = Initial()

    @property
    def imagined(self) -> bool:
        return isinstance(self.provenance, Generated)


class Curve(Record):
    """How similar each part of the video is to a query: at most 128 values, each the best of its part."""

    start: float
    step: float
    values: tuple[float, ...]


Generated.model_rebuild()
