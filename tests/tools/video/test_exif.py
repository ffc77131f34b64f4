"""Pictures with EXIF: a kind of side data that PyAV does not know, and the orientation that it says."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tests.tools.videos import number, picture

from act2see.tools.video.reader import open_video
from act2see.tools.video.sidedata import read_side_data

TURNS = {1: 0, 3: 2, 6: 1, 8: 3}  # EXIF's orientation, and the quarter turns to the left before it is stored


def encode(n: int, orientation: int | None, kind: str = "JPEG") -> bytes:
    """Return a picture that shows its number if it is turned as its EXIF says."""
    pixels = np.ascontiguousarray(np.rot90(picture(n), TURNS.get(orientation or 1, 0)))
    if orientation == 2:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    exif[0x010F] = "maker"
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    return out.getvalue()


def write_film(path: Path, orientation: int, frames: int = 12) -> Path:
    """Write JPEG pictures with EXIF, as cameras do, as a film."""
    upright = TURNS.get(orientation, 0) % 2 == 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height = (128, 96) if upright else (96, 128)
        stream.pix_fmt, stream.time_base = "yuvj420p", Fraction(1, 10)
        for n in range(frames):
            packet = av.Packet(encode(n, orientation))
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = n
            packet.duration, packet.is_keyframe = 1, True
            container.mux(packet)
    return path


@pytest.mark.parametrize("orientation", [2, 6])
@pytest.mark.parametrize("end", ["avi", "mov"])
def test_a_film_of_pictures_with_exif_is_upright(tmp_path: Path, end: str, orientation: int) -> None:
    video = open_video(write_film(tmp_path / f"clip.{end}", orientation))
    assert (video.width, video.height) == (128, 96)
    assert [number(pixels) for _, _, pixels in video.read([0, 5, 11])] == [0, 5, 11]


@pytest.mark.parametrize("orientation", [None, 2, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_with_exif_is_upright(tmp_path: Path, kind: str, orientation: int | None) -> None:
    path = tmp_path / f"picture.{kind.lower()}"
    path.write_bytes(encode(77, orientation, kind))
    [(_, _, pixels)] = open_video(path).read([0])
    assert number(pixels) == 77


def test_unknown_side_data_is_left_out_and_hides_nothing(tmp_path: Path) -> None:
    with av.open(str(write_film(tmp_path / "clip.avi", 6))) as container:
        data = read_side_data(next(container.decode(video=0)))
    assert list(data) == ["DISPLAYMATRIX"]
    assert len(data["DISPLAYMATRIX"]) == 36
