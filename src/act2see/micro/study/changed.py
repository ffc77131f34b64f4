"""Measure answers about clips as people have them: `python -m act2see.micro.study.changed`.

The questions are those of `evaluate`, but each clip is written as another recording (`recordings.py`): size,
bars, codec, rate, light, sharpness and noise. The guard is on, so a refused clip counts as a wrong answer.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from act2see.graphs.config import Config
from act2see.micro.guard import MESSAGE
from act2see.micro.questions import FAMILIES, Item, Split, items
from act2see.micro.recordings import Recording, draw_recording, write_recording
from act2see.micro.study.evaluate import AnsweredItem, Rate, Report, ask_all, micro_config

GOAL = 0.95


def recording_of(item: Item) -> Recording:
    """Return the recording of an item's clip; the same item always has the same."""
    return draw_recording(random.Random(f"recording {item.seed}"))


def write_items(items: Iterable[Item], folder: Path) -> None:
    """Write the recordings of items, where `ask_all` looks for their clips; existing ones are kept."""
    for item in items:
        path = folder / f"{item.seed}.mp4"
        if not path.exists():
            write_recording(item.clip, path, recording_of(item))


def changed_config(weights: Path | None, cache: Path) -> Config:
    """Return the micro preset with its guard, and its own cache.

    Args:
        weights: The folder of the weights; None for the shipped ones.
        cache: The folder of the cache.
    """
    config = micro_config(weights, cache)
    guard = "act2see.micro.guard:BoardGuard"
    return config.model_copy(update={"view": config.view.model_copy(update={"guard": guard})})


async def ask_changed(
    n: int,
    weights: Path | None,
    folder: Path,
    split: Split = "test",
    progress: Callable[[int], None] | None = None,
) -> list[AnsweredItem]:
    """Ask `n` questions about recordings of their clips.

    Args:
        n: The number of questions, from the families in turn.
        weights: The folder of the weights; None for the shipped ones.
        folder: The folder for clips and the cache.
        split: The split of the questions.
        progress: Called with the number of answers.
    """
    asked = list(items(n, split))
    clips = folder / "recordings"
    await asyncio.to_thread(write_items, asked, clips)
    answers, _ = await ask_all(changed_config(weights, folder / "cache"), asked, clips, progress=progress)
    return answers


def changed_rates(answers: Sequence[AnsweredItem]) -> list[Rate]:
    """Return the rates of right answers, of all recordings and of some of them, and of refusals."""
    rates = [_right("changed clips, all families", answers, GOAL)]
    for family in FAMILIES:
        # Two no-break spaces indent the name in a Markdown table too.
        rates.append(_right(f"\u00a0\u00a0{family}", [a for a in answers if a.item.family == family]))
    for name, has in _KINDS.items():
        rates.append(_right(f"\u00a0\u00a0{name}", [a for a in answers if has(recording_of(a.item))]))
    refused = sum((a.trace.answer or "").startswith(MESSAGE) for a in answers)
    return [*rates, Rate("changed clips that are refused", refused, len(answers), 0.02, at_most=True)]


_KINDS: dict[str, Callable[[Recording], bool]] = {
    "in bars": lambda r: (r.width, r.height) != (r.side, r.side),
    "boards below 192 pixels": lambda r: r.side < 192,
    "other light": lambda r: (r.contrast, r.brightness) != (1.0, 0.0),
    "blurred": lambda r: r.blur > 0,
    "with noise": lambda r: r.noise > 0,
    "below 24 fps": lambda r: r.fps < 24,
    "H.264": lambda r: r.codec == "h264",
    "MPEG-4": lambda r: r.codec == "mpeg4",
    "VP8 or VP9": lambda r: r.codec in ("vp8", "vp9"),
    "AV1": lambda r: r.codec == "av1",
    "MJPEG": lambda r: r.codec == "mjpeg",
}


def _right(name: str, answers: Sequence[AnsweredItem], goal: float | None = None) -> Rate:
    return Rate(name, sum(a.right for a in answers), len(answers), goal)


def run(n: int = 200, weights: Path | None = None, progress: Callable[[int], None] | None = None) -> Report:
    """Measure answers about `n` recordings.

    Args:
        n: The number of questions.
        weights: The folder of the weights; None for the shipped ones.
        progress: Called with the number of answers.
    """
    with tempfile.TemporaryDirectory() as folder:
        answers = asyncio.run(ask_changed(n, weights, Path(folder), progress=progress))
    return Report(tuple(changed_rates(answers)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="number of questions")
    parser.add_argument("--weights", type=Path, help="folder of the weights; default: the shipped ones")
    chosen = parser.parse_args(arguments)
    print(run(chosen.n, chosen.weights).markdown())


if __name__ == "__main__":
    main()
