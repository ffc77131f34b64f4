"""When a text has become a loop, and when it only looks like one."""

from __future__ import annotations

import pytest

from act2see.agent.repetition import LENGTH, REPEATS, RepetitionDetector, is_loop

PASSAGE = "Wait, the ring is red. But is it? Let me check the frame again. Yes, it is red. "


@pytest.mark.parametrize("chunk", [1, 3, 7, 500])
@pytest.mark.parametrize("passage", ["a", "no, ", PASSAGE, "x y z " * 60 + "end. "])
def test_a_passage_that_follows_itself_for_long_is_a_loop(passage: str, chunk: int) -> None:
    text = "I look at the first frame. " + passage * ((LENGTH + 100) // len(passage) + REPEATS + 3)
    detector = RepetitionDetector()
    found = [detector.feed(text[i : i + chunk]) for i in range(0, len(text), chunk)]
    assert found[-1]
    assert detector.found


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"Wait, attempt {n}: let me check the frame again. " for n in range(400)),
        "".join(f"At {n / 10:.1f} s nothing moves.\n" for n in range(600)),
        "".join(f"{word} is at {n}. " for n, word in enumerate(["ring"] * 1500)) * 2,
        (" ".join(f"word{n} " * 3 for n in range(400)) + ". ") * 4,  # a passage of 12,000 characters
    ],
)
def test_long_passages_and_hundreds_that_differ_in_a_number_are_loops(text: str) -> None:
    detector = RepetitionDetector()
    assert any(detector.feed(text[i : i + 5]) for i in range(0, len(text), 5))


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"| {n}:{n % 60:02d} | the ring is at cell {n % 9} |\n" for n in range(150)),
        PASSAGE * (REPEATS - 1),
        "".join(f"Second {n}: northwest circle red, centre ring blue. " for n in range(60)),
        "".join(f"{n}. The door is shut in frame {n}.\n" for n in range(80)),
        PASSAGE * 8 + "So it is red, and I am certain now.",
        "",
    ],
)
def test_lists_and_ended_repetitions_are_no_loops(text: str) -> None:
    assert not is_loop(text)
