"""Frames as pictures: on a page, and as files for other programs. An imagined frame is always marked.

A page embeds each picture once, as the background of a class named by its content, so showing an anchor again
beside the frame made from it costs nothing. Small frames (the micro models' 48 x 48) stay lossless. If the
pictures together exceed the budget, all are reduced, so that a page stays below 2 MB. One function draws all
frames and gives imagined ones a badge and a dashed border.

A picture for another program carries the mark in its pixels, since that program may show it in any way. Small
frames are enlarged first, so that the mark can be read.
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
"""The default limit for all pictures of a page together, in characters of base64."""
SIDES = (360, 256, 192, 128, 80)
"""Limits for the longer side in pixels, tried in order until the pictures are within the budget."""
TINY = 96
"""A picture whose longer side has at most this many pixels stays lossless."""

MARK = "imagined, not in the video"
SMALL = 192
"""A picture for another program is enlarged until its longer side has at least this many pixels."""
_MAGENTA = (192, 38, 211)  # the border and the strip
_WHITE = (255, 255, 255)  # the mark
_EDGE = 4  # pixels of the border
_STRIP = 20  # pixels of the strip with the mark


class Pictures:
    """The pictures of one page, or of a part of it.

    Args:
        source: The source of pixels; by default the frame store.
        budget: The limit for all pictures together, in characters of base64.
    """

    def __init__(self, source: FrameSource | None, budget: int = BUDGET) -> None:
        self._source = source
        self._budget = budget
        self._images: dict[str, Image.Image | None] = {}
        # Kept by name and side, since a page that grows asks for its style again and again.
        self._urls: dict[tuple[str, int], str] = {}

    def name(self, frame: FrameRef) -> str | None:
        """Register a frame and return the class that shows it, or None if its pixels are missing."""
        name = "p" + hashlib.blake2b(frame.digest.encode("utf-8", "replace"), digest_size=6).hexdigest()
        if name not in self._images:
            self._images[name] = self._load(frame)
        return name if self._images[name] else None

    @property
    def missing(self) -> int:
        """The number of registered pictures whose pixels are missing."""
        return sum(image is None for image in self._images.values())

    def urls(self) -> dict[str, str]:
        """Return each picture as a data URL, by its name."""
        images = {name: image for name, image in self._images.items() if image}
        for side in SIDES:
            urls = {name: self._url(name, image, side) for name, image in images.items()}
            if sum(map(len, urls.values())) <= self._budget:
                break
        return urls

    def css(self) -> Html:
        """Return the style rules that contain each picture once."""
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
    """Encode a picture as a data URL, with a longer side of at most `side` pixels unless it is tiny."""
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
    """Return the default frame store."""
    from act2see.tools.video.store import FrameStore

    return FrameStore()


def picture(frame: FrameRef, pictures: Pictures, label: str) -> Html:
    """Draw a frame. All frames of a page are drawn here, so no imagined one is left unmarked.

    Args:
        frame: The frame.
        pictures: The pictures of the page.
        label: The beginning of the description for screen readers.
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
        # All frames get the same area, so that a portrait frame is not taller than the text around it.
        style=f"--ratio:{ratio:.4f};--wide:{math.sqrt(ratio):.4f}",
    )


def figure(
    frame: FrameRef, pictures: Pictures, caption: Iterable[str | None], label: str, **attributes: str | None
) -> Html:
    """Return a frame with a caption.

    Args:
        frame: The frame.
        pictures: The pictures of the page.
        caption: The parts of the caption.
        label: The beginning of the description for screen readers.
        attributes: More attributes of the `<figure>`.
    """
    return el("figure", picture(frame, pictures, label), el("figcaption", caption), **attributes)


def encode_picture(frame: FrameRef, pixels: Pixels) -> tuple[bytes, str]:
    """Encode a frame for another program, marked in its pixels if it is imagined.

    Args:
        frame: The frame.
        pixels: `(height, width, 3)` uint8 RGB.

    Returns:
        The bytes of a PNG or JPEG file, and its MIME type.
    """
    from PIL import Image

    image = Image.fromarray(pixels).convert("RGB")
    times = math.ceil(SMALL / max(image.size))
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    if frame.imagined:
        image = _add_mark(image)
    out = io.BytesIO()
    if max(image.size) <= 2 * SMALL:
        image.save(out, "png", optimize=True)
        return out.getvalue(), "image/png"
    image.save(out, "jpeg", quality=85)
    return out.getvalue(), "image/jpeg"


def _add_mark(image: Image.Image) -> Image.Image:
    """Put the picture into a coloured border, above a strip with the mark."""
    from PIL import Image, ImageDraw, ImageFont

    size = (max(image.width, SMALL) + 2 * _EDGE, image.height + 2 * _EDGE + _STRIP)
    framed = Image.new("RGB", size, _MAGENTA)
    framed.paste(image, ((framed.width - image.width) // 2, _EDGE))
    middle = framed.width // 2, framed.height - (_EDGE + _STRIP) // 2
    font = ImageFont.load_default(13)
    ImageDraw.Draw(framed).text(middle, MARK, fill=_WHITE, font=font, anchor="mm")
    return framed
