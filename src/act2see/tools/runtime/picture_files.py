"""Decoding picture files from outside, within bounds.

A PNG of 6 kB can ask for gigabytes, since its size is a number in its header, and a progressive JPEG can ask
for the same picture ten thousand times. Both are refused before any pixel is decoded. Whatever Pillow raises
for a damaged file becomes one error. A grey picture of more than 8 bits is reduced to 8, because Pillow's own
conversion cuts it off at 255, which is nearly all white.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from act2see.tools.runtime.text import first_line

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 50_000_000
"""The most pixels of a picture."""
MAX_BYTES = 64 << 20
"""The largest size of a picture file."""
_WHITE = 65_535  # of 16 bits
_MOST_SCANS = 100  # of a progressive JPEG; encoders write about ten
_SCAN = b"\xff\xda"  # its marker, which cannot occur in compressed data


class PictureError(ValueError):
    """The bytes are not a picture that can be decoded; the message is the reason."""


def decode_picture(
    data: bytes, formats: Sequence[str] = ("PNG",), max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode a picture, the first one if there are several, with at most 8 bits for a value.

    Args:
        data: The content of a file.
        formats: Pillow's names of the allowed formats.
        max_pixels: The most pixels.

    Raises:
        PictureError: It is of another format, too large, or damaged.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data), formats=list(formats))
        width, height = image.size
        if width * height <= max_pixels:
            if image.format == "JPEG" and data.count(_SCAN) > _MOST_SCANS:
                raise PictureError(f"it has more than {_MOST_SCANS} scans; save it again")
            image.load()
            return reduce_depth(image)
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise PictureError(f"it has more than {max_pixels:,} pixels; make it smaller") from e
    except UnidentifiedImageError as e:
        *others, last = (name.replace("WEBP", "WebP") for name in formats)
        raise PictureError(f"it is not a {', '.join(others)}{' or ' if others else ''}{last} picture") from e
    except Exception as e:  # Pillow's decoders raise errors of any kind for a damaged file
        raise PictureError(f"it is damaged ({first_line(e)})") from e
    raise PictureError(f"it has {width} x {height} pixels; make it smaller")


def reduce_depth(image: Image.Image) -> Image.Image:
    """Return a grey picture of 16 or 32 bits with 8 bits, and any other one unchanged.

    Integers are those of a file with 16 bits, whichever mode Pillow gives them. Fractions have no such limit,
    so the least of the usual ones that holds them is meant: 1, 255 or 65,535.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    import numpy as np
    from PIL import Image

    grey = np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0)
    white = _WHITE
    if image.mode == "F":
        white = next((limit for limit in (1, 255) if grey.max(initial=0) <= limit), white)
    reduced = Image.fromarray(np.rint(np.clip(grey / white, 0, 1) * 255).astype(np.uint8))
    clear = image.info.get("transparency")  # the one value that is transparent, with 16 bits
    if clear is not None:
        reduced.putalpha(Image.fromarray(np.where(grey == clear, 0, 255).astype(np.uint8)))
    reduced.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return reduced
