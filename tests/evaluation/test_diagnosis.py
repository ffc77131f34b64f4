"""Other returns of the calls: what is returned, what is asked again, and what a kill leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.errors import BenchmarkError, ReasonerError
from act2see.evaluation.asking import GraphArm
from act2see.evaluation.benchmarks import Suite
from act2see.evaluation.diagnosis import Ask, Changed, diagnose, read_changes
from act2see.evaluation.harness import Evaluation, Options, open_evaluation
from act2see.evaluation.records import DIAGNOSIS, RUN, load_trace, read_questions, read_run
from act2see.evaluation.replacing import CHANGES, Change, replace_frames
from act2see.evaluation.samples import Sample
from act2see.graphs.parts import Parts
from act2see.micro.world import Board, Clip, Piece, write_clip
from act2see.tools.base import ToolContext, ToolResult
from act2see.tools.frames import FrameRef, Generated, Supplied
from tests.graphs.doubles import Scripted, Shows, parts_in

BY_NAME = {change.name: change for change in CHANGES}


def write_video(path: Path, colour: str) -> str:
    """Write a clip of 3 s whose board is another one each second."""
    boards = [(12 * n, Board((Piece("circle", colour, (n, n)),))) for n in range(3)]  # type: ignore[arg-type]
    return str(write_clip(Clip(36, tuple(boards)), path))


class Looking(Reasoner):
    """Says A if it has seen the frame that its call asked for, B if it saw another, C without any.

    The second question calls nothing.
    """

    name = "looking"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.right: set[str] = set()
        self.fails_at = -1

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        self.asked.append(request.rollout.session)
        if len(self.asked) == self.fails_at:
            raise ReasonerError("the server went away")
        text = str(request.rollout)
        seen = "B"
        if "<|image_pad|>" not in text.split("<think>")[-1]:
            seen = "C"
        elif request.rollout.frames[-1].digest in self.right:
            seen = "A"
        call = "" if "no call" in text else "I look. <retrieve>the circle</retrieve>"
        lines = (call, f"So.</think><answer>{seen}</answer>") if call else ("So.</think><answer>A</answer>",)
        async for item in Scripted(*lines).stream(request):
            yield item


class Looked:
    """The graph with this reasoner, two videos and two questions."""

    def __init__(self, folder: Path) -> None:
        videos = [write_video(folder / f"{colour}.mp4", colour) for colour in ("red", "blue")]
        self.reasoner = Looking()
        self.config, parts = parts_in(folder, self.reasoner)
        self.parts: Parts = replace(parts, tools={"retrieve": Shows("retrieve", parts.resources, 20)})
        library = parts.resources.finder.library
        for video in videos:
            self.reasoner.right.add(library.pictures(video, [20])[0].digest)
        self.suite = Suite("own", tuple(self._samples(videos)), (), "wrong", (), ("0", "1"))
        self.folder = folder / "run"

    def _samples(self, videos: Sequence[str]) -> list[Sample]:
        words = ("Where?", "Where is it, no call?")
        return [
            Sample(
                id=str(n),
                benchmark="own",
                video=videos[n % 2],
                question=question,
                options=("here", "there", "nowhere"),
                answer="A",
                needed=() if "no call" in question else ("retrieve",),
            )
            for n, question in enumerate(words)
        ]

    def open(self) -> Evaluation:
        return open_evaluation(
            self.suite, GraphArm(self.config, parts=self.parts), Options(pictures=False), self.folder
        )


@pytest.fixture
def looked(tmp_path: Path) -> Looked:
    return Looked(tmp_path)


def ask_all(evaluation: Evaluation) -> None:
    """Ask the questions without inspect_ai, one after the other."""

    async def go() -> None:
        for id in evaluation.samples:
            await evaluation.ask(id, 1)

    asyncio.run(go())


def run(looked: Looked, ask: Ask = ask_all) -> dict[str, tuple[int, int, int]]:
    """Run and diagnose; return for each change its questions, and how many are right without and with it."""
    evaluation = looked.open()
    try:
        ask_all(evaluation)
        evaluation.finish()
        found = diagnose(evaluation, ask)
    finally:
        evaluation.folder.close()
    return {c.name: (c.n, round(c.plain.share * c.n), round(c.changed.share * c.n)) for c in found}


def test_each_change_is_asked_where_it_can_alter_the_answer(looked: Looked) -> None:
    assert run(looked) == {
        "tools-off": (2, 2, 1),  # the second question calls nothing
        "random": (1, 1, 0),
        "noise": (1, 1, 0),
        "text": (1, 1, 0),
        "other": (1, 1, 0),
    }
    place = looked.folder / DIAGNOSIS / "noise"
    done = read_run(place)
    assert (done.setting.arm, done.state, done.limit, done.of) == ("micro, noise", "finished", 1, 2)
    assert done.tools["retrieve"] == "shows 1; diagnosis: returns noise"
    trace = load_trace(place, next(read_questions(place, done.setting)).trace)
    assert trace is not None
    assert trace.returned[0].describe() == (
        'frame at 1.7 s, supplied by the diagnosis (noise) for "the circle"'
    )
    found = {c.name: c for c in list_changes(looked)}
    assert (found["noise"].paired.first_only, found["noise"].paired.p) == (1, 1.0)
    assert (found["noise"].other_answers, found["tools-off"].other_answers) == (1, 1)
    assert (found["noise"].same_words, found["tools-off"].same_words) == (0, 1)


def list_changes(looked: Looked) -> list[Changed]:
    return list(read_changes(looked.folder, read_run(looked.folder), read_questions(looked.folder)))


def test_a_diagnosis_that_is_interrupted_continues(looked: Looked) -> None:
    looked.reasoner.fails_at = 8  # in the middle of the second change
    with pytest.raises(ReasonerError):
        run(looked)
    assert [c.name for c in list_changes(looked)] == ["tools-off"]
    whole = run(looked)
    assert whole["random"] == (1, 1, 0)
    assert len(looked.reasoner.asked) == 8 + 2 * 4  # what has an answer is not asked again
    path = looked.folder / DIAGNOSIS / "text" / RUN
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7', 1))
    with pytest.raises(BenchmarkError, match=r"text is the diagnosis of another run \(seed 7, not 0\)"):
        list_changes(looked)


class Fixed:
    """A tool that returns these frames."""

    tag, usage, version = "generate", "a frame", "fixed 1"

    def __init__(self, *frames: FrameRef) -> None:
        self.frames = frames

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        return ToolResult(self.frames, "a note")


async def test_what_a_replaced_tool_returns(looked: Looked) -> None:
    resources, videos = looked.parts.resources, [sample.video for sample in looked.suite.samples]
    context = ToolContext(videos[0], seed=5)
    library, store = resources.finder.library, resources.store
    real, anchor = library.pictures(videos[0], [20, 4])
    made = Generated(prompt="it in blue", anchor=anchor, seed=1, strength=0.3, model="small")
    imagined = store.ref(store(real)[::-1], real.seconds, made)

    async def call(change: Change, *frames: FrameRef) -> ToolResult:
        return await replace_frames(Fixed(*frames), change, resources, videos).call("it in blue", context)

    for name in ("noise", "random", "other"):
        first, again = [await call(BY_NAME[name], real, imagined) for _ in range(2)]
        assert first == again  # by the seed of the call alone
        assert first.note == "a note"
        for frame, before in zip(first.frames, (real, imagined), strict=True):
            assert frame.digest != before.digest
            assert (frame.seconds, frame.imagined) == (before.seconds, before.imagined)
            assert isinstance(frame.provenance, Supplied)
            assert frame.digest in store
    noise = (await call(BY_NAME["noise"], real)).frames[0]
    assert store(noise).shape == store(real).shape
    assert 100 < store(noise).mean() < 155
    shown = (await call(BY_NAME["other"], real)).frames[0]
    blue = {library.pictures(videos[1], [n])[0].digest for n in range(36)}
    assert shown.digest in blue
    text = await call(BY_NAME["text"], real)
    assert (text.frames, text.note) == ((), "it in blue. a note")
    kept, replaced = (await call(BY_NAME["anchor"], real, imagined)).frames
    assert kept == real
    assert (replaced.digest, replaced.imagined, replaced.seconds) == (anchor.digest, True, real.seconds)
