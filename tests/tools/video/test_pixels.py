"""Pictures: transparent, HDR, of another aspect ratio than the first one; and files with odd names."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.tools.videos import Pixels, number, picture, write_video

from act2see.errors import VideoError
from act2see.tools.video.opening import open_container
from act2see.tools.video.pixels import find_brightest, map_tones, opaque
from act2see.tools.video.reader import open_video

Kind = Literal["PQ", "HLG"]
WIDER = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
LUMINANCE = np.array([0.2627, 0.6780, 0.0593])


def to_hdr(light: NDArray[np.float64], kind: Kind) -> NDArray[np.float64]:
    """Encode light of a screen, BT.2020 in cd/m², by the formulas of BT.2100: values from 0 to 1."""
    if kind == "PQ":
        y = (light / 10_000) ** (2610 / 16384)
        low: NDArray[np.float64] = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
        return low
    luminance = np.maximum(light @ LUMINANCE, 1e-9)[..., None]
    scene = light / 1000 * (luminance / 1000) ** (1 / 1.2 - 1)
    dark = np.sqrt(3 * scene)
    return np.where(
        scene <= 1 / 12,
        dark,
        0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
    )


def write_hdr(path: Path, pictures: list[Pixels], kind: Kind) -> Path:
    """Write pictures of an ordinary screen as HDR, with white at 203 cd/m², without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        assert isinstance(stream, av.VideoStream)
        height, width, _ = pictures[0].shape
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p10le"
        stream.codec_context.color_trc = 16 if kind == "PQ" else 18
        stream.codec_context.color_primaries = stream.codec_context.colorspace = 9
        for n, pixels in enumerate(pictures):
            e = to_hdr((pixels / 255.0) ** 2.4 @ WIDER.T * 203, kind)
            y = e @ LUMINANCE
            planes = (
                219 * y + 16,
                224 * (e[..., 2] - y) / 1.8814 + 128,
                224 * (e[..., 0] - y) / 1.4746 + 128,
            )
            frame = av.VideoFrame(width, height, "yuv444p10le")
            for plane, values in zip(frame.planes, planes, strict=True):
                padded = np.zeros((height, plane.line_size // 2), np.uint16)
                padded[:, :width] = np.rint(values * 4)
                plane.update(padded.tobytes())
            frame.pts, frame.time_base = n, Fraction(1, 10)
            frame.color_trc, frame.color_primaries, frame.colorspace = stream.codec_context.color_trc, 9, 9
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("kind", ["PQ", "HLG"])
def test_hdr_is_mapped_to_an_ordinary_screen(tmp_path: Path, kind: Kind) -> None:
    grey = np.tile(np.arange(0, 256, 2, dtype=np.uint8)[None, :, None], (96, 1, 3))
    video = open_video(write_hdr(tmp_path / "clip.mkv", [picture(178), grey], kind), decoder="decord")
    assert video.decoder == "pyav", "decord would return the values as they are stored"
    bars, ramp = (pixels.astype(int) for _, _, pixels in video.read([0, 1]))
    assert number(bars.astype(np.uint8)) == 178
    assert bars[10, 5].tolist() == pytest.approx([241] * 3, abs=3), "white leaves room for highlights"
    assert bars[80, 20] == pytest.approx([220, 30, 30], abs=6)
    assert bars[80, 100] == pytest.approx([30, 30, 220], abs=6)
    assert ramp[5, 8:110, 1] == pytest.approx(grey[5, 8:110, 1], abs=4), "below the knee nothing changes"
    assert (np.diff(ramp[5, :, 1]) >= 0).all()
    assert number(next(video.read([0], (64, 48)))[2]) == 178


def test_highlights_keep_their_hue_and_end_at_the_brightest_value() -> None:
    light = np.array([[[203.0] * 3, [1000] * 3, [4000] * 3, [900, 90, 90], [0] * 3]])
    deep = np.rint(to_hdr(light, "PQ") * 65535).astype(np.uint16)
    white, bright, beyond, red, black = map_tones(deep, hlg=False, narrow=True)[0].astype(int)
    assert (white[0], bright[0], beyond[0], black[0]) == (pytest.approx(241, abs=2), 255, 255, 0)
    assert red[0] > 245
    assert red[1] == red[2] == pytest.approx(red[0] * 0.1 ** (1 / 2.4), abs=3)


@pytest.mark.parametrize(("content", "display", "found"), [(0, 4000, 4000), (600, 4000, 600), (0, 0, 1000)])
def test_highlights_reach_as_far_as_the_file_says(
    tmp_path: Path, content: int, display: int, found: int
) -> None:
    path = tmp_path / "clip.mkv"
    told = [f"max-cll={content},{content // 2}"] if content else []
    if display:
        primaries = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
        told.append(f"master-display={primaries}L({display * 10_000},50)")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        stream.codec_context.color_trc = 16
        stream.codec_context.color_primaries = stream.codec_context.colorspace = 9
        settings = [
            "log-level=none",
            "pools=none",
            "frame-threads=1",
            "bframes=0",
            "transfer=16",
            "colorprim=9",
            "colormatrix=9",
            *told,
        ]
        stream.options = {"preset": "ultrafast", "x265-params": ":".join(settings)}
        grey = to_hdr(np.array([900.0]), "PQ")[0]
        frame = av.VideoFrame(64, 64, "yuv420p10le")
        for plane, value in zip(frame.planes, (4 * (219 * grey + 16), 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, round(value), np.uint16).tobytes())
        for n in range(2):
            frame.pts, frame.time_base = n, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert [find_brightest(frame) for frame in container.decode(video=0)] == [found, found]
    deep = np.full((1, 1, 3), round(grey * 65535), np.uint16)
    expected = map_tones(deep, hlg=False, brightest=found)[0, 0].astype(int)
    for _, _, pixels in open_video(path).read([0, 1]):
        assert pixels[32, 32].astype(int) == pytest.approx(expected, abs=3)
    assert (expected[0] < 255) == (found == 4000)


def write_transparent(path: Path, palette: bool) -> Path:
    """Write black writing on a transparent ground, whose hidden colour is black, too."""
    pixels = np.zeros((96, 128, 4), np.uint8)
    pixels[48:, :64, 3] = 255
    pixels[:48, 64:, 3] = 0 if palette else 128
    image = Image.fromarray(pixels)
    if palette:
        shape = Image.fromarray((pixels[..., 3] == 0).astype(np.uint8), "L")
        image = Image.new("P", shape.size)
        image.paste(shape)
        image.putpalette([0, 0, 0] * 256)
        image.save(path, transparency=1)
    else:
        image.save(path)
    return path


@pytest.mark.parametrize("palette", [False, True])
def test_transparent_pictures_lie_on_white(tmp_path: Path, palette: bool) -> None:
    video = open_video(write_transparent(tmp_path / "chart.png", palette))
    [pixels] = (pixels.astype(int) for _, _, pixels in video.read([0]))
    assert pixels[10, 10].tolist() == [255, 255, 255]
    assert pixels[80, 10].tolist() == [0, 0, 0]
    assert pixels[10, 100] == pytest.approx([255 if palette else 127] * 3, abs=1)
    [(_, _, small)] = video.read([0], (32, 24))
    assert small[2, 2].tolist() == [255, 255, 255]


@pytest.mark.parametrize("palette", [False, True])
def test_transparent_pictures_of_a_person_lie_on_white(tmp_path: Path, palette: bool) -> None:
    image = opaque(Image.open(write_transparent(tmp_path / "chart.png", palette)))
    assert image.mode == "RGB"
    assert image.getpixel((10, 10)) == (255, 255, 255)
    assert image.getpixel((10, 80)) == (0, 0, 0)
    assert opaque(Image.fromarray(picture(3))).getpixel((10, 80)) == (220, 30, 30)


def join(path: Path, *parts: Path) -> Path:
    """Write the bytes of MPEG-TS files one after another."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_a_picture_of_another_aspect_ratio_gets_bars(tmp_path: Path) -> None:
    wide = write_video(tmp_path / "wide.ts", [0, 0.1, 0.2], width=128, height=96)
    tall = write_video(tmp_path / "tall.ts", [0.3, 0.4, 0.5], width=96, height=128)
    video = open_video(join(tmp_path / "clip.ts", wide, tall))
    assert (video.width, video.height) == (128, 96)
    pictures = [pixels for _, _, pixels in video.read(range(video.frames))]
    assert number(pictures[0]) == 0
    last = pictures[-1]
    left, right = (128 - 72) // 2, (128 + 72) // 2  # 96 x 128 in 96 rows is 72 wide
    assert last[:, : left - 1].max() == 0
    assert last[:, right + 1 :].max() == 0
    assert number(last[:, left:right]) == 2


def test_a_picture_of_the_same_aspect_ratio_gets_no_bars(tmp_path: Path) -> None:
    large = write_video(tmp_path / "large.ts", [0, 0.1, 0.2], width=128, height=96)
    small = write_video(tmp_path / "small.ts", [0.3, 0.4, 0.5], width=64, height=48)
    video = open_video(join(tmp_path / "clip.ts", large, small))
    assert [number(pixels) for _, _, pixels in video.read(range(video.frames))][-1] == 2


def test_a_name_with_a_pattern_is_that_of_one_picture(tmp_path: Path) -> None:
    for n in range(4):
        Image.fromarray(picture(n + 1)).save(tmp_path / f"p{n:03d}.png")
    Image.fromarray(picture(9)).save(tmp_path / "p%03d.png")
    video = open_video(tmp_path / "p%03d.png")
    assert [number(pixels) for _, _, pixels in video.read(range(video.frames))] == [9]


@pytest.mark.parametrize(
    "name", ["a b#c.mp4", "a?b=1&c.mp4", "%d.mp4", "concat:a|b.mp4", "a\nb.mp4", "é*.mp4"]
)
def test_any_name_opens_its_own_file(tmp_path: Path, name: str) -> None:
    clip = write_video(tmp_path / name, [0, 0.1, 0.2])
    assert [number(pixels) for _, _, pixels in open_video(clip).read([1])] == [1]
    assert open_video(f"{clip}#t=0.1,0.2").frames == 1


def test_an_error_of_ffmpeg_is_an_error_of_ours(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", [0, 0.1])
    with (
        pytest.raises(VideoError, match=r"FFmpeg cannot read .*clip\.mp4"),
        open_container(str(clip)) as (container, stream),
    ):
        container.seek(1 << 60, backward=False, stream=stream)
