"""inspect_ai runs a benchmark: its questions as a task, a way of working as the solver, our score as scorer.

`eval_set` asks several questions at once, tries again after faults of a model or its server, and continues
its own logs. What is final stands in `questions.jsonl`, not in these logs: inspect_ai saves some answers at a
time, we save each. An answer that has a line is put into the log and is not asked again.

`inspect view --log-dir RUN/logs` shows each question with its frames, its reasoning and its score, and the
command that shows its trace. Frames are small there, and a question has at most 256 KiB of them, so that a
log of thousands of questions can still be opened; the trace has them all.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import io
import logging
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from act2see.errors import (
    Act2SeeError,
    BenchmarkError,
    ConfigError,
    SetupError,
    StoreError,
    WeightsError,
)
from act2see.evaluation.harness import Evaluation
from act2see.evaluation.keeping import Key
from act2see.evaluation.records import QuestionRecord
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.text import first_line
from act2see.tools.video.store import FrameStore
from act2see.trace.options import LETTERS
from act2see.trace.record import Frames
from act2see.trace.trace import Trace

_FATAL = (ConfigError, WeightsError, SetupError, StoreError, BenchmarkError)
"""Errors that every question would meet."""
_SIDE = 256  # pixels of a frame in a log
_PICTURES = 16  # frames of the start, or of a call, that a log shows
_PICTURE_BYTES = 256 << 10  # pictures of a question in a log, as they are written there
_BUFFER = 50  # answers that inspect_ai writes at a time
_COLLECT = (10_000, 20, 20)  # new objects between collections; Python has 700, 10 and 10
_Fresh = dict[Key, QuestionRecord]  # answers on their way from the solver to the scorer
OnAnswer = Callable[[int, int], None]
"""A function that is called with the number of answers so far, and the number of questions."""


def load_inspect() -> Any:
    """Return the package inspect_ai.

    Raises:
        BenchmarkError: It is not installed.
    """
    try:
        import inspect_ai
    except ImportError as e:
        raise BenchmarkError("benchmarks are run by inspect_ai: pip install 'act2see[eval]'") from e
    return inspect_ai


def run_tasks(evaluation: Evaluation, on_answer: OnAnswer | None = None) -> None:
    """Ask all questions of a run that have no answer yet.

    Must not be called from a running event loop.

    Raises:
        Act2SeeError: The model cannot be used, or its server fails time and again.
        KeyboardInterrupt: After Ctrl-C. What was answered is kept.
    """
    inspect_ai = load_inspect()
    options = evaluation.options
    if not evaluation.samples:  # no video is here, and all count as wrong
        return
    number = 0
    # The logs may hold what has no line: a video that failed and is tried again, a line that a power failure
    # took. It is asked in logs of their own.
    while number == 0 or evaluation.pending:
        number += 1
        with _quiet(), _few_collections():
            finished, logs = inspect_ai.eval_set(
                make_task(evaluation, on_answer),
                log_dir=str(evaluation.folder.path / "logs" / f"{_name_part(evaluation)}-{number}"),
                model=None,
                retry_attempts=1,
                retry_on_error=options.retries,
                fail_on_error=True,
                max_samples=options.concurrency,
                epochs=options.epochs,
                log_images=options.pictures,
                log_realtime=False,
                log_buffer=_BUFFER,
                display="none",
                score_display=False,
                log_level="error",
                ctl_server=False,
            )
        if evaluation.fatal is not None:
            raise evaluation.fatal
        if not finished:
            errors = [log.error.message for log in logs if log.error is not None]
            why = first_line(RuntimeError(errors[0])) if errors else "inspect_ai did not finish"
            raise BenchmarkError(
                f"the run stopped ({why}): mend it, and run the same command again; what was answered is kept"
            )


def make_task(evaluation: Evaluation, on_answer: OnAnswer | None = None) -> Any:
    """Return the task of a run.

    Raises:
        BenchmarkError: No question can be asked.
    """
    if not evaluation.samples:
        raise BenchmarkError(f"no question of {evaluation.suite.benchmark} has its video: name their folder")
    inspect_ai = load_inspect()
    from inspect_ai.dataset import MemoryDataset

    samples = list(_list_samples(evaluation))
    fresh: _Fresh = {}
    return inspect_ai.Task(
        dataset=MemoryDataset(samples, name=evaluation.suite.benchmark),
        solver=_make_solver(evaluation, on_answer, fresh),
        scorer=_make_scorer(evaluation, fresh),
        name=f"{evaluation.suite.benchmark}-{evaluation.arm.name}",
        version=evaluation.folder.run.setting.digest,
        metadata={"config": evaluation.arm.config.hash, "commit": evaluation.folder.run.commit or ""},
    )


def _list_samples(evaluation: Evaluation) -> Iterator[Any]:
    from inspect_ai.dataset import Sample as InspectSample

    for sample in evaluation.samples.values():
        yield InspectSample(id=sample.id, input=sample.question, target=sample.answer, metadata=sample.groups)


def _make_solver(evaluation: Evaluation, on_answer: OnAnswer | None, fresh: _Fresh) -> Any:
    from inspect_ai.model import ModelOutput
    from inspect_ai.solver import solver

    total = len(evaluation.keys)

    @solver(name="act2see")
    def answer(run: Evaluation) -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            # Raised outside of `except`, so that inspect_ai has no long chain of errors to print.
            error = run.fatal
            if error is None:
                try:
                    record, traces = await run.ask(str(state.sample_id), state.epoch)
                except Act2SeeError as e:
                    error = e
                    run.fatal = e if isinstance(e, _FATAL) else None
            if error is not None:
                raise RuntimeError(first_line(error))
            fresh[record.key] = record
            if traces:
                state.messages = list(_list_messages(run, record, traces))
            state.output = ModelOutput.from_content(run.arm.name, record.answer or "")
            state.completed = True
            if on_answer:
                on_answer(len(run.folder), total)
            return state

        return solve

    return answer(evaluation)


def _make_scorer(evaluation: Evaluation, fresh: _Fresh) -> Any:
    from inspect_ai.scorer import Score, mean, scorer

    @scorer(metrics=[mean()], name="act2see")
    def judge(run: Evaluation) -> Any:
        async def score(state: Any, target: Any) -> Any:
            key = (str(state.sample_id), run.options.seed + state.epoch - 1)
            record = fresh.pop(key, None) or run.folder.get(key)
            facts = record.model_dump(
                include={"status", "outcome", "tokens", "seconds", "calls", "frames", "trace", "truth"}
            )
            return Score(
                value=record.score, answer=record.answer, explanation=_explain(run, record), metadata=facts
            )

        return score

    return judge(evaluation)


def _list_messages(evaluation: Evaluation, record: QuestionRecord, traces: Sequence[Trace]) -> Iterator[Any]:
    """Yield what was asked, written and shown, as messages of a chat."""
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ContentText

    pictures = _Pictures(evaluation.arm.store if evaluation.options.pictures else None)
    keep = _PICTURE_BYTES // 2  # what calls returned tells more than what was there at the start
    for trace in traces:
        yield ChatMessageUser(
            content=[ContentText(text=_question_of(trace)), *pictures.show(trace.initial, keep)]
        )
        written = ""
        for segment in trace.segments:
            if not isinstance(segment, Frames):
                written += segment.text
                continue
            yield ChatMessageAssistant(content=written)
            written = ""
            shown = [ContentText(text=segment.note or f"<{segment.tag}>")]
            yield ChatMessageUser(content=[*shown, *pictures.show(segment.frames)])
        yield ChatMessageAssistant(content=written)


def _question_of(trace: Trace) -> str:
    options = zip(LETTERS, trace.question.options, strict=False)
    return "\n".join((trace.question.text, *(f"{letter}. {option}" for letter, option in options)))


def _explain(evaluation: Evaluation, record: QuestionRecord) -> str:
    """Return what the score is by, and how to see the traces."""
    names = [record.trace, *record.more_traces] if record.trace else []
    shows = [f"act2see trace show {shlex.quote(str(evaluation.folder.path / name))}" for name in names]
    return "\n".join((record.error or record.outcome, *shows))


class _Pictures:
    """The frames of a question in its log: some of many, and their pictures as long as there is room."""

    def __init__(self, store: FrameStore | None) -> None:
        self._store = store
        self._left = _PICTURE_BYTES

    def show(self, frames: Sequence[FrameRef], keep: int = 0) -> Iterator[Any]:
        """Yield the times of frames and their pictures, which are made small.

        Args:
            frames: The frames.
            keep: Bytes that are left for later frames.
        """
        from inspect_ai.model import ContentImage, ContentText

        step = max(1, -(-len(frames) // _PICTURES))
        for frame in frames[::step]:
            kind = "imagined" if frame.imagined else f"{frame.seconds:.1f} s"
            if self._store is None:
                yield ContentText(text=kind)
                continue
            picture = _small_picture(frame, self._store)
            if len(picture) > self._left - keep:
                yield ContentText(text=f"{kind} (no room in the log: see the trace)")
                continue
            self._left -= len(picture)
            yield ContentText(text=kind)
            yield ContentImage(image=picture)


def _small_picture(frame: FrameRef, store: FrameStore) -> str:
    """Return a frame as a data URI."""
    from PIL import Image

    picture = Image.fromarray(store.get(frame.digest))
    picture.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _name_part(evaluation: Evaluation) -> str:
    """Return the folder of the logs of these questions: a run that grows has other logs."""
    ids = "\n".join(evaluation.samples)
    return f"{len(evaluation.samples)}-{hashlib.blake2b(ids.encode(), digest_size=3).hexdigest()}"


@contextmanager
def _few_collections() -> Iterator[None]:
    """Let Python look for cycles less often. Of what inspect_ai and we spend on a question, this took an
    eighth: most of it on the modules that were there before, which are set aside.
    """
    before = gc.get_threshold()
    was_frozen = gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if not was_frozen:
            gc.unfreeze()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep inspect_ai from printing, and undo what it changes in the process's logging."""
    import rich

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    console = rich.get_console()
    before = console.quiet
    console.quiet = True
    try:
        yield
    finally:
        console.quiet = before
        root.handlers[:], root.level = handlers, level
