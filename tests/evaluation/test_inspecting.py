"""The logs of inspect_ai: what was said, the frames that were seen, and the way to the trace."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from benchmarks.evaluation import InstantArm, make_suite, run_instant
from PIL import Image

from act2see.evaluation.asking import Question
from act2see.evaluation.harness import Options, open_evaluation
from act2see.evaluation.inspecting import run_tasks
from act2see.evaluation.summary import describe
from act2see.tools.frames import FrameRef
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Frames, Text
from act2see.trace.trace import Trace


def test_the_logs_of_inspect_show_what_was_said(tmp_path: Path) -> None:
    from inspect_ai.log import list_eval_logs, read_eval_log

    run_instant(make_suite(2), tmp_path / "run")
    (info,) = list_eval_logs(os.fspath(tmp_path / "run" / "logs"))
    log = read_eval_log(info)
    assert log.status == "success"
    assert log.samples is not None
    first = log.samples[0]
    assert [message.role for message in first.messages] == ["user", "assistant"]
    assert "A. a kite" in first.messages[0].text
    assert first.scores is not None
    score = first.scores["act2see"]
    assert (score.value, score.answer, score.metadata and score.metadata["trace"]) == (
        1.0,
        "A",
        "traces/q00000-1164c917-s0.json",
    )


class SeeingArm(InstantArm):
    """Was shown frames at the start, and by a call."""

    name = "seeing"

    def __init__(self, folder: Path, initial: int, side: int = 300) -> None:
        super().__init__()
        self.store: FrameStore = FrameStore(folder)  # type: ignore[assignment]
        noise = np.random.default_rng(0)
        shape = (initial + 1, side, side, 3)
        pictures = noise.integers(0, 256, shape, dtype=np.uint8)
        self.frames = tuple(
            FrameRef(digest=self.store.put(picture), seconds=float(n), width=side, height=side)
            for n, picture in enumerate(pictures)
        )

    async def ask(self, question: Question) -> Trace:
        trace = await super().ask(question)
        *initial, last = self.frames
        segments = (Text(text="I look."), Frames(tag="retrieve", frames=(last,), note="it is here"))
        return trace.model_copy(
            update={"initial": tuple(initial), "segments": (*segments, *trace.segments), "video": trace.video}
        )

    def take_aside(self, video: str) -> int:
        return 7


@pytest.mark.parametrize(("initial", "shown"), [(2, 3), (32, 4)])
def test_the_logs_of_inspect_show_the_frames_within_bounds(tmp_path: Path, initial: int, shown: int) -> None:
    from inspect_ai.log import list_eval_logs, read_eval_log
    from inspect_ai.model import ContentImage, ContentText

    arm = SeeingArm(tmp_path / "frames", initial)
    evaluation = open_evaluation(make_suite(2), arm, Options(), tmp_path / "run")
    run_tasks(evaluation)
    done = evaluation.finish()
    evaluation.folder.close()
    assert done.totals.aside == 14  # spent for all questions of a video, and in the sums
    assert any("7.0 for captions" in line for line in describe(done))
    (info,) = list_eval_logs(os.fspath(tmp_path / "run" / "logs"))
    log = read_eval_log(info, resolve_attachments=True)
    assert log.samples is not None
    first = log.samples[0]
    parts = [
        part for message in first.messages if isinstance(message.content, list) for part in message.content
    ]
    pictures = [part.image for part in parts if isinstance(part, ContentImage)]
    assert len(pictures) == shown
    for picture in pictures:
        head, _, data = picture.partition(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (256, 256)
    assert sum(map(len, pictures)) <= 256 << 10
    assert Path(info.name.removeprefix("file://")).stat().st_size < 2 * (256 << 10) + (64 << 10)
    told = [part.text for part in parts if isinstance(part, ContentText)]
    assert told[1] == "0.0 s"
    assert told[-1] == f"{initial}.0 s"  # what the call returned has room
    assert any("no room in the log" in text for text in told) == (initial == 32)
    assert first.scores is not None
    command = f"act2see trace show {tmp_path}/run/traces/q00000-1164c917-s0.json"
    assert (first.scores["act2see"].explanation or "").splitlines() == ["right", command]
