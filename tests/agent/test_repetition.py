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
        PASSAGE * (REPEATS - 1),
        "".join(f"Second {n}: northwest circle red, centre ring blue. " for n in range(60)),
        "".join(f"{n}. The door is shut in frame {n}.\n" for n in range(80)),
        PASSAGE * 8 + "So it is red, and I am certain now.",
        "",
    ],
)
def test_lists_and_ended_repetitions_are_no_loops(text: str) -> None:
    assert not is_loop(text)
