"""Measure the micro models on held-out clips, in the world's words and in strangers': `act2see micro test`.

The answers, the called tools, and the contents of retrieved and generated frames are compared with the world.
`changed` measures the same on clips as people have them.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from act2see.graphs.config import Config
from act2see.graphs.parts import Parts
from act2see.graphs.state import AskContext
from act2see.micro.questions import EVERYDAY, FAMILIES, Family, Item, Split, ToolCall, make_item
from act2see.micro.recipe.learn_generator import score_edit
from act2see.micro.study.evaluate import AnsweredItem, OnAnswer, Rate, Report, ask_all, micro_config
from act2see.micro.study.strangers import strange_questions, strange_refusals, strange_threads
from act2see.tools.frames import Generated
from act2see.trace.record import Frames

_MEASURED: tuple[Family, ...] = tuple(family for family in EVERYDAY if family != "beyond")
_GOALS: dict[str, float] = {"when": 0.95, "count": 0.95, "exists": 0.95, "first": 0.95, "two": 0.95}


def run(n: int = 800, weights: Path | None = None, progress: OnAnswer | None = None) -> Report:
    """Measure all figures.

    Args:
        n: The number of questions of the paper's families, of the everyday families, and of strangers'
            questions. Half as many strangers' refusals are asked, and questions later in a thread, and a
            quarter as many questions about held-out pairs. The comparisons without tools, without SFT and
            without generation use the relevant questions.
        weights: The folder of the weights; None for the shipped ones.
        progress: Called after each answer.
    """
    with tempfile.TemporaryDirectory() as temporary:
        return asyncio.run(_Test(n, weights, Path(temporary), progress).run())


@dataclass(slots=True)
class _Test:
    n: int
    weights: Path | None
    folder: Path
    progress: OnAnswer | None

    async def run(self) -> Report:
        items, rare = _draw(self.n, "test"), _draw(self.n // 4, "held_out")
        everyday = [
            make_item(_MEASURED[i % len(_MEASURED)], i // len(_MEASURED), "test") for i in range(self.n)
        ]
        hidden = [item for item in items if item.family == "blink" and not item.in_view]
        unseen = [item for item in items if item.family == "imagine" and not item.in_view]
        full, parts = await self.ask("both tools", items)
        daily, _ = await self.ask("everyday", everyday)
        strange, _ = await self.ask("strangers' words", strange_questions(self.n))
        beyond, _ = await self.ask("beyond the board", strange_refusals(self.n // 2))
        later, _ = await self.ask("later in a thread", strange_threads(self.n // 2))
        held_out, _ = await self.ask("held-out pairs", rare)
        blind, _ = await self.ask("blink, no tools", hidden, tools=())
        base, _ = await self.ask("base model", hidden, vlm="base")
        text, _ = await self.ask("imagine, text only", unseen, tools=("retrieve",))
        return Report(
            (
                *_answers(full, blind, base, text, held_out),
                *_everyday(daily),
                *_strangers(strange, later, beyond),
                *_decisions([*full, *daily]),
                *_frames(full, parts),
            )
        )

    async def ask(
        self, name: str, items: list[Item], tools: tuple[str, ...] | None = None, vlm: str = "vlm"
    ) -> tuple[list[AnsweredItem], Parts]:
        """Ask questions under the name of their figure."""

        def report(done: int) -> None:
            if self.progress:
                self.progress(name, done, len(items))

        context = AskContext(tools=tools) if tools is not None else None
        config: Config = micro_config(self.weights, self.folder / "cache", vlm)
        return await ask_all(config, items, self.folder / "clips", context, report)


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
    rates = [_rate("Act2See (both tools), all families", full, 0.97)]
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


def _everyday(daily: list[AnsweredItem]) -> list[Rate]:
    """Return the rates of the everyday families."""
    rates = [_rate("everyday questions, all families", daily)]
    for family in _MEASURED:
        of_family = [a for a in daily if a.item.family == family]
        rates.append(_rate(f"\u00a0\u00a0{family}", of_family, _GOALS.get(family)))
    return rates


def _strangers(
    strange: list[AnsweredItem], later: list[AnsweredItem], beyond: list[AnsweredItem]
) -> list[Rate]:
    """Return the rates in strangers' words; `later` are questions after others in a thread."""
    declined = sum(a.declined for a in beyond)
    wrongly = sum(a.declined for a in strange)
    return [
        _rate("strangers' wordings", strange, 0.93),
        _rate("\u00a0\u00a0after one to three questions, some declined", later),
        Rate("beyond the board: declined", declined, len(beyond), 0.95),
        Rate("questions about the board: declined", wrongly, len(strange), 0.01, at_most=True),
    ]


def _decisions(full: list[AnsweredItem]) -> list[Rate]:
    """Return the rates of tool decisions, counted over pairs of question and tag."""
    pairs = [(tag in a.item.needed, tag in a.called) for a in full for tag in ("retrieve", "generate")]
    right = sum(needed and called for needed, called in pairs)
    needed = sum(needed for needed, _ in pairs)
    called = sum(called for _, called in pairs)
    return [
        Rate("tool decision: recall (called where needed)", right, needed, 0.99),
        Rate("tool decision: precision (needed where called)", right, called, 0.99),
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
