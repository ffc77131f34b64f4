"""Construction with the real graph and tools: faulty teachers, interrupted runs, budgets."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.errors import CorpusError, ReasonerError, RefusedError, SetupError
from act2see.graphs.config import load_config
from act2see.micro.questions import item_of
from act2see.micro.source import load_world
from act2see.micro.teacher import Faults, ScriptedTeacher
from act2see.trace.record import Frames
from act2see.training.corpus.construct import ConstructLimits, ConstructPlan, construct, teacher_question
from act2see.training.corpus.records import Chain, Journal, read_chains
from act2see.training.corpus.sources import Sample

CONFIG = load_config("micro", view={"guard": None})
PERFECT = Faults(0, 0, 0, 0)


@dataclass
class ScriptedReasoner(Reasoner):
    """A teacher that writes, or raises, the next line of its script per request, and repeats the last one."""

    script: list[str | Exception]
    name: str = "scripted"
    prompts: list[str] = field(default_factory=list)

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        self.prompts.append(str(request.rollout))
        line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(line, Exception):
            raise line
        cut = line.endswith("...")
        stopped = request.until(line)
        yield Delta(line)
        yield Done(StopReason("until" if stopped else "length" if cut else "eos"), prefilled=1000, decoded=10)


def run(
    folder: Path,
    samples: Sequence[Sample],
    teacher: Any,
    plan: ConstructPlan | None = None,
    limits: ConstructLimits | None = None,
) -> list[Chain]:
    asyncio.run(construct(samples, CONFIG, folder, plan, limits, reasoner=teacher))
    return list(read_chains(folder / "chains.jsonl"))


def contents_of(chain: Chain) -> list[Any]:
    """Return the contents of a chain without its durations."""
    segments = chain.trace.segments if chain.trace else ()
    return [
        chain.dropped,
        [s.model_copy(update={"seconds": 0.0}) if isinstance(s, Frames) else s for s in segments],
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return list(load_world(12, tmp_path_factory.mktemp("clips")))


@pytest.fixture
def one(world: list[Sample]) -> list[Sample]:
    return [s for s in world if s.options][:1]


def test_a_perfect_teacher_makes_the_reference_chains(tmp_path: Path, world: list[Sample]) -> None:
    chains = {c.sample.id: c for c in run(tmp_path, world, ScriptedTeacher(PERFECT))}
    assert set(chains) == {s.id for s in world}
    for c in chains.values():
        assert c.dropped == ""
        assert c.trace
        assert [call.tag for call in c.trace.calls] == list(
            item_of(int(c.sample.id.removeprefix("world-"))).needed
        )
        assert c.trace.question.text == c.sample.question
        frames = [f for s in c.trace.segments if isinstance(s, Frames) for f in s.frames]
        assert len(frames) == len(c.trace.calls)
        assert all(list((tmp_path / "frames").rglob(f"{f.digest}.png")) for f in (*c.trace.initial, *frames))
        assert c.attempts[0].cost.requests == len(c.trace.calls) + 1


def test_a_wrong_answer_is_retried_twice_and_then_dropped(tmp_path: Path, one: list[Sample]) -> None:
    wrong = next(o for o in one[0].options if o != one[0].answer)
    right = ScriptedReasoner(
        [f"Hm.</think><answer>{wrong}</answer>", f"Ah.</think><answer>{one[0].answer}</answer>"]
    )
    (chain,) = run(tmp_path / "a", one, right)
    assert [a.outcome for a in chain.attempts] == ["wrong", "right"]
    assert (chain.dropped, chain.cost.requests, chain.cost.read, chain.cost.written) == ("", 2, 2000, 20)
    (chain,) = run(tmp_path / "b", one, ScriptedReasoner([f"Hm.</think><answer>{wrong}</answer>"]))
    assert len(chain.attempts) == 3
    assert chain.dropped.startswith("wrong after 3 attempts")


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("", "no answer"),  # the graph opened the answer, and the teacher wrote nothing
        ("Hm. I do not know.", "format"),
        ("Hm.</think><answer>perhaps a dog</answer>", "format"),
        ("Hm.</think><answer> </answer>", "no answer"),
        ("I think on and on ...", "truncated"),
        (ReasonerError("status 500"), "failed"),
        (RefusedError("no"), "refused"),
    ],
)
def test_outcomes_of_bad_attempts(
    tmp_path: Path, one: list[Sample], line: str | Exception, outcome: str
) -> None:
    (chain,) = run(tmp_path, one, ScriptedReasoner([line]), ConstructPlan(retries=0))
    assert chain.attempts[0].outcome == outcome
    assert chain.dropped.startswith(f"{outcome} after 1 attempts")


def test_a_wrong_key_ends_the_run_and_writes_nothing(tmp_path: Path, world: list[Sample]) -> None:
    with pytest.raises(SetupError, match="key"):
        run(tmp_path, world, ScriptedReasoner([SetupError("check the key")]))
    assert list(read_chains(tmp_path / "chains.jsonl")) == []


def test_a_missing_video_drops_only_its_question(tmp_path: Path, world: list[Sample]) -> None:
    gone = world[0].model_copy(update={"id": "world-gone", "video": str(tmp_path / "gone.mp4")})
    chains = run(tmp_path / "run", [gone, world[1]], ScriptedTeacher(PERFECT))
    by_id = {c.sample.id: c for c in chains}
    assert by_id["world-gone"].dropped.startswith("failed after 1 attempts (VideoError: there is no file")
    assert by_id[world[1].id].dropped == ""


def test_the_answer_is_in_the_prompt_only_with_hint(tmp_path: Path, one: list[Sample]) -> None:
    sample = one[0].model_copy(update={"answer": one[0].options[0], "chain": "because it is so"})
    for hint in (False, True):
        teacher = ScriptedReasoner([f"Hm.</think><answer>{sample.answer}</answer>"])
        (chain,) = run(tmp_path / str(hint), [sample], teacher, ConstructPlan(hint=hint))
        assert ("because it is so" in teacher.prompts[0]) == hint
        assert ("right answer" in teacher.prompts[0]) == hint
        assert chain.trace
        assert chain.trace.question.text == sample.question
    assert teacher_question(sample) == sample.question


def test_a_resumed_run_makes_no_chain_twice(tmp_path: Path, world: list[Sample]) -> None:
    teacher = ScriptedTeacher()
    assert len(run(tmp_path, world[:5], teacher)) == 5
    file = tmp_path / "chains.jsonl"
    file.write_bytes(file.read_bytes()[:-20])  # as if the process was killed while it wrote
    chains = run(tmp_path, world, teacher)
    assert sorted(c.sample.id for c in chains) == sorted(s.id for s in world)
    again = {c.sample.id: c for c in run(tmp_path / "b", world, teacher)}
    assert [contents_of(c) for c in chains] == [contents_of(again[c.sample.id]) for c in chains]
    with pytest.raises(CorpusError, match="a different plan"):
        run(tmp_path, world, teacher, ConstructPlan(seed=1))
    with pytest.raises(CorpusError, match="a different teacher"):
        run(tmp_path, world, ScriptedTeacher(seed=9))


RUN_TO_KILL = """
import asyncio, sys
from pathlib import Path
from act2see.graphs.config import load_config
from act2see.micro.source import load_world
from act2see.micro.teacher import ScriptedTeacher
from act2see.training.corpus.construct import construct
out, n = Path(sys.argv[1]), int(sys.argv[2])
samples = list(load_world(n, out / "clips"))
config = load_config("micro", view={"guard": None})
report = lambda chain, status: print(chain.sample.id, flush=True)
asyncio.run(construct(samples, config, out / "run", reasoner=ScriptedTeacher(), on_chain=report))
"""


def test_sigkill_loses_only_unfinished_chains(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", RUN_TO_KILL, str(tmp_path), "12"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        assert process.stdout
        finished = [process.stdout.readline().strip() for _ in range(3)]
        process.send_signal(signal.SIGKILL)
    kept = [c.sample.id for c in read_chains(tmp_path / "run" / "chains.jsonl")]
    assert set(finished) <= set(kept)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & set(kept)
    ids = [c.sample.id for c in read_chains(tmp_path / "run" / "chains.jsonl")]
    assert len(ids) == len(set(ids)) == 12


def test_a_spent_budget_stops_the_run(tmp_path: Path, world: list[Sample]) -> None:
    teacher = ScriptedReasoner(["Hm.</think><answer>nothing of this</answer>"])
    plan, limits = ConstructPlan(retries=0, prices=(1.0, 10.0)), ConstructLimits(concurrency=1, dollars=0.002)
    result = asyncio.run(construct(world, CONFIG, tmp_path, plan, limits, reasoner=teacher))
    # A question needs 1,000 tokens read and 10 written: $0.0011. The second question is the last to start.
    assert result.dropped == 2
    assert result.cost.dollars == pytest.approx(0.0022)
    assert result.stopped == "the budget of $0.002 is spent"
    with pytest.raises(CorpusError, match="needs prices"):
        asyncio.run(construct(world, CONFIG, tmp_path / "b", ConstructPlan(), limits, reasoner=teacher))


def test_a_full_disk_leaves_the_journal_whole(
    tmp_path: Path, one: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(sample=one[0], dropped="wrong")
    with Journal(tmp_path) as journal:
        journal.write(chain)
        before = journal.path.read_bytes()

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(
                CorpusError, match=r"No space left on device\): free some space, then run the same command"
            ):
                journal.write(chain.model_copy(update={"dropped": "also"}))
        assert journal.path.read_bytes() == before
        journal.write(chain)
    assert journal.path.read_bytes() == before * 2


def test_a_second_process_cannot_open_the_journal(tmp_path: Path, one: list[Sample]) -> None:
    with Journal(tmp_path), pytest.raises(CorpusError, match="another process"):
        run(tmp_path, one, ScriptedTeacher())
