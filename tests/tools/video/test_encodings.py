"""Subtitles in old encodings: a text is right, or the reader says that it may be wrong."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from act2see.graphs.assistant import make_transcript_reader
from act2see.tools.video.folders import Folders
from act2see.tools.video.subtitles import read_transcript

SENTENCES = tomllib.loads((Path(__file__).parents[2] / "data" / "sentences.toml").read_text(encoding="utf-8"))
ENCODINGS = {
    "Russian": ["koi8_r", "cp1251", "cp866", "iso8859_5"],
    "Czech": ["cp1250", "iso8859_2", "cp852"],
    "Polish": ["cp1250", "iso8859_2"],
    "Hungarian": ["cp1250", "iso8859_2"],
    "Hebrew": ["cp1255"],
    "Greek": ["cp1253", "iso8859_7"],
    "Turkish": ["cp1254"],
    "Japanese": ["shift_jis", "euc_jp"],
    "Simplified": ["gb18030"],
    "Traditional": ["big5"],
    "Korean": ["euc_kr"],
    "French": ["cp1252", "cp850"],
    "German": ["cp1252", "cp850"],
    "Arabic": ["cp1256"],
}
CASES = [(language, encoding) for language in ENCODINGS for encoding in ENCODINGS[language]]


def write_srt(path: Path, cues: list[str], encoding: str) -> Path:
    rows = [f"{i + 1}\n00:00:{i:02},000 --> 00:00:{i:02},900\n{cue}\n\n" for i, cue in enumerate(cues)]
    path.write_bytes("".join(rows).encode(encoding))
    return path


def in_thirds(sentence: str) -> list[str]:
    """Cut a sentence into three cues."""
    words = sentence.split(" ") if " " in sentence else list(sentence)
    cuts = [0, len(words) // 3, 2 * len(words) // 3, len(words)]
    glue = " " if " " in sentence else ""
    return [glue.join(words[a:b]).strip() for a, b in pairwise(cuts)]


@pytest.mark.parametrize(("language", "encoding"), CASES)
def test_thirty_cues_are_read_right_and_without_a_doubt(tmp_path: Path, language: str, encoding: str) -> None:
    cues = [part for sentence in SENTENCES[language] for part in in_thirds(sentence)]
    transcript = read_transcript(write_srt(tmp_path / "clip.srt", cues, encoding))
    assert [line.text for line in transcript.lines] == cues
    assert len(cues) == 30
    if encoding == "iso8859_7":  # differs from cp1253 in one capital letter
        return
    assert transcript.doubt == ""


def test_two_cues_are_read_right_or_in_doubt(tmp_path: Path) -> None:
    sure = right = 0
    for language, encoding in CASES:
        for i in range(0, 10, 2):
            cues = SENTENCES[language][i : i + 2]
            transcript = read_transcript(write_srt(tmp_path / "clip.srt", cues, encoding))
            is_right = [line.text for line in transcript.lines] == cues
            right += is_right
            sure += not transcript.doubt
            assert is_right or transcript.doubt, (language, encoding, i)
    assert right >= 0.97 * 5 * len(CASES)
    assert sure >= 0.9 * 5 * len(CASES)


def test_a_doubt_names_the_encodings_and_reaches_whoever_searches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "clip.mp4").touch()
    path = write_srt(tmp_path / "clip.srt", ["Je l'ai vu à Genève", "Ça va, Noël"], "cp850")
    doubt = read_transcript(path).doubt
    assert f"{path} is not UTF-8 and is read as" in doubt
    assert "cp850" in doubt
    assert doubt.endswith(f"so its text may be wrong: convert it (iconv -f ENCODING -t UTF-8 {path})")
    assert caplog.messages == [doubt]
    tool = make_transcript_reader(Folders([tmp_path]))
    assert "its text may be wrong" in tool.invoke({"video": "clip.mp4"}).splitlines()[0]


def test_bytes_of_no_language_are_in_doubt(tmp_path: Path) -> None:
    path = tmp_path / "clip.srt"
    path.write_bytes(b"00:01 --> 00:02\n" + bytes(range(255, 128, -1)) * 3 + b"\n")
    assert "letters are those of no language that is known here" in read_transcript(path).doubt
