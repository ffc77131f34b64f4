"""The runs of the page: those in progress, and those on disk.

A run belongs to the server, not to the page that started it: reloading or closing the page does not affect
it. When a run ends, it is saved in the format of `act2see ask --save`: a folder with trace, pictures and
page. If it was stopped or failed, the incomplete trace is saved.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from act2see.errors import Act2SeeError, StoreError, TraceError
from act2see.graphs.config import Config
from act2see.graphs.earlier import clip_turns
from act2see.graphs.state import AskContext
from act2see.serve.failures import log_failure
from act2see.serve.ui.catalog import shown_name
from act2see.serve.ui.live import Live
from act2see.tools.runtime.text import drop_controls
from act2see.trace.folder import OURS, frames_of, save_folder
from act2see.trace.record import Question
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from act2see.graphs.ask import Graph
    from act2see.tools.video.store import FrameSource

log = logging.getLogger(__name__)
OpenGraph = Callable[[Config], "tuple[Graph, FrameSource]"]
"""Returns the graph of a configuration and the source of its frames."""
MAX_LISTED = 500
"""The maximum number of runs that are listed."""


@dataclass(frozen=True, slots=True)
class AskRequest:
    """A question with everything that its answer depends on."""

    config: Config
    video: str
    question: str
    options: tuple[str, ...] = ()
    context: AskContext = field(default_factory=AskContext)


@dataclass(eq=False, slots=True)
class Run:
    """One run, in progress or ended."""

    id: str
    asked: AskRequest
    live: Live

    frames: FrameSource | None = None
    """The source of the frames' pixels. None until the models are loaded."""

    trace: Trace | None = None
    """The trace, once the run has ended. It is incomplete if the run was stopped or failed."""

    error: str = ""
    """The error that ended the run, in one line."""

    stopped: bool = False
    """Whether the run was stopped by the user."""

    done: bool = False
    """Whether the run has ended and was saved."""

    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A line of the list of runs."""

    id: str
    when: datetime.datetime
    """The time at which the run was saved, or the current time for a run in progress."""
    question: str

    answer: str | None = None
    """The answer. None if the run has none."""

    tools: tuple[str, ...] = ()

    config: str = ""
    """The hash of the configuration."""

    running: bool = False


def open_graph(config: Config) -> tuple[Graph, FrameSource]:
    """Return the graph of a configuration and the source of its frames.

    Raises:
        WeightsError, ConfigError: The graph cannot be built.
    """
    from act2see.graphs.ask import create_act2see
    from act2see.graphs.parts import cached_parts

    graph = create_act2see(config)
    return graph, cached_parts(config).resources.store


@dataclass(slots=True)
class Runs:
    """Starts, stops and finds runs.

    `list_runs`, `load` and `frames` may be called in any thread, the other methods only in the server's event
    loop.
    """

    folder: Path
    """The folder in which runs are saved."""
    open: OpenGraph = open_graph
    running: dict[str, Run] = field(default_factory=dict)
    """The runs in progress, by id."""
    # Summaries of the runs on disk, with the modification times of their traces.
    _summaries: dict[str, tuple[float, RunSummary]] = field(default_factory=dict)

    def begin(self, asked: AskRequest) -> Run:
        """Start a run. It continues in the background."""
        id = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
        tags = asked.config.tools if asked.context.tools is None else asked.context.tools
        earlier = clip_turns(asked.context.earlier or ())
        question = Question(text=asked.question.strip(), options=asked.options, earlier=earlier)
        run = Run(id, asked, Live(id, question, tuple(tags)))
        self.running[id] = run
        run.task = asyncio.create_task(self._run(run), name=f"act2see-run-{id}")
        return run

    async def stop(self, id: str) -> None:
        """Stop a run and wait until it is saved. Do nothing if it has ended."""
        run = self.running.get(id)
        if run and run.task:
            if run.trace is None:  # otherwise it is already being saved
                run.task.cancel()
            await asyncio.wait([run.task])

    async def close(self) -> None:
        """Stop all runs."""
        await asyncio.gather(*(self.stop(id) for id in list(self.running)))

    async def _run(self, run: Run) -> None:
        """Answer the question, and save the run however it ends."""
        from act2see.graphs.run import aask

        asked = run.asked
        try:
            graph, run.frames = await asyncio.to_thread(self.open, asked.config)
            run.trace = await aask(
                graph,
                asked.video,
                asked.question,
                asked.options,
                context=asked.context,
                thread_id=run.id,
                on_event=run.live.event,
            )
        except asyncio.CancelledError:
            run.stopped = True
        except Exception as e:
            run.error = error_line(e, f"run {run.id}")
        run.trace = run.trace or run.live.trace(open_as_written=True)
        try:
            if run.trace and run.frames:
                await asyncio.to_thread(save_folder, run.trace, self.folder / run.id, run.frames)
        except Exception as e:
            run.error = f"{run.error} {error_line(e, f'saving run {run.id}')}".strip()
        finally:
            run.done = True
            self.running.pop(run.id, None)
            run.live.end()

    def list_runs(self) -> list[RunSummary]:
        """Return the runs in progress, then those on disk, newest first. Unreadable runs are left out.

        Raises:
            StoreError: The folder cannot be listed.
        """
        now = datetime.datetime.now()
        in_progress = []
        for run in reversed(self.running.values()):
            in_progress.append(RunSummary(run.id, now, run.asked.question, running=True))
        saved = []
        for path in self._folders():
            summary = self._summary(path)
            if summary and summary.id not in self.running:
                saved.append(summary)
        saved.sort(key=lambda summary: summary.when, reverse=True)
        return [*in_progress, *saved][:MAX_LISTED]

    def load(self, id: str) -> Trace:
        """Return the trace of a saved run. Raises `TraceError` if it is missing or cannot be read."""
        return Trace.load(self._folder(id))

    def frames(self, id: str) -> FrameSource:
        """Return the source of a saved run's pixels: the files beside its trace, or the frame store."""
        return frames_of(self._folder(id))

    def _folders(self) -> Sequence[Path]:
        """Return the folders of the saved runs.

        Raises:
            StoreError: The folder cannot be listed.
        """
        try:
            folders = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
            return [path for path in folders if (path / OURS).is_file()]
        except FileNotFoundError:
            return []
        except OSError as e:
            raise StoreError(
                f"cannot list the runs in {self.folder} ({e.strerror}): choose another folder with --runs"
            ) from e

    def _folder(self, id: str) -> Path:
        """Find a run's folder by comparing names. An id from the browser never becomes part of a path."""
        for path in self._folders():
            if shown_name(path.name) == id:
                return path
        raise TraceError(
            f"unknown run {id!r}: check whether its folder in {self.folder} was moved or deleted"
        )

    def _summary(self, path: Path) -> RunSummary | None:
        """Return the summary of a saved run, or None if it cannot be read. It is read again if it changed."""
        try:
            changed = (path / OURS).stat().st_mtime
            id = shown_name(path.name)
            if id not in self._summaries or self._summaries[id][0] != changed:
                trace = Trace.load(path)
                summary = RunSummary(
                    id,
                    datetime.datetime.fromtimestamp(changed),
                    trace.question.text,
                    trace.answer,
                    tuple(trace.versions.tools),
                    trace.versions.config,
                )
                self._summaries[id] = changed, summary
        except (Act2SeeError, OSError, ValueError, OverflowError) as e:
            log.warning("cannot read the run in %s: %s", ascii(str(path)), ascii(str(e)))
            return None
        return self._summaries[id][1]


def error_line(error: Exception, operation: str) -> str:
    """Return the line that the page shows for an error.

    Args:
        error: The error. The line has the message of an `Act2SeeError`. Any other error is logged under an
            id, and the line has only its type and the id.
        operation: The operation that failed, for the log.
    """
    if isinstance(error, Act2SeeError):
        return " ".join(drop_controls(str(error)).split())
    id = log_failure(operation, error)
    return f"something went wrong ({type(error).__name__}): see error {id} in the log of `act2see ui`"
