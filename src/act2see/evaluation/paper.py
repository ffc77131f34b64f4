"""The paper's figures, to stand beside a run of the same benchmark.

They are of other models on the authors' machines: compare the order and the distance, not the size. Table 1
of the paper is the prompt, and has no figures.
"""

from __future__ import annotations

from dataclasses import dataclass

_PAPER = "CVPR 2026 paper,"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the paper."""

    who: str
    accuracy: float
    """In percent."""
    source: str


_BENCHMARKS = ("video-mme", "video-espresso", "egonormia", "vcr-bench", "vitib")
_MAIN: dict[str, tuple[float | None, ...]] = {
    "GPT-4o": (71.9, 26.4, 45.5, 46.9, None),
    "Gemini 2.5 Pro": (84.3, None, 64.7, 61.3, 53.9),
    "Qwen2.5-VL-7B": (65.1, 35.5, None, 30.4, 49.8),
    "InternVL2.5-8B": (64.2, 28.7, 13.0, 33.0, 56.8),
    "Qwen3-VL-8B-Thinking, the base": (71.8, 41.5, 48.9, 38.2, 60.2),
    "Act2See": (74.2, 46.8, 51.3, 47.1, 63.3),
}
_INTERLEAVED = {"Video-R1": 61.4, "FrameMind": 60.9, "Chain-of-Shot": 64.4, "Chain-of-Frames": 75.3}


def list_figures(benchmark: str) -> list[Figure]:
    """Return the paper's figures for a benchmark; none if it is not one of the paper's."""
    if benchmark not in _BENCHMARKS:
        return []
    place = _BENCHMARKS.index(benchmark)
    figures = []
    for who, values in _MAIN.items():
        if (value := values[place]) is not None:
            figures.append(Figure(who, value, f"{_PAPER} main results"))
    if benchmark == "video-mme":
        figures += [Figure(who, value, f"{_PAPER} Table 3") for who, value in _INTERLEAVED.items()]
    return figures
