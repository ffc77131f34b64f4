"""Text that traces, file names and checkpoints cannot contain; shortened text; numbers of bytes; problems."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from act2see.tools.runtime.text import (
    clean_text,
    explain_problem,
    first_problem,
    format_bytes,
    shorten_text,
    unfit_for_path,
)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("as it is, \N{GRINNING FACE} and caf\xe9\n", "as it is, \N{GRINNING FACE} and caf\xe9\n"),
        ("a\ud83db", "a\ufffdb"),
        ("\ude00", "\ufffd"),
        ("caf\udce9", "caf\ufffd"),
        ("a\0b", "ab"),
        ("", ""),
    ],
)
def test_clean_text(text: str, clean: str) -> None:
    assert clean_text(text) == clean
    clean.encode()


def test_shortened_text_says_how_much_is_missing() -> None:
    assert shorten_text("abc", 3) == "abc"
    assert shorten_text("a" * 5000, 4) == "aaaa … (4,996 more characters)"


@pytest.mark.parametrize(
    ("number", "decimal", "binary"),
    [
        (0, "0 bytes", "0 bytes"),
        (999, "999 bytes", "999 bytes"),
        (2e9, "2.0 GB", "1.9 GiB"),
        (17.54e9, "17.5 GB", "16.3 GiB"),
        (16 << 20, "16.8 MB", "16 MiB"),
        (3000e12, "3,000.0 TB", "2,728.5 TiB"),
    ],
)
def test_format_bytes(number: float, decimal: str, binary: str) -> None:
    assert format_bytes(number) == decimal
    assert format_bytes(number, binary=True) == binary


def test_unfit_for_path() -> None:
    assert unfit_for_path("clips/caf\xe9.mp4") is None
    assert "NUL" in (unfit_for_path("a\0.mp4") or "")
    assert "not UTF-8" in (unfit_for_path("caf\udce9.mp4") or "")


def test_the_first_problem_names_its_field() -> None:
    class Inner(BaseModel):
        count: Annotated[int, Field(ge=1)]

        @field_validator("count")
        @classmethod
        def _even(cls, count: int) -> int:
            if count % 2:
                raise ValueError("must be even")
            return count

    class Outer(BaseModel):
        inner: list[Inner]

    for count, problem in [(0, "Input should be greater than or equal to 1"), (3, "must be even")]:
        with pytest.raises(ValidationError) as raised:
            Outer.model_validate({"inner": [{"count": 2}, {"count": count}]})
        assert first_problem(raised.value) == ("inner.1.count", problem)
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate(3)
    assert first_problem(raised.value)[0] == ""


@pytest.mark.parametrize(
    ("given", "explained"),
    [
        ({"conut": 1}, "unknown key 'conut'; did you mean 'count'?"),
        ({"xyz": 1}, "unknown key 'xyz'; known keys: count, name"),
        (
            {"count": "many"},
            "count: Input should be a valid integer, unable to parse string as an integer (got 'many')",
        ),
    ],
)
def test_explain_problem_names_the_nearest_key(given: dict[str, object], explained: str) -> None:
    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid")

        count: int = 1
        name: str = ""

    with pytest.raises(ValidationError) as raised:
        Settings.model_validate(given)
    assert explain_problem(raised.value, Settings.model_fields) == explained
