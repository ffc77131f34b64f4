"""Frames as pictures: on a page, and as files for other programs. An imagined frame is always marked.

A page embeds each picture once, as the background of a class named by its content, so that an anchor shown
again beside what was imagined from it costs nothing. Small frames (the micro models' 48 x 48) stay lossless.
Heavy pictures all shrink together until a page stays below 2 MB. Imagined frames carry a badge and a dashed
border, which the one function that draws frames puts there.

A picture that leaves for another program carries the mark in its pixels, since that program may show it in
any way. Small frames are enlarged first, so that the mark can be read.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from act2see.errors import Act2SeeError
from act2see.tools.frames import FrameRef
from act2see.trace.markup import Html, el, join

if TYPE_CHECKING:
    from PIL import Image

    from act2see.tools.video.store import FrameSource, Pixels

BUDGET = 1_600_000
"""Characters of base64 that all pictures of a page may take together by default."""
SIDES = (360, 256, 192, 128, 80)
"""Longest sides in pixels that are tried in turn to stay within the budget."""
TINY = 96
"""Pictures with at most this longest side stay lossless."""

MARK = "imagined, not in the video"
SMALL = 192
"""The longest side in pixels up to which a picture for another program is enlarged."""
_COLOUR, _INK = (192, 38, 211), (255, 255, 255)
_EDGE, _STRIP = 4, 20  # pixels of the border, and of the strip that holds the mark


class Pictures:
    """The pictures of one page, or of a part of it.

    Args:
        source: Gives pixels; by default the frame store does.
        budget: Characters of base64 that all pictures may take together.
    """

    def __init__(self, source: FrameSource | None, budget: int = BUDGET) -> None:
        self._source = source
        self._budget = budget
        self._images: dict[str, Image.Image | None] = {}
        # By name and side: a page that grows asks for its style again.
        self._urls: dict[tuple[str, int], str] = {}

    def name(self, frame: FrameRef) -> str | None:
        """Register a frame and return the class that shows it, or None if its pixels are missing."""
        name = "p" + hashlib.blake2b(frame.digest.encode("utf-8", "replace"), digest_size=6).hexdigest()
        if name not in self._images:
            self._images[name] = self._load(frame)
        return name if self._images[name] else None

    @property
    def missing(self) -> int:
        """How many registered frames have no pixels."""
        return sum(image is None for image in self._images.values())

    def urls(self) -> dict[str, str]:
        """Each picture as a data URL, by its name."""
        images = {name: image for name, image in self._images.items() if image}
        for side in SIDES:
            urls = {name: self._url(name, image, side) for name, image in images.items()}
            if sum(map(len, urls.values())) <= self._budget:
                break
        return urls

    def css(self) -> Html:
        """The style rules that hold each picture once."""
        rules = [f".a2s .{name}{{background-image:url({url})}}" for name, url in self.urls().items()]
        tiny = [f".a2s .{name}" for name, image in self._images.items() if image and max(image.size) <= TINY]
        if tiny:
            rules.append(f"{','.join(tiny)}{{image-rendering:pixelated}}")
        return Html("\n".join(rules))

    def _url(self, name: str, image: Image.Image, side: int) -> str:
        if (name, side) not in self._urls:
            self._urls[name, side] = _data_url(image, side)
        return self._urls[name, side]

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


def _data_url(image: Image.Image, side: int) -> str:
    """The picture as a data URL, with a longest side of at most `side` unless it is tiny."""
    tiny = max(image.size) <= TINY
    if max(image.size) > max(side, TINY):
        image = image.copy()
        image.thumbnail((side, side), reducing_gap=3.0)
    out = io.BytesIO()
    if tiny:
        image.save(out, "png", optimize=True)
    else:
        image.save(out, "jpeg", quality=85, optimize=True)
    kind = "png" if tiny else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def stored_frames() -> FrameSource:
    """The default frame store."""
    from act2see.tools.video.store import FrameStore

    return FrameStore()


def picture(frame: FrameRef, pictures: Pictures, label: str) -> Html:
    """Draw a frame: the one place of a page that does.

    Args:
        label: The beginning of its description for screen readers.
    """
    name = pictures.name(frame)
    ratio = 1.0
    if frame.width > 0 and frame.height > 0:
        ratio = min(4.0, max(0.25, frame.width / frame.height))
    kind = "imagined, not in the video" if frame.imagined else f"real, at {frame.seconds:.1f} seconds"
    missing = "" if name else "; its pixels are not in the store"
    return el(
        "div",
        None if name else el("span", "no picture", class_="gone"),
        el("span", "imagined", class_="badge") if frame.imagined else None,
        class_=join(" ", ["picture", name or "missing", "imagined" if frame.imagined else None]),
        role="img",
        aria_label=f"{label}: {kind}{missing}",
        # Equal area whatever the aspect, so that a portrait frame does not tower over the text.
        style=f"--ratio:{ratio:.4f};--wide:{math.sqrt(ratio):.4f}",
    )


def figure(
    frame: FrameRef, pictures: Pictures, caption: Iterable[str | None], label: str, **attributes: str | None
) -> Html:
    """A frame with a caption.

    Args:
        label: The beginning of its description for screen readers.
        attributes: More attributes of the `<figure>`.
    """
    return el("figure", picture(frame, pictures, label), el("figcaption", caption), **attributes)


def encode_picture(frame: FrameRef, pixels: Pixels) -> tuple[bytes, str]:
    """Encode a frame for another program, marked in its pixels if it is imagined.

    Args:
        pixels: `(height, width, 3)` uint8 RGB.

    Returns:
        A PNG or JPEG file, and its MIME type.
    """
    from PIL import Image

    image = Image.fromarray(pixels).convert("RGB")
    times = math.ceil(SMALL / max(image.size))
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    if frame.imagined:
        image = _marked(image)
    out = io.BytesIO()
    if max(image.size) <= 2 * SMALL:
        image.save(out, "png", optimize=True)
        return out.getvalue(), "image/png"
    image.save(out, "jpeg", quality=85)
    return out.getvalue(), "image/jpeg"


def _marked(image: Image.Image) -> Image.Image:
    """The picture in a coloured border, above a strip with the mark."""
    from PIL import Image, ImageDraw, ImageFont

    size = (max(image.width, SMALL) + 2 * _EDGE, image.height + 2 * _EDGE + _STRIP)
    framed = Image.new("RGB", size, _COLOUR)
    framed.paste(image, ((framed.width - image.width) // 2, _EDGE))
    middle = framed.width // 2, framed.height - (_EDGE + _STRIP) // 2
    ImageDraw.Draw(framed).text(middle, MARK, fill=_INK, font=ImageFont.load_default(13), anchor="mm")
    return framed
