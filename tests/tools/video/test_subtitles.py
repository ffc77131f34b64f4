"""Subtitle files of many programs, and search in them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from act2see.errors import TranscriptError
from act2see.tools.video.subtitles import Line, parse, read_transcript, subtitles_of

SRT = """1
00:00:01,000 --> 00:00:02,500
Look at the <i>triangle</i>!

2
00:00:03,000 --> 00:00:04,000
- It blinks.
- {\\an8}It does &amp; it did.

3
01:00:00,000 --> 01:00:01,5
An hour later.
"""
VTT = """WEBVTT - made by hand

STYLE
::cue { color: red }

NOTE the next one
has a name

opening
00:01.000 --> 00:02.500 align:start position:10%
<v Ann>Look at the <c.loud>triangle</c>!

00:03.000 --> 00:04.000
<00:03.200>It <00:03.500>blinks.
"""


def test_subrip_and_webvtt_are_read_alike() -> None:
    assert parse(SRT) == (
        (
            Line(1.0, 2.5, "Look at the triangle!"),
            Line(3.0, 4.0, "- It blinks. - It does & it did."),
            Line(3600.0, 3601.5, "An hour later."),
        ),
        0,
    )
    assert parse(VTT) == ((Line(1.0, 2.5, "Ann: Look at the triangle!"), Line(3.0, 4.0, "It blinks.")), 0)


@pytest.mark.parametrize(
    ("text", "lines", "skipped"),
    [
        (SRT.replace("\n", "\r\n"), 3, 0),
        (SRT.replace("\n", "\r"), 3, 0),
        (SRT.replace("\n\n", "\n"), 3, 0),  # no blank lines
        (SRT.replace(",", ".").replace("-->", "->"), 3, 0),
        ("\ufeff" + SRT, 3, 0),
        (SRT.replace("00:00:03,000 --> 00:00:04,000", "soon --> later"), 2, 1),
        (SRT.replace("00:00:03,000 --> 00:00:04,000", "00:00:04,000 --> 00:00:03,000"), 2, 1),
        (SRT.replace("An hour later.", ""), 2, 1),
        ("", 0, 0),
    ],
    ids=["crlf", "cr", "no-blank-lines", "dots", "mark", "no-time", "backwards", "no-text", "empty"],
)
def test_odd_subtitle_files(text: str, lines: int, skipped: int) -> None:
    found, left = parse(text)
    assert (len(found), left) == (lines, skipped)
    assert all(not line.text.endswith(tuple("123")) for line in found)


@given(st.text())
def test_any_text_is_parsed_without_an_error(text: str) -> None:
    lines, _ = parse(text + "\n00:01.000 --> 00:02.000\nend")
    assert [line.start for line in lines] == sorted(line.start for line in lines)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "clip.srt"
    file.write_bytes(SRT.replace("Look", "Schön, Größe").encode(encoding))
    assert read_transcript(file).lines[0].text == "Schön, Größe at the triangle!"


def test_files_that_are_not_subtitles_are_errors(tmp_path: Path) -> None:
    for name, content, says in (
        ("a.srt", b"Hello.", "no line with a time"),
        ("b.srt", b"\0" * (17 << 20), "larger than 16 MiB"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TranscriptError, match=rf"{name}.*{says}|{says}.*{name}"):
            read_transcript(tmp_path / name)
    with pytest.raises(TranscriptError, match=r"c\.srt cannot be read \(No such file"):
        read_transcript(tmp_path / "c.srt")


def test_subtitles_are_found_beside_their_video(tmp_path: Path) -> None:
    for name in ("clip.srt", "clip.de.VTT", "clip.mp4", "clip2.srt", "clip.txt", "other.vtt"):
        (tmp_path / name).touch()
    assert [f.name for f in subtitles_of(tmp_path / "clip.mp4")] == ["clip.de.VTT", "clip.srt"]
    assert subtitles_of(tmp_path / "none" / "clip.mp4") == []


def test_lines_are_found_by_their_words(tmp_path: Path) -> None:
    said = [
        "The board is ready.",
        "Now the ring hops.",
        "Nothing yet.",
        "The triangle is blue!",
        "The board was tipped.",
        "Ready?",
    ]
    file = tmp_path / "clip.vtt"
    file.write_text(
        "WEBVTT\n\n" + "\n\n".join(f"00:{n:02}.000 --> 00:{n:02}.900\n{text}" for n, text in enumerate(said))
    )
    transcript = read_transcript(file)
    assert str(transcript.search("blue triangle")[0]) == '3.0 s to 3.9 s: "The triangle is blue!"'
    assert [line.start for line in transcript.search("board READY?", 2)] == [0.0, 5.0]
    assert transcript.search("elephant") == ()
    assert transcript.search("?") == transcript.lines[:5]


SAID = ["Hello there.", "The circle blinks."]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\n00:00:01,000 --> 00:00:02,500\n\nHello there.\n\n2\n00:00:03,000 --> 00:00:04,000\n{}\n", SAID),
        ("1\n00:00:01,000 --> 00:00:02,500\nHello\n\nthere.\n\n2\n00:00:03,000 --> 00:00:04,000\n{}\n", SAID),
        ("1\r\r\n00:01,000 --> 00:02,500\r\r\nHello there.\r\r\n\r\r\n2\r\r\n00:03 --> 00:04\r\r\n{}", SAID),
        ("00:00:01.000000 --> 00:00:02.500000\nHello there.\n\n00:00:03.000000 --> 00:00:04.0\n{}", SAID),
    ],
    ids=["blank-first", "blank-inside", "cr-cr-lf", "microseconds"],
)
def test_no_cue_is_lost(text: str, said: list[str]) -> None:
    lines, skipped = parse(text.format(said[1]))
    assert [line.text for line in lines] == said
    assert [line.start for line in lines] == [1.0, 3.0]
    assert skipped == 0


def test_captions_that_roll_up_are_read_once() -> None:
    text = (
        "WEBVTT\nKind: captions\n\n00:00:01.000 --> 00:00:02.500\n \nHello<00:00:01.200><c> there</c>\n\n"
        "00:00:02.500 --> 00:00:02.510\nHello there\n \n\n"
        "00:00:02.510 --> 00:00:04.000\nHello there\nthe<00:00:03.000><c> circle</c><c> blinks</c>\n\n"
        "00:00:04.000 --> 00:00:04.010\nthe circle blinks\n \n\n"
        "00:00:04.010 --> 00:00:06.000\nthe circle blinks\nand<00:00:05.000><c> stops</c>\n"
    )
    lines, skipped = parse(text)
    assert [line.text for line in lines] == ["Hello there", "the circle blinks", "and stops"]
    assert skipped == 0
    twice = "WEBVTT\n\n00:01.000 --> 00:02.000\nNo!\n\n00:02.000 --> 00:03.000\nNo!\n"
    assert len(parse(twice)[0]) == 2


@pytest.mark.parametrize(
    ("said", "encoding"),
    [("你好世界。圆圈在闪烁", "gbk"), ("déjà vu, ça alors", "cp1252"), ("Größe: 3 €", "cp1252")],
)
def test_encodings_are_told_apart(tmp_path: Path, said: str, encoding: str) -> None:
    path = tmp_path / "clip.srt"
    path.write_bytes(f"00:01 --> 00:02\n{said}\n".encode(encoding))
    assert read_transcript(path).lines[0].text == said


@pytest.mark.parametrize(
    "body",
    [
        "<v " * 27_000,
        "<v" + " " * 80_000,
        "<v x" * 20_000,
        "<v." * 27_000,
        "<v" + "." * 80_000,
        "&" * 80_000,
        "{\\" * 27_000,
        "-" * 80_000,
        "1:" * 40_000,
        "\r" * 80_000,
        "&#" + "9" * 80_000,
        "&#x" + "f" * 80_000,
    ],
    ids=lambda body: body[:4].strip(),
)
def test_hostile_text_takes_little_time(body: str) -> None:
    begin = time.process_time()  # of this process alone, so that a busy machine does not matter
    for text in (f"00:01 --> 00:02\n{body}\n", f"{body}\n", f"00:01.0{body}\n"):
        parse(text)
    assert time.process_time() - begin < 2


def test_hours_of_thousands_of_digits_are_skipped() -> None:
    assert parse(f"{'9' * 4300}:00:01 --> {'9' * 4300}:00:02\nx\n") == ((), 1)
    assert parse("9999:00:01 --> 9999:00:02\nx\n")[0][0].start == 9999 * 3600 + 1


def test_too_many_cues_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("act2see.tools.video.subtitles._MOST_CUES", 10)
    (path := tmp_path / "clip.srt").write_text("00:01 --> 00:02\nx\n\n" * 11)
    with pytest.raises(TranscriptError, match="more than 10 cues: split the file"):
        read_transcript(path)


def test_controls_and_overrides_are_left_out_and_text_in_both_directions_stays(tmp_path: Path) -> None:
    file = tmp_path / "clip.srt"
    text = "\u202bאבא (אמא)\u200f!\u202c \u202eabc\x1b[2J\x00\x9b\u2066x\u2069"
    file.write_text(f"1\n00:00:01,000 --> 00:00:02,000\n{text}\n", encoding="utf-8")
    assert [line.text for line in read_transcript(file).lines] == ["אבא (אמא)\u200f! abc[2Jx"]


@pytest.mark.parametrize(
    ("said", "encoding"),
    [
        ("Привет, как дела сегодня", "cp1251"),
        ("こんにちは世界、元気ですか", "shift_jis"),
        ("你好世界今天天氣很好", "big5"),
        ("안녕하세요 세계", "euc_kr"),
        ("你好世界。圆圈在闪烁", "gb18030"),
        ("café", "cp1252"),
    ],
)
def test_a_guessed_encoding_is_named_in_a_warning(
    tmp_path: Path, said: str, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "clip.srt"
    path.write_bytes(f"1\n00:00:01,000 --> 00:00:02,000\n{said}\n".encode(encoding))
    assert read_transcript(path).lines[0].text == said
    [warning] = caplog.messages
    assert f"{path} is not UTF-8 and is read as {encoding}, which is a guess" in warning
    assert "iconv -f ENCODING -t UTF-8" in warning


def test_a_bad_byte_costs_one_character_of_a_file_of_utf_8(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "clip.srt"
    path.write_bytes("00:01 --> 00:02\ncafé\n\n00:03 --> 00:04\n".encode() + b"caf\xe9\n")
    assert [line.text for line in read_transcript(path).lines] == ["café", "caf\N{REPLACEMENT CHARACTER}"]
    assert caplog.messages == [f"{path}: 1 characters are not UTF-8, the first in line 5: correct the file"]


def test_an_arrow_in_the_text_makes_no_cue() -> None:
    text = "use --> here\n\n2\n00:00:03,000 --> 00:00:04,000\nfirst\nA --> B\n\n"
    lines, skipped = parse(f"1\n00:00:01,000 --> 00:00:02,000\n{text}3\n00:00:05,000 --> 00:00:06,000\nx\n")
    assert [line.text for line in lines] == ["use --> here", "first A --> B", "x"]
    assert skipped == 0


def test_times_before_the_video_are_its_start() -> None:
    assert parse("1\n-00:00:01,000 --> 00:00:02,000\nA\n") == ((Line(0.0, 2.0, "A"),), 0)
    assert parse("-00:02.000 --> -00:01.000\nA\n") == ((), 1)
