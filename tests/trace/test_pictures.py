"""Frames as picture files for other programs."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from act2see.tools.frames import FrameRef, Generated
from act2see.trace.pictures import encode_picture


@pytest.mark.parametrize("size", [(48, 48), (448, 252), (252, 448), (5, 400)])
def test_an_imagined_frame_is_marked_in_its_pixels(
    frame: Callable[..., FrameRef], size: tuple[int, int]
) -> None:
    height, width = size
    real = frame(1, 1.0, width, height)
    provenance = Generated(prompt="x", anchor=real, seed=1, strength=0.3, model="m")
    made = real.model_copy(update={"provenance": provenance})
    grey = np.full((height, width, 3), 90, np.uint8)
    plain = Image.open(BytesIO(encode_picture(real, grey)[0])).convert("RGB")
    marked = Image.open(BytesIO(encode_picture(made, grey)[0])).convert("RGB")
    assert np.ptp(np.asarray(plain)) <= 4
    assert max(plain.size) >= 192
    assert marked.width > plain.width
    assert marked.height > plain.height + 20
    red, green, blue = np.asarray(marked)[1, 1].astype(int)
    assert red > green + 80  # magenta, not grey
    assert blue > green + 80
