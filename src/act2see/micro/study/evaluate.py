"""Measure the micro models on held-out clips, through the real graph: `act2see micro test`.

Every figure has a 95 % Wilson interval and its number of questions. The answers, the called tools, and the
contents of retrieved and generated frames are compared with the world.
"""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
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
from act2see.micro.questions import FAMILIES, Item, Split, ToolCall, make_item
from act2see.micro.recipe.learn_generator import score_edit
from act2see.micro.world import write_clip
from act2see.tools.frames import Generated
from act2see.tools.runtime.intervals import wilson_interval
from act2see.tools.runtime.markdown import markdown_table
from act2see.trace.record import Frames
from act2see.trace.trace import Trace
from act2see.training.concurrency import map_concurrently

if TYPE_CHECKING:
    from rich.table import Table

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
        """Whether the answer is the correct one."""
        return (self.trace.choice or self.trace.answer) == self.item.answer

    @property
    def called(self) -> set[str]:
        """The tags of the trace's calls."""
        return {c.tag for c in self.trace.calls}


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
        result = await graph.ainvoke(question, context=context)
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


def run(n: int = 800, weights: Path | None = None, progress: OnAnswer | None = None) -> Report:
    """Measure all figures.

    Args:
        n: The number of test questions. A quarter as many held-out questions are asked too. The comparisons
            without tools, without SFT and without generation use the relevant test questions.
        weights: The folder of the weights; None for the shipped ones.
        progress: Called after each answer.
    """
    with tempfile.TemporaryDirectory() as temporary:
        return asyncio.run(_run(n, weights, Path(temporary), progress))


async def _run(n: int, weights: Path | None, folder: Path, progress: OnAnswer | None) -> Report:
    clips = folder / "clips"
    config = micro_config(weights, folder / "cache")
    base_config = micro_config(weights, folder / "cache", "base")

    async def ask(
        name: str, items: list[Item], tools: tuple[str, ...] | None = None, config: Config = config
    ) -> tuple[list[AnsweredItem], Parts]:
        def report(done: int) -> None:
            if progress:
                progress(name, done, len(items))

        context = AskContext(tools=tools) if tools is not None else None
        return await ask_all(config, items, clips, context, report)

    items, rare = _draw(n, "test"), _draw(n // 4, "held_out")
    hidden = [item for item in items if item.family == "blink" and not item.in_view]
    unseen = [item for item in items if item.family == "imagine" and not item.in_view]
    full, parts = await ask("both tools", items)
    held_out, _ = await ask("held-out pairs", rare)
    blind, _ = await ask("blink, no tools", hidden, tools=())
    base, _ = await ask("base model", hidden, config=base_config)
    text, _ = await ask("imagine, text only", unseen, tools=("retrieve",))
    return Report((*_answers(full, blind, base, text, held_out), *_decisions(full), *_frames(full, parts)))


def _draw(count: int, split: Split) -> list[Item]:
    return [make_item(FAMILIES[i % 4], i // 4, split) for i in range(count)]


def _rate(name: str, asked: Sequence[AnsweredItem], goal: float | None = None, at_most: bool = False) -> Rate:
    return Rate(name, sum(a.right for a in asked), len(asked), goal, at_most)


def _answers(
    full: list[AnsweredItem],
    blind: list[AnsweredItem],
    base: list[AnsweredItem],
    text: list[AnsweredItem],
    held_out: list[AnsweredItem],
) -> list[Rate]:
    """Return the rates of right answers.

    Args:
        full: Answers to all questions with both tools.
        blind: Answers without tools.
        base: Answers of the base model.
        text: Answers without generation.
        held_out: Answers about held-out pairs.
    """
    asked_as_text = {a.item.seed for a in text}
    rates = [_rate("Act2See (both tools), all families", full, 0.95)]
    for family in FAMILIES:
        # Two no-break spaces indent the name in a Markdown table too.
        rates.append(_rate(f"\u00a0\u00a0{family}", [a for a in full if a.item.family == family]))
    with_frame = [a for a in full if a.item.seed in asked_as_text]
    return [
        *rates,
        _rate("*blink* out of view, without tools (same weights)", blind, 0.35, True),
        _rate("*blink* out of view, base model (before SFT)", base, 0.35, True),
        _rate("*imagine* not in view, text only (same weights)", text),
        _rate("*imagine* not in view, with the generated frame", with_frame),
        _rate("held-out shape-colour pairs", held_out, 0.90),
    ]


def _decisions(full: list[AnsweredItem]) -> list[Rate]:
    """Return the rates of tool decisions, counted over pairs of question and tag."""
    pairs = [(tag in a.item.needed, tag in a.called) for a in full for tag in ("retrieve", "generate")]
    right = sum(needed and called for needed, called in pairs)
    needed = sum(needed for needed, _ in pairs)
    called = sum(called for _, called in pairs)
    return [
        Rate("tool decision: recall (called where needed)", right, needed, 0.98),
        Rate("tool decision: precision (needed where called)", right, called, 0.98),
    ]


def _frames(full: list[AnsweredItem], parts: Parts) -> list[Rate]:
    """Return the rates of returned frames that show the expected board."""
    event: list[bool] = []
    satisfied: list[bool] = []
    kept: list[bool] = []
    for answered in full:
        clip = answered.item.clip
        expected = {s.tag: s.expect for s in answered.item.chain if isinstance(s, ToolCall)}
        for returned in answered.trace.segments:
            if not isinstance(returned, Frames) or not returned.frames or returned.tag not in expected:
                continue
            frame = returned.frames[0]
            if isinstance(frame.provenance, Generated) and clip.edit:
                source = clip.at(frame.provenance.anchor.seconds)
                pixels = parts.resources.store.get(frame.digest)
                is_satisfied, is_kept = score_edit(source, clip.edit, pixels)
                satisfied.append(is_satisfied)
                kept.append(is_kept)
            else:
                event.append(set(clip.at(frame.seconds).pieces) == set(expected[returned.tag].pieces))
    return [
        Rate("retrieved frame shows the event", sum(event), len(event), 0.98),
        Rate("generated frame satisfies its query", sum(satisfied), len(satisfied), 0.90),
        Rate("generated frame leaves the rest as it was", sum(kept), len(kept), 0.90),
    ]
