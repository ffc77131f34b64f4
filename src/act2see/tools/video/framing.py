"""The part of a video's pictures that a model is shown, and their light.

It is for models that read one kind of picture. A `Framer` looks at a few pictures of a video and returns its
`Framing`, or None to leave the pictures as they are. `VideoLibrary` applies it to every picture that it
decodes, so that initial frames, retrieved frames, the index and the anchors of imagined frames are alike. One
framing holds for the whole video: each picture is cut in the same way whenever it is decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from act2see.tools.runtime.forks import natively
from act2see.tools.video.store import Pixels


@dataclass(frozen=True, slots=True)
class Framing:
    """A part of the picture, its size, and its light."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom, in shares of the picture's width and height."""
    size: tuple[int, int]
    """Width and height of the result, in pixels."""
    gain: float = 1.0
    """The factor of all values."""
    offset: float = 0.0
    """What is added to them afterwards, of 255."""

    @property
    def id(self) -> str:
        """A short hash, for the names of what is computed from the pictures."""
        return hashlib.blake2b(repr(asdict(self)).encode(), digest_size=6).hexdigest()

    @natively
    def apply(self, pixels: Pixels, size: tuple[int, int] | None = None) -> Pixels:
        """Return the part of a picture, `(height, width, 3)` uint8.

        Args:
            pixels: The whole picture, of any size.
            size: Width and height of the result; by default those of the framing.
        """
        from PIL import Image

        size = size or self.size
        height, width = pixels.shape[:2]
        left, top, right, bottom = self.box
        box = (left * width, top * height, min(width, right * width), min(height, bottom * height))
        if box != (0, 0, *size):
            image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, box=box)
            pixels = np.asarray(image)
        if (self.gain, self.offset) == (1.0, 0.0):
            return pixels
        light = pixels.astype(np.float32) * self.gain + self.offset
        changed: Pixels = np.clip(np.rint(light), 0, 255).astype(np.uint8)
        return changed

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        """Return the framing that `asdict` made this data of. Raises `TypeError` or `KeyError`."""
        left, top, right, bottom = data["box"]
        width, height = data["size"]
        return cls((left, top, right, bottom), (width, height), float(data["gain"]), float(data["offset"]))


@runtime_checkable
class Framer(Protocol):
    """Finds the framing of a video. The setting `view.crop` names its class."""

    id: str
    """Its name and version, for the names of cached facts: another one reads each video again."""

    def find(self, pictures: Sequence[Pixels]) -> Framing | None:
        """Return the framing of a video; None leaves its pictures as they are.

        Args:
            pictures: The first picture and a few spread over the video, `(height, width, 3)` uint8, all of
                the same size.
        """
        ...
