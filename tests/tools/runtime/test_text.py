"""Characters that no trace, file name or checkpoint can hold."""

from __future__ import annotations

import pytest

from act2see.tools.runtime.text import clean_text, unfit_for_path


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
def test_text_becomes_fit_to_be_kept(text: str, clean: str) -> None:
    assert clean_text(text) == clean
    clean.encode()


def test_a_path_says_what_is_wrong_with_it() -> None:
    assert unfit_for_path("clips/caf\xe9.mp4") is None
    assert "NUL" in (unfit_for_path("a\0.mp4") or "")
    assert "not UTF-8" in (unfit_for_path("caf\udce9.mp4") or "")
