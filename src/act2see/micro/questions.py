"""Questions about board clips, with the chain of thought of a careful person.

A question belongs to a family: one of the paper's four (`families`), or one of the everyday ones (`plain`,
`happenings`, `premises`, `tippings`, `orders`, `relations`, `eithers`, `wholes`).

A chain is a list of steps: text, and tool calls with their queries. It begins with the question in the
world's own words, whatever words it was put in (`kinds`, `wordings`). The text after a call describes the
frame that the tool should return; the corpus drops chains whose tool returned another one.
Chains name every piece of every frame: without this dense supervision the micro VLM learns slowly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from act2see.micro.drafts import Draft
from act2see.micro.eithers import draw_either
from act2see.micro.families import MAKERS
from act2see.micro.happenings import (
    draw_changes,
    draw_count,
    draw_describe,
    draw_exists,
    draw_first,
    draw_two,
    draw_when,
)
from act2see.micro.kinds import Asked
from act2see.micro.looks import calls_of
from act2see.micro.orders import draw_order
from act2see.micro.plain import draw_plain
from act2see.micro.premises import draw_beyond, draw_false
from act2see.micro.relations import draw_relation
from act2see.micro.tippings import draw_again
from act2see.micro.wholes import draw_whole
from act2see.micro.words import Seen as Seen, Step as Step, ToolCall as ToolCall, closing, describe_seen
from act2see.micro.world import FPS, Clip

Family = Literal[
    "observe",
    "blink",
    "imagine",
    "both",
    "plain",
    "when",
    "count",
    "exists",
    "first",
    "two",
    "changes",
    "describe",
    "false",
    "beyond",
    "again",
    "order",
    "relation",
    "whole",
    "either",
]
Split = Literal["train", "validation", "test", "held_out"]
FAMILIES: tuple[Family, ...] = ("observe", "blink", "imagine", "both")
"""The families with which the paper's claims are measured."""
EVERYDAY: tuple[Family, ...] = (
    "plain",
    "when",
    "count",
    "exists",
    "first",
    "two",
    "changes",
    "describe",
    "false",
    "beyond",
    "again",
    "order",
    "relation",
    "whole",
    "either",
)
"""The families of everyday questions."""
LETTERS = "ABCDEFGH"
TAGS = ("retrieve", "generate")
_OTHER_TAGS = (
    "zoom",
    "clip",
    "ocr",
    "middle",
    "crop",
    "search",
    "track",
    "map",
    "note",
    "audio",
    "detect",
    "count",
)
"""Tags of tools that somebody might add."""
_OTHER_TOOLS = 0.2  # share of the chains that have such tools
_FIRST_SEED: dict[Split, int] = {
    "train": 0,
    "validation": 10_000_000,
    "test": 20_000_000,
    "held_out": 30_000_000,
}
_EVERYDAY_SEED = 1_000_000_000
"""The first seed of the everyday families, beyond all seeds of the others."""
_EVERYDAY_STEP = 16
"""The distance between the seeds of a family's items; at least the number of everyday families."""
_EVERYDAY_MAKERS: dict[Family, Callable[[random.Random, int, bool], Draft]] = {
    "plain": draw_plain,
    "when": draw_when,
    "count": draw_count,
    "exists": draw_exists,
    "first": draw_first,
    "two": draw_two,
    "changes": draw_changes,
    "describe": draw_describe,
    "false": draw_false,
    "beyond": draw_beyond,
    "again": draw_again,
    "order": draw_order,
    "relation": draw_relation,
    "whole": draw_whole,
    "either": draw_either,
}


@dataclass(frozen=True, slots=True)
class Item:
    """A clip, a question about it, and the reference chain."""

    family: Family
    kind: str
    seed: int
    clip: Clip
    asked: Asked
    """What the question asks. Its text is the question in the world's own words."""
    text: str
    """The question as it is put to a model: the world's own words, or other people's."""
    options: tuple[str, ...]
    answer: str
    chain: tuple[Step, ...]
    """The reference chain. It begins with the question in the world's own words."""
    in_view: bool
    """Whether the initial frames hold what the question asks for (for *both*: the blink)."""
    lead: str
    """The beginning of the conclusion; empty if the answer is a sentence."""
    earlier: tuple[tuple[str, str], ...] = ()
    """Earlier questions of the conversation with their answers."""
    named: str = ""
    """The answer as the options name it, if they use other words than the world."""

    @property
    def needed(self) -> tuple[str, ...]:
        """The tags that the reference chain calls, in order."""
        return tuple(s.tag for s in self.chain if isinstance(s, ToolCall))

    @property
    def given(self) -> str:
        """The answer as a person would give it, who takes one of the options if there are any."""
        return self.named or self.answer

    @property
    def correct(self) -> str:
        """The letter of the correct option or, without options, the answer itself."""
        return LETTERS[self.options.index(self.given)] if self.options else self.answer

    def closing(self) -> str:
        """Return the end of the chain: the conclusion and the answer."""
        return closing(self.lead, self.answer, self.named)

    def texts(self) -> list[str]:
        """Return the texts of the reference chain, with the descriptions of its retrieved frames."""
        texts = []
        call: ToolCall | None = None
        for step in self.chain:
            if isinstance(step, ToolCall):
                call = step
            elif isinstance(step, Seen):
                assert call is not None, "a chain describes a frame after it retrieved it"
                texts.append(describe_seen(call.at, call.expect))
            else:
                texts.append(step)
        return texts


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
        options: Whether it has options or none. Default: it has, if its kind can have options; none in a
            fifth of the training split.
        seconds: Length of the clip in seconds. Default: a random one from 6 to 10.
    """
    seed = _seed_of(family, index, split)
    rng = random.Random(seed)
    frames = FPS * (seconds or rng.randint(6, 10))
    maker = MAKERS[family] if family in FAMILIES else _EVERYDAY_MAKERS[family]
    draft = maker(rng, frames, split == "held_out")
    if options is None:
        options = split != "train" or rng.random() < 0.8
    wording = draft.wording
    return Item(
        family,
        wording.kind,
        seed,
        draft.clip,
        wording.asked,
        wording.asked.text,
        wording.options if options else (),
        wording.answer,
        _with_head(wording.asked.text, draft.chain),
        draft.in_view,
        wording.lead,
    )


def _with_head(text: str, chain: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return a chain that begins with the question in the world's own words."""
    if not chain:
        return (text,)
    first, *rest = chain
    assert isinstance(first, str), "a chain begins with what the view shows"
    return (f"{text} {first}", *rest)


def _seed_of(family: Family, index: int, split: Split) -> int:
    if family in FAMILIES:
        return _FIRST_SEED[split] + index * len(FAMILIES) + FAMILIES.index(family)
    first = _EVERYDAY_SEED + _FIRST_SEED[split] * _EVERYDAY_STEP
    return first + index * _EVERYDAY_STEP + EVERYDAY.index(family)


def item_of(seed: int) -> Item:
    """Return the item with this seed, from any split."""
    families, step = FAMILIES, len(FAMILIES)
    number = seed
    if seed >= _EVERYDAY_SEED:
        families, step = EVERYDAY, _EVERYDAY_STEP
        number -= _EVERYDAY_SEED
    scale = step // len(FAMILIES) if seed < _EVERYDAY_SEED else step
    firsts = {first * scale: split for split, first in _FIRST_SEED.items() if first * scale <= number}
    first = max(firsts)
    index, place = divmod(number - first, step)
    return make_item(families[place], index, firsts[first])


def items(n: int, split: Split, families: tuple[Family, ...] = FAMILIES) -> Iterator[Item]:
    """Yield `n` items of a split, from the families in turn."""
    for i in range(n):
        yield make_item(families[i % len(families)], i // len(families), split)


def draw_tags(rng: random.Random) -> tuple[str, ...]:
    """Draw the tools of a chain: both, one or none, so that a model must read which it has.

    A fifth of the chains have other tools, too, which the world has no use for.
    """
    tags = rng.choice((TAGS, TAGS, TAGS, TAGS[:1], TAGS[1:], ()))
    if rng.random() < _OTHER_TOOLS:
        others = tuple(rng.sample(_OTHER_TAGS, rng.choice((1, 1, 2, 3))))
        return rng.choice(((*tags, *others), (*tags, *others), (*others, *tags)))
    return tags


def sentences() -> Iterator[str]:
    """Yield sentences of the world for training tokenizers: 1,200 items, and phrases that occur elsewhere."""
    families = (*FAMILIES, *EVERYDAY)
    for i in range(1200):
        item = make_item(families[i % len(families)], i)
        yield item.asked.text
        yield "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, item.options, strict=False))
        yield from item.texts()
        for call in calls_of(item.chain):
            yield f"<{call.tag}>{call.query}</{call.tag}>"
        yield item.closing()
        yield (
            "<frame><3.7 seconds></frame><frame><imagined></frame>\nTools: retrieve, generate.\nTools: none."
        )
        yield "I cannot look again. I cannot imagine it. My guess is left. At top left is the circle."
        yield "I cannot tell without another look.\nEarlier: What colour is the ring? red"
