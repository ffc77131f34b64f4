"""Frames as pictures, and in words, for other programs: PNG or JPEG, with the mark of an imagined one in its
very pixels.

A page draws the mark around the picture (`agent.view_pictures`); a picture that leaves for a program which
shows it as it likes has to carry it. Small frames are enlarged first, so that the mark can be read and an
assistant sees more than a few pixels.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from act2see.tools.frames import FrameRef, Generated, Retrieved

if TYPE_CHECKING:
    from PIL import Image

    from act2see.tools.video.store import Pixels

MARK = "imagined, not in the video"
SMALL = 192
_COLOUR, _INK = (192, 38, 211), (255, 255, 255)
_EDGE, _STRIP = 4, 20


def encoded(frame: FrameRef, pixels: Pixels) -> tuple[bytes, str]:
    """The picture, marked where it is imagined, and its MIME type. `pixels` is `(height, width, 3)` uint8
    RGB."""
    from PIL import Image

    image = Image.fromarray(pixels).convert("RGB")
    if (times := -(-SMALL // max(image.size))) > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    if frame.imagined:
        image = marked(image)
    kind = "png" if max(image.size) <= 2 * SMALL else "jpeg"
    out = io.BytesIO()
    image.save(out, kind, **({"optimize": True} if kind == "png" else {"quality": 85}))
    return out.getvalue(), f"image/{kind}"


def marked(image: Image.Image) -> Image.Image:
    """The picture in a coloured border, above a strip that says what it is."""
    from PIL import Image, ImageDraw, ImageFont

    framed = Image.new(
        "RGB", (max(image.width, SMALL) + 2 * _EDGE, image.height + 2 * _EDGE + _STRIP), _COLOUR
    )
    framed.paste(image, ((framed.width - image.width) // 2, _EDGE))
    middle = framed.width // 2, framed.height - (_EDGE + _STRIP) // 2
    ImageDraw.Draw(framed).text(middle, MARK, fill=_INK, font=ImageFont.load_default(13), anchor="mm")
    return framed


def describe(frame: FrameRef) -> str:
    """A frame in a line: what it is, where it stands, how it was found."""
    made = frame.provenance
    if isinstance(made, Generated):
        return f'IMAGINED, not in the video: made from the frame at {frame.seconds:.1f} s as "{made.prompt}"'
    if isinstance(made, Retrieved):
        return (
            f'A real frame, at {frame.seconds:.1f} s, found by "{made.query}" (similarity {made.score:.2f})'
        )
    part = f", a part of it, {frame.part}" if frame.part else ""
    if frame.imagined:
        return f"Not in the video: a picture from elsewhere, or imagined{part}"
    return f"A real frame, at {frame.seconds:.1f} s{part}"
