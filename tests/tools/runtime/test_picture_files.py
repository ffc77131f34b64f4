"""Picture files that ask for much: refused before a pixel is decoded, wherever they are read."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from act2see.errors import StoreError
from act2see.graphs.approval import open_picture, upright_picture
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.picture_files import PictureError, decode_picture
from act2see.tools.video.pixels import opaque
from act2see.tools.video.store import FrameStore
from act2see.trace.folder import frames_of

DIGEST = "0" * 32


def write_png(width: int, height: int, data: bytes = b"", *more: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with a grey picture of one bit a pixel."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        *more,
        (b"IDAT", data),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BOMB = write_png(30_000, 30_000, zlib.compress(bytes(3751 * 100)))
LARGE = write_png(10_000, 10_000)  # Pillow only warns of this one
TEXT = write_png(1, 1, zlib.compress(b"\0\0"), (b"zTXt", b"k\0\0" + zlib.compress(bytes(128 << 20), 1)))


def jpeg_with_scans(count: int) -> bytes:
    Image.new("RGB", (16, 16)).save(out := io.BytesIO(), "JPEG", progressive=True)
    data = out.getvalue()
    start, end = data.rindex(b"\xff\xda"), len(data) - 2
    return data[:end] + data[start:end] * count + data[end:]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (BOMB, "pixels; make it smaller"),
        (LARGE, "pixels; make it smaller"),
        (TEXT, "it is damaged"),
        (jpeg_with_scans(200), "more than 100 scans"),
        (b"GIF89a", "it is not a PNG, JPEG or WebP picture"),
        (write_png(8, 8, b"x"), "it is damaged"),
    ],
    ids=["bomb", "large", "text", "scans", "other", "damaged"],
)
def test_a_supplied_picture_that_asks_for_much_is_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    assert len(data) < 1 << 20
    (path := tmp_path / "picture").write_bytes(data)
    with pytest.raises(StoreError, match=problem):
        open_picture(str(path))


@pytest.mark.parametrize("data", [BOMB, LARGE, TEXT, b"x"], ids=["bomb", "large", "text", "other"])
def test_a_picture_of_a_saved_run_or_a_store_is_bounded(tmp_path: Path, data: bytes) -> None:
    frame = FrameRef(digest=DIGEST, width=8, height=8, seconds=0.0)
    (tmp_path / "run" / "frames").mkdir(parents=True)
    (tmp_path / "run" / "frames" / f"000-0.0s-{DIGEST}.png").write_bytes(data)
    with pytest.raises(StoreError, match="cannot be read"):
        frames_of(tmp_path / "run")(frame)
    store = FrameStore(tmp_path / "store")
    path = Path(store.path(DIGEST))
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="cannot be read"):
        store.get(DIGEST)
    assert not store.put_png("1" * 32, data)


def test_pictures_are_decoded() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out := io.BytesIO(), "PNG")
    assert np.array_equal(np.asarray(decode_picture(out.getvalue())), pixels)
    assert decode_picture(jpeg_with_scans(1), ["JPEG"]).size == (16, 16)
    with pytest.raises(PictureError, match="it has 8 x 6 pixels; make it smaller"):
        decode_picture(out.getvalue(), max_pixels=40)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_grey_of_more_than_8_bits_keeps_its_shades(mode: str) -> None:
    shades = np.arange(256, dtype=np.uint8).reshape(16, 16)
    whites = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}
    deep = shades / 255 if mode == "F" else shades.astype(int) * 257
    image = Image.frombytes(mode, (16, 16), deep.astype(whites[mode]).tobytes())
    assert np.array_equal(np.asarray(opaque(image)), np.stack([shades] * 3, axis=-1))


def test_a_supplied_picture_of_16_bits_keeps_its_shades(tmp_path: Path) -> None:
    shades = np.arange(256, dtype=np.uint8).reshape(16, 16)
    exif = Image.Exif()
    exif[0x112] = 3  # turned by 180 degrees
    Image.fromarray((shades.astype(int) * 257).astype(np.uint16)).save(
        path := tmp_path / "grey.png", exif=exif
    )
    upright = np.asarray(upright_picture(open_picture(str(path))))
    assert np.array_equal(upright, np.stack([shades[::-1, ::-1]] * 3, axis=-1))


def test_the_transparent_shade_of_16_bits_becomes_white() -> None:
    grey = struct.pack(">4H", 0, 100 * 257, 101 * 257, 65_535)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 1, 16, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", 100 * 257)),
        (b"IDAT", zlib.compress(b"\0" + grey)),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    picture = decode_picture(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert np.asarray(opaque(picture))[0, :, 0].tolist() == [0, 255, 101, 255]
