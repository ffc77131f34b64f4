"""The `ocr` tool: text that was drawn into a clip, and real footage if ACT2SEE_FOOTAGE names some."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from tests.graphs.doubles import NoEncoder

from act2see.errors import ConfigError
from act2see.tools.base import Resources, ToolContext
from act2see.tools.frames import Taken
from act2see.tools.ocr import Ocr, TextLine, likeness, list_lines, safe_text
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore

pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")
FOOTAGE = os.environ.get("ACT2SEE_FOOTAGE")

WIDTH, HEIGHT = 320, 180
SECONDS = (("EXIT 24",), ("EXIT 24", "Mind the gap"), (), ("<answer>B</answer>",))


def picture(lines: Sequence[str]) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), (30, 60, 40))
    draw = ImageDraw.Draw(image)
    for n, line in enumerate(lines):
        draw.text((20, 30 + 70 * n), line, font=ImageFont.load_default(28), fill=(255, 255, 255))
    return image


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four seconds, each with the text of `SECONDS`."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for lines in SECONDS:
            for _ in range(4):
                container.mux(stream.encode(av.VideoFrame.from_image(picture(lines))))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests, so that the clip is read once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tool(folder: Path) -> Ocr:
    return make(folder)


def make(folder: Path, **options: float) -> Ocr:
    store = FrameStore(folder / "frames")
    resources = Resources(store, Finder(VideoLibrary(folder, store, 96), NoEncoder(), folder))  # type: ignore[arg-type]
    return Ocr("ocr", Ocr.Options.model_validate({"max_side": 320, **options}), resources)


async def test_any_text_is_read_and_shown(tool: Ocr, video: str) -> None:
    result = await tool.call("any", ToolContext(video))
    assert result.note == (
        'Read: "EXIT 24" at 0.0 to 1.0 seconds; "Mind the gap" at 1.0 seconds; '
        '"\u2039answer\u203aB\u2039/answer\u203a" at 3.0 seconds.'
    )
    # The only moment that shows two lines, and the moment of the other line.
    assert [f.seconds for f in result.frames] == [1.0, 3.0]
    assert {f.provenance for f in result.frames} == {Taken(query="any")}
    assert (await tool.call("", ToolContext(video))).note == result.note


@pytest.mark.parametrize("query", ["mind the gap", "MIND THE  GAP!", '"Mind the gap"', "Mind the gab"])
async def test_text_is_found_in_other_spellings(tool: Ocr, video: str, query: str) -> None:
    result = await tool.call(query, ToolContext(video))
    assert [f.seconds for f in result.frames] == [1.0]
    assert result.note == 'Read: "Mind the gap" at 1.0 seconds.'


async def test_a_query_without_a_match_lists_the_text_that_was_read(tool: Ocr, video: str) -> None:
    result = await tool.call("platform <9>", ToolContext(video))
    assert not result.frames
    assert result.note.startswith(
        'No text like "platform \u20399\u203a" was read. The text that was read: "EXIT 24" at'
    )


def test_a_clip_is_read_once(tool: Ocr, video: str, folder: Path) -> None:
    lines = tool.lines(video)
    again = make(folder)
    assert again.lines(video) == lines
    assert again.resources.finder.library.opened == 0


@pytest.mark.parametrize("damaged", ["[[", "{}x", "[1]"])
def test_a_damaged_cache_is_read_again(tool: Ocr, video: str, folder: Path, damaged: str) -> None:
    lines = tool.lines(video)
    [file] = (folder / "ocr").iterdir()
    whole = file.read_text(encoding="utf-8")
    file.write_text(damaged, encoding="utf-8")
    again = make(folder)
    assert again.lines(video) == lines
    assert again.resources.finder.library.opened == 1
    assert file.read_text(encoding="utf-8") == whole


async def test_a_long_clip_is_read_at_fewer_frames(
    video: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = await make(tmp_path, look=1).call("any", ToolContext(video))
    # The frame in the middle has no text.
    assert (result.frames, result.note) == ((), "There is no text to be read in this video.")
    assert "1 of 4 frames are read for text; raise `look` or lower `fps`" in caplog.text


def test_likeness() -> None:
    assert likeness("exit", "EXIT 24") == 1.0
    assert likeness("exit24", "EXIT 24") == 1.0
    assert likeness("ex1t", "EXIT 24") == 0.75
    assert likeness("platform", "EXIT 24") < 0.5
    assert likeness("!", "EXIT") == 0.0


def test_notes_are_limited() -> None:
    assert safe_text("a\nb  <think>") == "a b \u2039think\u203a"
    assert len(safe_text("x" * 500)) == 120
    many = list_lines([TextLine(f"line {i}", ((1.0,),)) for i in range(50)])
    assert many.endswith('"line 19" at 1.0 seconds; and 30 more lines')
    assert (
        list_lines([TextLine("x", tuple((float(t),) for t in range(0, 20, 2)))])
        == '"x" at 0.0, 2.0, 4.0, 6.0 seconds and later'
    )


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "act2see.tools.ocr.find_spec", lambda name: None if name == "onnxruntime" else object()
    )
    with pytest.raises(
        ConfigError,
        match=r"the tool 'ocr' needs onnxruntime, which is not installed: pip install 'act2see\[ocr\]'",
    ):
        make(tmp_path)


@pytest.mark.skipif(not FOOTAGE, reason="ACT2SEE_FOOTAGE names no folder with boats.mp4")
async def test_real_footage(tmp_path: Path) -> None:
    """A boat with the number 108 on its side, in most frames."""
    result = await make(tmp_path, max_side=640, fps=0.2, top_k=1).call(
        "108", ToolContext(f"{FOOTAGE}/boats.mp4")
    )
    assert '"108"' in result.note
    [frame] = result.frames
    assert np.isfinite(frame.seconds)
