"""A scripted teacher for the board world that replaces a large model and makes faults at given rates.

It writes an item's reference chain with faults. An ablation with it shows the effect of these faults on a
student, but not how often a real teacher makes them.

- *error*: the chain concludes a wrong answer.
- *drift*: prose that fits any clip replaces the descriptions.
- *overcall*: the chain retrieves a frame that it does not need, and does not mention it.
- *trust*: the chain calls no tool because the prompt contains the right answer.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.micro.questions import TAGS, Item, Step, ToolCall, item_of
from act2see.micro.recipe.corpus import next_text, tools_line, with_lines
from act2see.training.corpus.construct import HINT

_PROSE = (
    "Let me think about this carefully. ",
    "The clip shows several things that may or may not matter here. ",
    "It is hard to say, but one can form a good impression. ",
    "Taking everything together, the matter seems clear enough. ",
    "I have considered the other possibilities and find them less likely. ",
)
_HINTED = HINT.split("{", maxsplit=1)[0]


@dataclass(frozen=True, slots=True)
class Faults:
    """Rates of faults, each from 0 to 1."""

    error: float = 0.15
    drift: float = 0.2
    overcall: float = 0.2
    trust: float = 0.9


@dataclass(slots=True)
class ScriptedTeacher(Reasoner):
    """A reasoner that answers samples of `load_world`.

    Its sessions are named `world-SEED.ATTEMPT`. Each attempt draws its own faults.
    """

    faults: Faults = Faults()
    seed: int = 0
    name: str = field(init=False)

    def __post_init__(self) -> None:
        f = self.faults
        rates = f"error {f.error:g}, drift {f.drift:g}, overcall {f.overcall:g}, trust {f.trust:g}"
        self.name = f"scripted ({rates}; seed {self.seed})"

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        prompt = str(request.rollout)
        item = self.draw_faults(request.rollout.session, hinted=_HINTED in prompt)
        text = next_text(item, prompt.count("</frame>"))
        request.until(text)
        yield Delta(text)
        yield Done(StopReason.UNTIL, prefilled=len(prompt.split()), decoded=len(text.split()))

    def draw_faults(self, session: str, hinted: bool = False) -> Item:
        """Return the item of a session with the faults of this attempt. With a hint, its answer is right."""
        seed = int(session.removeprefix("world-").partition(".")[0])
        item = with_lines(item_of(seed))
        rng, faults = random.Random(f"{self.seed}/{session}"), self.faults
        errs = rng.random() < faults.error
        drifts = rng.random() < faults.drift
        overcalls = rng.random() < faults.overcall
        trusts = rng.random() < faults.trust
        chain: list[Step] = list(item.chain)
        if overcalls and not item.needed:
            chain += [tools_line(TAGS), ToolCall("retrieve", "another look", item.clip.board(0))]
        if drifts:
            calls = [step for step in chain if isinstance(step, ToolCall)]
            chain = []
            for call in calls:
                chain += [_prose(rng), call]
            chain.append(_prose(rng))
        if hinted and trusts:
            chain = [step for step in chain[:1] if isinstance(step, str)] or [_prose(rng)]
        item = replace(item, chain=tuple(chain))
        if errs and not hinted and item.options:
            answer = rng.choice([option for option in item.options if option != item.given])
            return replace(item, answer=answer, named="")
        return item


def _prose(rng: random.Random) -> str:
    return "".join(rng.sample(_PROSE, 3))
