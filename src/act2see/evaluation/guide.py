"""What a benchmark needs before it can be run: what to download, from where, under which licence, how long.

The facts are in `downloads.yaml`. A time is questions times the seconds that one was measured to take, with
the conditions of that measurement; without one it is unknown. Nothing is estimated otherwise.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

from act2see.tools.frames import Record

UNKNOWN = "unknown"


class Speed(Record):
    """What a question was measured to take."""

    seconds: float
    conditions: str


class Needs(Record):
    """What a benchmark needs."""

    name: str
    about: str
    fetch: str
    """The command, or what to get and where."""
    questions: int | None = None
    approximate: bool = False
    """Whether the number of questions is about right only."""
    licence: str = UNKNOWN
    size: str = UNKNOWN
    asks: int = 1
    """How often the model is asked for each question."""

    def lines(self, speed: Speed | None, preset: str) -> list[str]:
        """Return the lines of a list."""
        count = UNKNOWN if self.questions is None else f"{self.questions:,}"
        return [
            f"{self.name}: {self.about}",
            f"  download:  {self.fetch}",
            f"  questions: {'about ' if self.approximate else ''}{count}",
            f"  licence:   {self.licence}",
            f"  size:      {self.size}",
            f"  time:      {self.describe_time(speed, preset)}",
        ]

    def describe_time(self, speed: Speed | None, preset: str) -> str:
        """Return how long a run takes, at a measured speed."""
        if speed is None or self.questions is None:
            what = "the number of questions" if self.questions is None else f"the speed of {preset}"
            return f"{UNKNOWN} ({what} is not known: a run with --limit 20 measures it)"
        seconds = self.questions * self.asks * speed.seconds
        a_question = f"{speed.seconds:.3g} s a question"
        return f"{preset} {format_hours(seconds)}, at {a_question} ({speed.conditions})"


def format_hours(seconds: float) -> str:
    """Return a long time in hours, and in days beyond two."""
    hours = seconds / 3600
    return f"{hours:.2g} h" if hours < 10 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.1f} days"


def load_guide() -> tuple[list[Needs], dict[str, Speed]]:
    """Return what each benchmark needs, and the measured speed of presets."""
    text = (files("act2see.evaluation") / "downloads.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    needs = [Needs(name=name, **facts) for name, facts in data["benchmarks"].items()]
    return needs, {name: Speed(**facts) for name, facts in data["speeds"].items()}
