"""Questions about board clips, with the chain of thought of a careful person.

A question belongs to one of four families (`families`). A chain is a list of steps: text, and tool calls with
their queries. The text after a call describes the frame that the tool should return; the corpus drops chains
whose tool returned another one. Chains name every piece of every frame: without this dense supervision the
micro VLM learns slowly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from act2see.micro.families import MAKERS
from act2see.micro.words import Step as Step, ToolCall as ToolCall, closing
from act2see.micro.world import FPS, Clip

Family = Literal["observe", "blink", "imagine", "both"]
Split = Literal["train", "validation", "test", "held_out"]
FAMILIES: tuple[Family, ...] = ("observe", "blink", "imagine", "both")
LETTERS = "ABCDEFGH"
TAGS = ("retrieve", "generate")
_FIRST_SEED: dict[Split, int] = {
    "train": 0,
    "validation": 10_000_000,
    "test": 20_000_000,
    "held_out": 30_000_000,
}


@dataclass(frozen=True, slots=True)
class Item:
    """A clip, a question about it, and the reference chain."""

    family: Family
    kind: str
    seed: int
    clip: Clip
    text: str
    options: tuple[str, ...]
    answer: str
    chain: tuple[Step, ...]
    in_view: bool
    """Whether the initial frames hold what the question asks for (for *both*: the blink)."""
    lead: str
    """The beginning of the conclusion."""

    @property
    def needed(self) -> tuple[str, ...]:
        """The tags that the reference chain calls, in order."""
        return tuple(s.tag for s in self.chain if isinstance(s, ToolCall))

    @property
    def correct(self) -> str:
        """The letter of the correct option or, without options, the answer itself."""
        return LETTERS[self.options.index(self.answer)] if self.options else self.answer

    def closing(self) -> str:
        """Return the end of the chain: the conclusion and the answer."""
        return closing(self.lead, self.answer)


def make_item(
    family: Family,
    index: int,
    split: Split = "train",
    options: bool | None = None,
    seconds: int | None = None,
) -> Item:
    """Make an item; the same arguments always make the same item.

    Args:
        family: Family of the question.
        index: Number of the item in its family and split.
        split: The split; only "held_out" shows the pairs of `HELD_OUT`.
        options: Whether it has four options or none. Default: four; none in a fifth of the training split.
        seconds: Length of the clip in seconds. Default: a random one from 6 to 10.
    """
    seed = _FIRST_SEED[split] + index * 4 + FAMILIES.index(family)
    rng = random.Random(seed)
    frames = FPS * (seconds or rng.randint(6, 10))
    draft = MAKERS[family](rng, frames, split == "held_out")
    if options is None:
        options = split != "train" or rng.random() < 0.8
    wording = draft.wording
    return Item(
        family,
        wording.kind,
        seed,
        draft.clip,
        wording.text,
        wording.options if options else (),
        wording.answer,
        draft.chain,
        draft.in_view,
        wording.lead,
    )


def item_of(seed: int) -> Item:
    """Return the item with this seed, from any split."""
    splits = {first: split for split, first in _FIRST_SEED.items() if first <= seed}
    first = max(splits)
    return make_item(FAMILIES[seed % 4], (seed - first) // 4, splits[first])


def items(n: int, split: Split, families: tuple[Family, ...] = FAMILIES) -> Iterator[Item]:
    """Yield `n` items of a split, from the families in turn."""
    for i in range(n):
        yield make_item(families[i % len(families)], i // len(families), split)


def draw_tags(rng: random.Random) -> tuple[str, ...]:
    """Draw the tools of a chain: both, one or none, so that a model must read which it has."""
    return rng.choice((TAGS, TAGS, TAGS, TAGS[:1], TAGS[1:], ()))


def sentences() -> Iterator[str]:
    """Yield sentences of the world for training tokenizers: 600 items, and phrases that occur elsewhere."""
    for i in range(600):
        item = make_item(FAMILIES[i % 4], i)
        yield item.text
        yield "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, item.options, strict=False))
        for step in item.chain:
            yield step if isinstance(step, str) else f"<{step.tag}>{step.query}</{step.tag}>"
        yield item.closing()
        yield (
            "<frame><3.7 seconds></frame><frame><imagined></frame>\nTools: retrieve, generate.\nTools: none."
        )
        yield "I cannot look again. I cannot imagine it. My guess is left. At top left is the circle."
