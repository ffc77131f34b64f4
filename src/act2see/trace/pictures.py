"""The pictures of a page: each embedded once, small, and marked where it is imagined.

A picture is the background of a class named by its content, so that an anchor shown again beside what was
imagined from it costs nothing. Small frames (the micro models' 48 x 48) stay lossless; where pictures are
heavy all of them shrink together until a page stays below 2 MB. Imagined frames carry a badge and a dashed
border wherever they stand, because the one function that draws frames puts them there.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from typing import TYPE_CHECKING

from act2see.errors import Act2SeeError
from act2see.tools.frames import FrameRef
from act2see.trace.markup import Html, el, join

if TYPE_CHECKING:
    from PIL import Image

    from act2see.tools.video.store import FrameSource

# Characters of base64 that all pictures of a page may take together by default, and the sides that are tried
# for it.
BUDGET = 1_600_000
SIDES = (360, 256, 192, 128, 80)
TINY = 96


class Pictures:
    """The pictures of one page, or a part of it. `name` registers a frame; `css` holds each picture once."""

    def __init__(self, source: FrameSource | None, budget: int = BUDGET) -> None:
        self._source = source
        self._budget = budget
        self._images: dict[str, Image.Image | None] = {}
        self._encoded: dict[
            tuple[str, int], str
        ] = {}  # by name and side: a page that grows asks for its style again

    def name(self, frame: FrameRef) -> str | None:
        """The class that shows this frame, or None where its pixels are gone."""
        name = "p" + hashlib.blake2b(frame.digest.encode("utf-8", "replace"), digest_size=6).hexdigest()
        if name not in self._images:
            self._images[name] = self._load(frame)
        return name if self._images[name] else None

    @property
    def missing(self) -> int:
        return sum(image is None for image in self._images.values())

    def urls(self) -> dict[str, str]:
        """Each picture by its name, as a data URL."""
        images = {name: image for name, image in self._images.items() if image}
        for side in SIDES:
            encoded = {name: self._data(name, image, side) for name, image in images.items()}
            if sum(map(len, encoded.values())) <= self._budget:
                break
        return encoded

    def css(self) -> Html:
        rules = [f".a2s .{name}{{background-image:url({data})}}" for name, data in self.urls().items()]
        tiny = [f".a2s .{name}" for name, image in self._images.items() if image and max(image.size) <= TINY]
        if tiny:
            rules.append(f"{','.join(tiny)}{{image-rendering:pixelated}}")
        return Html("\n".join(rules))

    def _data(self, name: str, image: Image.Image, side: int) -> str:
        if (name, side) not in self._encoded:
            self._encoded[name, side] = _data(image, side)
        return self._encoded[name, side]

    def _load(self, frame: FrameRef) -> Image.Image | None:
        from PIL import Image

        try:
            if self._source is None:
                self._source = stored_frames()
            image = Image.fromarray(self._source(frame)).convert("RGB")
        except (Act2SeeError, LookupError, OSError):
            return None
        image.thumbnail((SIDES[0], SIDES[0]), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return image


def _data(image: Image.Image, side: int) -> str:
    kind, options = (
        ("png", {"optimize": True})
        if max(image.size) <= TINY
        else ("jpeg", {"quality": 85, "optimize": True})
    )
    if max(image.size) > max(side, TINY):
        image = image.copy()
        image.thumbnail((side, side), reducing_gap=3.0)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def stored_frames() -> FrameSource:
    """The pixels of the default frame store."""
    from act2see.tools.video.store import FrameStore

    return FrameStore()


def picture(frame: FrameRef, pictures: Pictures, what: str) -> Html:
    """The one place that draws a frame. `what` opens its description for those who do not see it."""
    name = pictures.name(frame)
    ratio = min(4.0, max(0.25, frame.width / frame.height)) if frame.width > 0 and frame.height > 0 else 1.0
    kind = "imagined, not in the video" if frame.imagined else f"real, at {frame.seconds:.1f} seconds"
    return el(
        "div",
        None if name else el("span", "no picture", class_="gone"),
        el("span", "imagined", class_="badge") if frame.imagined else None,
        class_=join(" ", ["picture", name or "missing", "imagined" if frame.imagined else None]),
        role="img",
        aria_label=f"{what}: {kind}" + ("" if name else "; its pixels are not in the store"),
        # Equal area whatever the aspect, so that a portrait frame does not tower over the text.
        style=f"--ratio:{ratio:.4f};--wide:{math.sqrt(ratio):.4f}",
    )
