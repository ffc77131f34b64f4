"""A scripted teacher for the board world, with stated faults: it stands where a large model stands elsewhere.

It writes an item's reference chain, and errs, drifts and over-calls at rates that are options. What an
ablation with it shows is what these faults do to a student; how often a real teacher has them it cannot show.

- *error*: the chain concludes a wrong answer.
- *drift*: nothing is described; prose that would suit any clip stands in place of what was seen.
- *overcall*: a frame is retrieved that is not needed, and nothing is said of it.
- *trust*: where the right answer stands in the prompt, how often the frames are not looked for.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

from act2see.agent.grammar import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.micro.questions import TAGS, Call, Item, Step, item_of
from act2see.micro.recipe.corpus import continued, tools_line, with_lines
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
    """Rates, each from 0 to 1."""

    error: float = 0.15
    drift: float = 0.2
    overcall: float = 0.2
    trust: float = 0.9


@dataclass(slots=True)
class ScriptedTeacher(Reasoner):
    """A reasoner for samples of `load_world`, whose sessions are `world-SEED.ATTEMPT`; each attempt draws its
    own faults."""

    faults: Faults = Faults()
    seed: int = 0
    name: str = field(init=False)

    def __post_init__(self) -> None:
        f = self.faults
        self.name = f"scripted (error {f.error:g}, drift {f.drift:g}, overcall {f.overcall:g}, trust {f.trust:g}; seed {self.seed})"

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        said = str(request.rollout)
        item = self.faulty(request.rollout.session, hinted=_HINTED in said)
        text = continued(item, said.count("</frame>"))
        request.until(text)
        yield Delta(text)
        yield Done(StopReason.UNTIL, prefilled=len(said.split()), decoded=len(text.split()))

    def faulty(self, session: str, hinted: bool = False) -> Item:
        """The item of a session, with the faults that this attempt has; with the answer at hand it does not
        err."""
        item = with_lines(item_of(int(session.removeprefix("world-").partition(".")[0])))
        rng, f = random.Random(f"{self.seed}/{session}"), self.faults
        errs, drifts, overcalls, trusts = (
            rng.random() < rate for rate in (f.error, f.drift, f.overcall, f.trust)
        )
        chain: list[Step] = list(item.chain)
        if overcalls and not item.needed:
            chain += [tools_line(TAGS), Call("retrieve", "another look", item.clip.board(0))]
        if drifts:
            chain = [s for s in chain if isinstance(s, Call)]
            chain = [x for s in chain for x in (_prose(rng), s)] + [_prose(rng)]
        if hinted and trusts:
            chain = [s for s in chain[:1] if isinstance(s, str)] or [_prose(rng)]
        answer = item.answer
        if errs and not hinted and item.options:
            answer = rng.choice([o for o in item.options if o != item.answer])
        return replace(item, chain=tuple(chain), answer=answer)


def _prose(rng: random.Random) -> str:
    return "".join(rng.sample(_PROSE, 3))
