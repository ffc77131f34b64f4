"""Measure the micro models on held-out clips, through the real graph: `act2see micro test`.

Every figure comes with a 95 % Wilson interval and its number of questions. What is compared with the world:
the answer, which tools were called, what the retrieved frame shows, what the generated frame shows.
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
from act2see.micro.questions import FAMILIES, Call, Item, Split, make_item
from act2see.micro.recipe.learn_generator import score_edit
from act2see.micro.world import write_clip
from act2see.tools.frames import Generated
from act2see.trace.record import Frames
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from rich.table import Table

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `n`, what it should reach, and whether it does."""

    name: str
    hits: int
    n: int
    goal: float | None = None
    at_most: bool = False

    @property
    def value(self) -> float:
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson score interval."""
        if not self.n:
            return 0.0, 1.0
        z, p, n = 1.96, self.value, self.n
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - half) / (1 + z * z / n)), (middle + half) / (1 + z * z / n)

    @property
    def reached(self) -> bool | None:
        if self.goal is None or not self.n:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def cells(self) -> tuple[str, str, str, str]:
        low, high = self.interval
        goal = "reported" if self.goal is None else f"{'≤' if self.at_most else '≥'} {self.goal:.0%}"
        shown = f"{self.value:.1%} ({low:.1%} to {high:.1%})" if self.n else "-"
        return self.name, goal, shown, str(self.n)


@dataclass(frozen=True, slots=True)
class Report:
    rates: tuple[Rate, ...]

    def table(self) -> Table:
        from rich.table import Table

        table = Table("", "goal", "measured (95 % interval)", "n", "")
        for r in self.rates:
            mark = {None: "", True: "[green]reached[/]", False: "[red]not reached[/]"}[r.reached]
            table.add_row(*r.cells(), mark)
        return table

    def markdown(self) -> str:
        rows = ["| | goal | measured (95 % interval) | n |", "|---|---|---|---|"]
        return "\n".join([*rows, *("| " + " | ".join(r.cells()) + " |" for r in self.rates)]) + "\n"

    def to_json(self) -> str:
        return json.dumps(
            [{**asdict(r), "value": round(r.value, 4) if r.n else None} for r in self.rates], indent=1
        )


@dataclass(frozen=True, slots=True)
class Asked:
    item: Item
    trace: Trace

    @property
    def right(self) -> bool:
        return (self.trace.choice or self.trace.answer) == self.item.answer

    @property
    def called(self) -> set[str]:
        return {c.tag for c in self.trace.calls}


def micro_config(weights: Path | None, cache: Path, vlm: str = "vlm") -> Config:
    """The micro preset with a cache of its own, on the shipped weights or on those in a folder."""

    def place(part: str) -> str:
        return str(weights / part) if weights else f"micro:{part}"

    return load_config(
        "micro",
        cache=str(cache),
        reasoner={"weights": place(vlm)},
        encoder={"weights": place("encoder")},
        tools={"generate": {"options": {"weights": place("generator")}}},
        view={"guard": None},
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Threads that begin in here compute alone: models of this size lose more by waiting for one another's
    part of a product."""
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
    at_once: int = 32,
    wrap: Callable[[Reasoner], Reasoner] | None = None,
) -> tuple[list[Asked], Parts]:
    """Ask every item, several at once on one model; `wrap` puts another reasoner around it."""
    made = build_parts(config)
    parts = replace(made, reasoner=wrap(made.reasoner)) if wrap else made
    graph = create_act2see(config, parts=parts)
    gate = asyncio.Semaphore(at_once)
    done = 0

    async def one(item: Item) -> Asked:
        nonlocal done
        async with gate:
            clip = folder / f"{item.seed}.mp4"
            if not clip.exists():
                await asyncio.to_thread(write_clip, item.clip, clip)
            given: Any = {"video": str(clip), "question": item.text, "options": list(item.options)}
            result = await graph.ainvoke(given, context=context)
            done += 1
            if progress:
                progress(done)
            return Asked(item, Trace.model_validate(result["trace"]))

    try:
        with one_thread():
            return list(await asyncio.gather(*(one(i) for i in items))), parts
    finally:
        await asyncio.to_thread(made.reasoner.close)


def run(n: int = 800, weights: Path | None = None, progress: Progress | None = None) -> Report:
    """The whole table on `n` test questions, a quarter as many held-out ones, and the ablations on theirs."""
    with tempfile.TemporaryDirectory() as temporary:
        return asyncio.run(_run(n, weights, Path(temporary), progress))


async def _run(n: int, weights: Path | None, folder: Path, progress: Progress | None) -> Report:
    def watch(name: str, of: int) -> Callable[[int], None]:
        return lambda done: progress(name, done, of) if progress else None

    def draw(count: int, split: Split) -> list[Item]:
        return [make_item(FAMILIES[i % 4], i // 4, split) for i in range(count)]

    clips = folder / "clips"
    config = micro_config(weights, folder / "cache")
    items, rare = draw(n, "test"), draw(n // 4, "held_out")
    full, parts = await ask_all(config, items, clips, progress=watch("both tools", n))
    held, _ = await ask_all(config, rare, clips, progress=watch("held-out pairs", len(rare)))
    hidden = [i for i in items if i.family == "blink" and not i.in_view]
    unseen = [i for i in items if i.family == "imagine" and not i.in_view]
    blind, _ = await ask_all(
        config, hidden, clips, AskContext(tools=()), watch("blink, no tools", len(hidden))
    )
    base, _ = await ask_all(
        micro_config(weights, folder / "cache", "base"),
        hidden,
        clips,
        progress=watch("base model", len(hidden)),
    )
    text, _ = await ask_all(
        config, unseen, clips, AskContext(tools=("retrieve",)), watch("imagine, text only", len(unseen))
    )
    return Report((*_answers(full, blind, base, text, held), *_decisions(full), *_frames(full, parts)))


def _rate(name: str, asked: Sequence[Asked], goal: float | None = None, at_most: bool = False) -> Rate:
    return Rate(name, sum(a.right for a in asked), len(asked), goal, at_most)


def _answers(
    full: list[Asked], blind: list[Asked], base: list[Asked], text: list[Asked], held: list[Asked]
) -> list[Rate]:
    ids = {a.item.seed for a in text}
    rates = [_rate("Act2See (both tools), all families", full, 0.95)]
    rates += [
        _rate(f"&nbsp;&nbsp;{f}".replace("&nbsp;", "\u00a0"), [a for a in full if a.item.family == f])
        for f in FAMILIES
    ]
    return [
        *rates,
        _rate("*blink* out of view, without tools (same weights)", blind, 0.35, True),
        _rate("*blink* out of view, base model (before SFT)", base, 0.35, True),
        _rate("*imagine* not in view, text only (same weights)", text),
        _rate("*imagine* not in view, with the generated frame", [a for a in full if a.item.seed in ids]),
        _rate("held-out shape-colour pairs", held, 0.90),
    ]


def _decisions(full: list[Asked]) -> list[Rate]:
    """Tool decisions, counted over (question, tag) pairs."""
    pairs = [(tag in a.item.needed, tag in a.called) for a in full for tag in ("retrieve", "generate")]
    right = sum(needed and called for needed, called in pairs)
    return [
        Rate("tool decision: recall (called where needed)", right, sum(needed for needed, _ in pairs), 0.98),
        Rate(
            "tool decision: precision (needed where called)", right, sum(called for _, called in pairs), 0.98
        ),
    ]


def _frames(full: list[Asked], parts: Parts) -> list[Rate]:
    """What the tools returned, against the world."""
    event: list[bool] = []
    satisfied: list[bool] = []
    kept: list[bool] = []
    for a in full:
        expected = {s.tag: s.expect for s in a.item.chain if isinstance(s, Call)}
        for frames in (s for s in a.trace.segments if isinstance(s, Frames) and s.frames):
            frame = frames.frames[0]
            if isinstance(frame.provenance, Generated) and a.item.clip.edit and frames.tag in expected:
                source = a.item.clip.at(frame.provenance.anchor.seconds)
                s, k = score_edit(source, a.item.clip.edit, parts.resources.store.get(frame.digest))
                satisfied.append(s)
                kept.append(k)
            elif frames.tag in expected:
                event.append(set(a.item.clip.at(frame.seconds).pieces) == set(expected[frames.tag].pieces))
    return [
        Rate("retrieved frame shows the event", sum(event), len(event), 0.98),
        Rate("generated frame satisfies its query", sum(satisfied), len(satisfied), 0.90),
        Rate("generated frame leaves the rest as it was", sum(kept), len(kept), 0.90),
    ]
