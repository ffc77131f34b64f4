"""JSON from outside: whatever is deep, huge or cannot be written again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from act2see.errors import CorpusError, TraceError
from act2see.tools.runtime.plain_json import parse_json, read_json, read_lines
from act2see.trace.trace import Trace, load_traces
from act2see.training.corpus.records import parse_chain


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "nested more than 100 deep"),
        ('{"a":' * 5000, "nested more than 100 deep"),
        ("[" * 101 + "]" * 101, "nested more than 100 deep"),
        ("9" * 4301, "more than 64 bits"),
        (str(2**63), "more than 64 bits"),
        ("[1," * 30, "Expecting value"),
        (b'"\xff"', "can't decode"),
        (b'"\xed\xa0\x80"', "can't decode"),
    ],
    ids=lambda value: str(value[:8]),
)
def test_what_is_no_plain_json_is_one_kind_of_error(text: str | bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_json(text)
    with pytest.raises(TraceError, match="is not JSON"):
        Trace.from_json(text)
    if isinstance(text, str):
        with pytest.raises(CorpusError, match="is not JSON"):
            parse_chain(text, "line 1")


def test_values_are_kept_and_texts_cleaned() -> None:
    assert parse_json(b'{"a": [1, 2.5, null], "b": -9223372036854775808}') == {
        "a": [1, 2.5, None],
        "b": -(2**63),
    }
    assert parse_json("[" * 100 + "]" * 100)
    assert parse_json('["\\ud83d\\ude00", "\\ud800", "a\\u0000b", "\ud800"]') == [
        "\U0001f600",
        "\ufffd",
        "ab",
        "\ufffd",
    ]
    assert parse_json('"é"'.encode("utf-16")) == "é"


def test_files_and_lines_are_bounded(tmp_path: Path) -> None:
    (path := tmp_path / "x.jsonl").write_text("1\n\n[2]\n" + "3" * 100)
    with pytest.raises(OSError, match="larger than 99 bytes"):
        read_json(path, 99)
    lines = read_lines(path, 99)
    assert [next(lines), next(lines), next(lines)] == ["1\n", "\n", "[2]\n"]
    with pytest.raises(ValueError, match="line 4 is longer than 99 bytes"):
        next(lines)
    assert len(list(read_lines(path))) == 4


def test_a_pipe_of_traces_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "pipe.jsonl")
    with pytest.raises(TraceError, match="it is not a regular file"):
        list(load_traces(path))
    with pytest.raises(TraceError, match="cannot read the trace"):
        Trace.load(path)


def test_an_error_quotes_little_of_a_stranger() -> None:
    for text in (
        '{"schema_version": "' + "x\\n" * 9999 + '"}',
        '{"schema_version": 1, "' + "x\\n" * 9999 + '": 1}',
    ):
        with pytest.raises(TraceError) as raised:
            Trace.from_json(text)
        assert len(str(raised.value)) < 500
        assert "\n" not in str(raised.value)
