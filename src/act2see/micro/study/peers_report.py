"""The comparison with the peers on paper: its table, its page, and every answer for others to check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from act2see.evaluation.peers import PEERS
from act2see.evaluation.records import QuestionRecord
from act2see.evaluation.statistics import compare_runs, measure_share
from act2see.tools.runtime.markdown import markdown_table

COMMAND = "python -m act2see.micro.study.peers"
_HEAD = (
    "way of working",
    "right (95 % interval)",
    "right alone: Act2See / peer",
    "McNemar p",
    "tokens",
    "of them written",
    "captions",
    "frames",
    "calls",
    "forced",
    "cite a frame",
)
_ABOUT = """\
# Act2See and rival ways of working

`{command}`: {n} questions of the board
world's test split, the same weights in all ways, and the tokens that Act2See spent on a question as the
budget of its peers. The peers are ours, in the manner of published work, without their authors' training,
prompts or models. `micro` was fine-tuned on calls and has not learnt their ways: the table says what a way is
worth to this reasoner, not what its authors reach. [Evaluation](../evaluation.md#other-ways-of-working) says
how to run one of them, or one's own.

{table}
Act2See's interval lies above that of {whom}.

- *Right alone*: questions that only the one or only the other answered rightly. *McNemar p* is of the exact
  test on them.
- *Tokens*: read and written for a question, on average. *Captions*: those of the captions of its video, which
  come on top.
- *Frames*: in view at the end. *Calls*: those that were run. *Forced*: answers that the graph had to ask for.
- *Cite a frame*: chains that name a frame by its number.

The budget buys `uniform-frames` and `inserted-frames` more frames. The others have nothing to spend it on. No
way is cut off at the budget, so one that describes more frames may spend more.

{ways}

## By family of questions

{families}
Weights: {weights}.

Each answer: [{answers}]({answers}), one JSON object a question.
"""


@dataclass(slots=True)
class Answers:
    """A way of working, with its answers."""

    name: str
    lines: list[QuestionRecord]
    weights: dict[str, str] = field(default_factory=dict)
    """Part -> name of its weights with their revision."""
    cited: int = 0
    """Chains that cite a frame."""
    caption_tokens: list[int] = field(default_factory=list)

    @property
    def scores(self) -> dict[str, float]:
        """The score of each question, by its id."""
        return {line.id: line.score for line in self.lines}

    @property
    def tokens(self) -> float:
        """The mean number of tokens that a question read and wrote, captions left out."""
        return fmean(line.read + line.tokens for line in self.lines)


def compare_arms(arms: Sequence[Answers]) -> str:
    """Return the table. The first arm is the one that the others are compared with."""
    ours = arms[0]
    rows = []
    for arm in arms:
        lines = arm.lines
        split, p = "", ""
        if arm is not ours:
            paired = compare_runs(ours.scores, arm.scores)
            split, p = f"{paired.first_only} / {paired.second_only}", f"{paired.p:.2g}"
        rows.append(
            (
                arm.name,
                measure_share([line.score for line in lines]),
                split,
                p,
                f"{arm.tokens:.0f}",
                f"{fmean(line.tokens for line in lines):.0f}",
                f"{fmean(arm.caption_tokens):.0f}" if arm.caption_tokens else "",
                f"{fmean(line.frames for line in lines):.1f}",
                f"{fmean(line.calls.all for line in lines):.2f}",
                sum(line.forced for line in lines),
                arm.cited,
            )
        )
    return markdown_table(_HEAD, rows)


def compare_families(arms: Sequence[Answers]) -> str:
    """Return the share of right answers in each family of questions."""
    families = sorted({line.groups["family"] for line in arms[0].lines})
    rows = []
    for arm in arms:
        cells = []
        for family in families:
            scores = [line.score for line in arm.lines if line.groups["family"] == family]
            share = measure_share(scores)
            cells.append(f"{100 * share.share:.0f} % ({100 * share.low:.0f}-{100 * share.high:.0f})")
        rows.append((arm.name, *cells))
    return markdown_table(("way of working", *families), rows)


def report(arms: Sequence[Answers], answers: str) -> str:
    """Return the page.

    Args:
        arms: The arms, Act2See first.
        answers: The name of the file with all answers.
    """
    ours, peers = arms[0], arms[1:]
    n = len(ours.lines)
    ahead = [arm.name for arm in peers if _is_ahead(ours, arm)]
    return _ABOUT.format(
        command=f"{COMMAND} --n {n} --report docs/results/peers.md",
        n=n,
        table=compare_arms(arms),
        whom="every peer" if len(ahead) == len(peers) else ", ".join(ahead) or "no peer",
        ways="\n".join(
            f"- **{arm.name}**: {PEERS[arm.name].about} ({PEERS[arm.name].source})" for arm in peers
        ),
        families=compare_families(arms),
        weights=", ".join(f"{part} `{name}`" for part, name in ours.weights.items()),
        answers=answers,
    )


def _is_ahead(ours: Answers, peer: Answers) -> bool:
    mine = measure_share([line.score for line in ours.lines])
    return mine.low > measure_share([line.score for line in peer.lines]).high


def export_lines(arms: Sequence[Answers]) -> str:
    """Return a line of JSON for each question: what was asked, the truth, and the answer of each way."""
    by = {arm.name: {line.id: line for line in arm.lines} for arm in arms}
    lines = []
    for asked in arms[0].lines:
        answers = {}
        for name, found in by.items():
            line = found[asked.id]
            answers[name] = {
                "answer": line.answer,
                "correct": line.correct,
                "tokens": line.read + line.tokens,
                "frames": line.frames,
                "calls": line.calls.all,
            }
        shown = {"id": asked.id, "groups": asked.groups, "question": asked.question}
        rest = {"options": asked.options, "truth": asked.truth, "answers": answers}
        lines.append(json.dumps({**shown, **rest}))
    return "\n".join(lines) + "\n"
