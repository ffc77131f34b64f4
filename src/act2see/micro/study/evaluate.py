"""Ask questions of the board world through the real graph, and report rates.

Every rate has a 95 % Wilson interval and its number of questions.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act2see.agent.reasoners.base import Reasoner
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.state import AskContext
from act2see.micro.drafts import REFUSAL
from act2see.micro.questions import FAMILIES, Item
from act2see.micro.world import write_clip
from act2see.tools.runtime.intervals import wilson_interval
from act2see.tools.runtime.markdown import markdown_table
from act2see.trace.trace import Trace
from act2see.training.concurrency import map_concurrently

if TYPE_CHECKING:
    from rich.table import Table

_TIME = re.compile(r"\d+(?:\.\d+)?")
OnAnswer = Callable[[str, int, int], None]
"""A function that is called with the name of a figure, the number of answers so far, and the number of
questions."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A figure: `hits` out of `n`."""

    name: str
    hits: int
    n: int
    goal: float | None = None
    """The value to reach; None for a figure that is only reported."""
    at_most: bool = False
    """Whether the value must not exceed the goal."""

    @property
    def value(self) -> float:
        """The share of hits; NaN if `n` is 0."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval."""
        return wilson_interval(self.value, self.n)

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal or without questions."""
        if self.goal is None or not self.n:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def cells(self) -> tuple[str, str, str, str]:
        """Return the cells of a table: the name, the goal, the value with its interval, and `n`."""
        goal = "reported"
        shown = "-"
        if self.goal is not None:
            goal = f"{'≤' if self.at_most else '≥'} {self.goal:.0%}"
        if self.n:
            low, high = self.interval
            shown = f"{self.value:.1%} ({low:.1%} to {high:.1%})"
        return self.name, goal, shown, str(self.n)


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of a test."""

    rates: tuple[Rate, ...]

    def table(self) -> Table:
        """Return the figures as a table for the terminal."""
        from rich.table import Table

        table = Table("", "goal", "measured (95 % interval)", "n", "")
        marks = {None: "", True: "[green]reached[/]", False: "[red]not reached[/]"}
        for rate in self.rates:
            table.add_row(*rate.cells(), marks[rate.reached])
        return table

    def markdown(self) -> str:
        """Return the figures as a Markdown table."""
        head = ("", "goal", "measured (95 % interval)", "n")
        return markdown_table(head, [rate.cells() for rate in self.rates])

    def to_json(self) -> str:
        """Return the figures as JSON."""
        rates = []
        for rate in self.rates:
            value = round(rate.value, 4) if rate.n else None
            rates.append({**asdict(rate), "value": value})
        return json.dumps(rates, indent=1)


@dataclass(frozen=True, slots=True)
class AnsweredItem:
    """A question of the board world, and the trace of its answer."""

    item: Item
    trace: Trace

    @property
    def right(self) -> bool:
        """Whether the answer is the correct one. A time is right within a third of a second."""
        given = self.trace.choice or self.trace.answer or ""
        if self.item.family == "when" and self.item.answer.startswith("at "):
            return equal_times(given, self.item.answer)
        return given == self.item.given

    @property
    def declined(self) -> bool:
        """Whether the question was said to be beyond the board."""
        return self.trace.answer == REFUSAL

    @property
    def called(self) -> set[str]:
        """The tags of the trace's calls."""
        return {c.tag for c in self.trace.calls}


def equal_times(given: str, wanted: str) -> bool:
    """Return whether two answers name as many times, each within a third of a second of its counterpart."""
    times = [float(t) for t in _TIME.findall(given)]
    right = [float(t) for t in _TIME.findall(wanted)]
    return len(times) == len(right) and all(abs(a - b) < 0.35 for a, b in zip(times, right, strict=True))


def micro_config(weights: Path | None, cache: Path, vlm: str = "vlm") -> Config:
    """Return the micro preset with its own cache.

    Args:
        weights: The folder of the weights; None for the shipped ones.
        cache: The folder of the cache.
        vlm: The VLM, "vlm" or "base".
    """

    def find_weights(part: str) -> str:
        return str(weights / part) if weights else f"micro:{part}"

    return load_config(
        "micro",
        cache=str(cache),
        reasoner={"weights": find_weights(vlm)},
        encoder={"weights": find_weights("encoder")},
        tools={"generate": {"options": {"weights": find_weights("generator")}}},
        view={"guard": None},
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread for each operation inside this block.

    With models of this size, threads that share a product lose more time waiting for each other than they
    save.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


async def ask_all(
    config: Config,
    items: Sequence[Item],
    folder: Path,
    context: AskContext | None = None,
    progress: Callable[[int], None] | None = None,
    concurrency: int = 32,
    wrap: Callable[[Reasoner], Reasoner] | None = None,
) -> tuple[list[AnsweredItem], Parts]:
    """Ask the questions of all items, several at once on one model.

    Args:
        config: The configuration of the graph.
        items: The questions.
        folder: The folder of their clips; existing clips are not written again.
        context: The context of each run.
        progress: Called with the number of answers.
        concurrency: The number of questions asked at once.
        wrap: Wraps the config's reasoner in another one.

    Returns:
        The answers in the order of the items, and the parts of the graph.
    """
    built = build_parts(config)
    parts = replace(built, reasoner=wrap(built.reasoner)) if wrap else built
    graph = create_act2see(config, parts=parts)
    done = 0

    async def answer(item: Item) -> AnsweredItem:
        nonlocal done
        clip = folder / f"{item.seed}.mp4"
        if not clip.exists():
            await asyncio.to_thread(write_clip, item.clip, clip)
        question: Any = {"video": str(clip), "question": item.text, "options": list(item.options)}
        asked = replace(context or AskContext(), earlier=item.earlier)
        result = await graph.ainvoke(question, context=asked)
        done += 1
        if progress:
            progress(done)
        return AnsweredItem(item, Trace.model_validate(result["trace"]))

    try:
        with one_thread():
            return await map_concurrently(answer, items, concurrency), parts
    finally:
        await asyncio.to_thread(built.reasoner.close)


def count_answers(answers: Sequence[AnsweredItem]) -> dict[str, Any]:
    """Return the counts from which the report computes rates."""
    families = {}
    for family in FAMILIES:
        of_family = [a for a in answers if a.item.family == family]
        families[family] = [sum(a.right for a in of_family), len(of_family)]
    needed = 0
    called = 0
    for answered in answers:
        tags = set(answered.item.needed)
        needed += len(tags)
        called += len(tags & answered.called)
    return {
        "asked": len(answers),
        "right": sum(a.right for a in answers),
        "families": families,
        "calls": sum(len(a.trace.calls) for a in answers),
        "needed": needed,
        "needed and called": called,
        "tokens": sum(a.trace.usage.tokens for a in answers),
    }
