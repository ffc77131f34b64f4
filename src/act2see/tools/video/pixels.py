"""From a decoded frame to the RGB picture that a person would see in a player.

- Pictures with an alpha channel or a transparent palette lie on white, as on a page. Without that, the hidden
  colour would show, which is mostly black, and black writing would vanish. They are laid on white before they
  are resized, so that hidden colours do not bleed into edges.
- HDR (PQ and HLG) is mapped to the range and the colours of an ordinary screen: white is 203 cd/m² (ITU-R
  BT.2408), and a smooth shoulder (FFmpeg's `mobius`) makes room for highlights: up to what the file says to
  be its brightest (MaxCLL, else the maximum of the mastering display, in the order of FFmpeg's `tonemap`),
  or up to 1,000 cd/m². It is computed here, so that the picture does not depend on the version of swscale.
- If the aspect ratio changes in mid-stream, a picture keeps its own and gets black bars.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from act2see.tools.runtime.picture_files import reduce_depth
from act2see.tools.video.sidedata import read_side_data
from act2see.tools.video.store import Pixels

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from PIL import Image

_PQ, _HLG = 16, 18  # transfer characteristics, ITU-T H.273
_BT709 = 1  # colour primaries
_WHITE = 203.0  # cd/m² of white
_BRIGHTEST = 1000.0  # cd/m² that become the brightest value, if a file says nothing
_MOST = 10_000.0  # cd/m², the most that PQ can say
_KNEE = 0.75  # where the shoulder begins, in units of white
_DIMMEST = 1.01  # the least that becomes the brightest value, in units of white
_GAMMA = 2.4  # of an ordinary screen, ITU-R BT.1886
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020's red, green and blue
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_SAME = 0.02  # aspect ratios that differ by less count as equal: sizes are rounded to even numbers


@dataclass(frozen=True, slots=True)
class Shape:
    """The stored size of a stream's first picture, and the aspect ratio of its pixels."""

    width: int
    height: int
    coded: Fraction | None
    """The pixels' aspect ratio in the stream itself; None if the stream does not say it."""
    shown: Fraction
    """The pixels' aspect ratio that a player uses, which the container may say."""

    @property
    def display_width(self) -> int:
        """Width of the picture with square pixels."""
        return round(self.width * self.shown)

    def widening(self, frame: VideoFrame, coded: Fraction | None) -> float:
        """Return how many times wider a frame is than the first one, at equal height.

        Args:
            frame: The frame.
            coded: The pixels' aspect ratio in the stream at this frame.
        """
        if (frame.width, frame.height, coded) == (self.width, self.height, self.coded):
            return 1.0
        pixel = self.shown if coded == self.coded else usable_aspect(coded)
        ratio = float(pixel * frame.width * self.height / (self.shown * self.width * frame.height))
        return ratio if abs(ratio - 1) > _SAME else 1.0


def usable_aspect(pixel: Fraction | None) -> Fraction:
    """Return an aspect ratio of pixels, or 1 for a missing or an impossible one."""
    return pixel if pixel and Fraction(1, 4) <= pixel <= 4 else Fraction(1)


def is_plain(frame: VideoFrame) -> bool:
    """Return whether a frame is opaque and not HDR, so that any decoder gives the same picture."""
    return not _may_be_transparent(frame) and frame.color_trc not in (_PQ, _HLG)


def render(
    frame: VideoFrame, size: tuple[int, int], resize: VideoReformatter, widening: float = 1.0
) -> Pixels:
    """Return a frame as RGB, `(height, width, 3)` uint8.

    Args:
        frame: The decoded frame.
        size: Width and height of the result, in pixels.
        resize: The converter, which is faster if it is used again.
        widening: The frame's aspect ratio divided by that of `size`; other than 1, black bars are added.
    """
    width, height = size
    inner = (max(1, round(width * min(1.0, widening))), max(1, round(height / max(1.0, widening))))
    if _may_be_transparent(frame):
        frame = _lay_on_white(frame)
    if frame.color_trc in (_PQ, _HLG):
        deep = resize.reformat(frame, *inner, format="rgb48le", interpolation="BICUBIC")
        values = np.asarray(deep.to_ndarray(), np.uint16)
        pixels = map_tones(
            values,
            hlg=frame.color_trc == _HLG,
            narrow=frame.color_primaries == _BT709,
            brightest=find_brightest(frame),
        )
    else:
        small = resize.reformat(frame, *inner, format="rgb24", interpolation="BICUBIC")
        pixels = np.asarray(small.to_ndarray(), np.uint8)
    if inner == size:
        return pixels
    out = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    out[top : top + inner[1], left : left + inner[0]] = pixels
    return out


def _may_be_transparent(frame: VideoFrame) -> bool:
    return frame.format.has_palette or any(part.is_alpha for part in frame.format.components)


def _lay_on_white(frame: VideoFrame) -> VideoFrame:
    """Return the frame on white, RGB; an opaque frame unchanged."""
    import av

    pixels = np.asarray(frame.reformat(format="rgba").to_ndarray(), np.uint8)
    alpha = pixels[..., 3:].astype(np.uint16)
    if alpha.min() == 255:
        return frame
    mixed = (pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return av.VideoFrame.from_ndarray(mixed.astype(np.uint8), format="rgb24")


def opaque(image: Image.Image) -> Image.Image:
    """Return a picture as RGB of 8 bits, on white where it is transparent."""
    from PIL import Image

    image = reduce_depth(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image.convert("RGBA"))
    return ground.convert("RGB")


def find_brightest(frame: VideoFrame) -> float:
    """Return the brightest light of an HDR video in cd/m², as its metadata say; 1,000 if they do not.

    PyAV gives the bytes of FFmpeg's `AVContentLightMetadata` (two integers, MaxCLL first) and of
    `AVMasteringDisplayMetadata` (ten fractions, the last of which is the maximum, then two flags).
    """
    if frame.color_trc == _HLG:  # its light is relative to the screen, which has 1,000 cd/m² here
        return _BRIGHTEST
    content = display = 0.0
    data = read_side_data(frame)
    if len(raw := data.get("CONTENT_LIGHT_LEVEL", b"")) >= 8:
        content = float(struct.unpack_from("=I", raw)[0])
    if len(raw := data.get("MASTERING_DISPLAY_METADATA", b"")) >= 88:
        top, bottom, _, has_luminance = struct.unpack_from("=iiii", raw, 72)
        display = top / bottom if has_luminance and bottom > 0 else 0.0
    found = content or display
    return min(found, _MOST) if found > 0 else _BRIGHTEST


def map_tones(
    deep: NDArray[np.uint16], *, hlg: bool, narrow: bool = False, brightest: float = _BRIGHTEST
) -> Pixels:
    """Return an HDR picture in the range of an ordinary screen.

    Args:
        deep: `(height, width, 3)` RGB values of PQ or HLG, 0 to 65535.
        hlg: Whether they are HLG.
        narrow: Whether their colours are those of BT.709; else BT.2020.
        brightest: What becomes the brightest value, in cd/m². White is never made brighter than it is.

    Returns:
        `(height, width, 3)` uint8 RGB of BT.709.
    """
    light = (_hlg_light() if hlg else _pq_light())[deep]  # in units of white
    if hlg:  # the scene's light becomes that of a screen of 1,000 cd/m² (BT.2100, gamma 1.2)
        light *= np.maximum(light @ _LUMINANCE, 1e-6)[..., None] ** 0.2 * (_BRIGHTEST / _WHITE)
    if not narrow:
        light = light @ _TO_BT709.T
    # The brightest of the three colours is mapped, and the others with it, so that hues stay.
    peak = np.maximum(light.max(-1, keepdims=True), 1e-6)
    light *= _lower_highlights(peak, max(brightest / _WHITE, _DIMMEST)) / peak
    values: Pixels = np.rint(255 * np.clip(light, 0, 1) ** (1 / _GAMMA)).astype(np.uint8)
    return values


def _lower_highlights(light: NDArray[np.float32], top: float) -> NDArray[np.float32]:
    """Map 0 to `top` smoothly to 0 to 1, without a change below the knee."""
    j = _KNEE
    a = -j * j * (top - 1) / (j * j - 2 * j + top)
    b = (j * j - 2 * j * top + top) / (top - 1)
    above = np.clip(light, j, top)
    mapped: NDArray[np.float32] = np.where(
        light <= j, light, (b * b + 2 * b * j + j * j) / (b - a) * (above + a) / (above + b)
    )
    return mapped


@lru_cache(1)
def _pq_light() -> NDArray[np.float32]:
    """Return the light of each PQ value (SMPTE ST 2084), `(65536,)`, in units of white."""
    e = np.linspace(0, 1, 65536) ** (32 / 2523)
    y = (np.maximum(e - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * e)) ** (16384 / 2610)
    return (y * 10_000 / _WHITE).astype(np.float32)


@lru_cache(1)
def _hlg_light() -> NDArray[np.float32]:
    """Return the scene's light of each HLG value (ARIB STD-B67), `(65536,)`, from 0 to 1."""
    e = np.linspace(0, 1, 65536)
    bright = (np.exp((e - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(e <= 0.5, e * e / 3, bright).astype(np.float32)
