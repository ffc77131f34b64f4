"""A short part of the fuzz loops of `python -m benchmarks fuzz`, always the same one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from benchmarks.fuzz import checks, repeat
from benchmarks.fuzz.grammar import compare
from benchmarks.fuzz.readers import find_fault

from act2see.agent import parser as parser_module
from act2see.errors import TraceError

READERS = ("traces", "configs", "subtitles", "chains", "corpora", "indexes", "saved runs", "pictures")


def test_the_parser_agrees_with_the_slow_reference() -> None:
    assert repeat(compare, 2000, seed=1).failures == []


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("is_mention", lambda text: False),
        ("is_placeholder", lambda query: False),
        ("opens_quotation", lambda mark, before: False),
        ("FORMATTING", frozenset()),
    ],
)
def test_the_reference_notices_a_wrong_parser(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser_module, name, wrong)
    assert repeat(compare, 2000, seed=1).failed > 0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("name", READERS)
def test_a_reader_gives_data_or_a_clean_error(name: str, tmp_path: Path) -> None:
    targets = checks(tmp_path)
    assert list(targets) == ["grammar", *READERS]
    result = repeat(targets[name], 150, seed=1)
    assert result.failures == []
    assert result.executions == 150


def test_a_fault_is_found_and_named_with_its_seed() -> None:
    def fail() -> None:
        raise KeyError("x")

    def fail_in_two_lines() -> None:
        raise TraceError("a\nb")

    def check(rng: random.Random) -> str | None:
        return find_fault(fail)

    assert find_fault(lambda: 1) is None
    assert "is not one short line" in str(find_fault(fail_in_two_lines))
    result = repeat(check, 7, seed=3)
    assert (result.failed, len(result.failures)) == (7, 5)
    assert result.failures[0] == "seed 3, execution 0: KeyError: 'x'"
