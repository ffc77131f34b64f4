"""The runs of the page: those in progress, and those on disk.

A run belongs to the server, not to the page that started it: reloading or closing the page does not affect
it. When it ends it is saved as `act2see ask --save` does (a folder with trace, pictures and page). A run that
was stopped or failed is saved as far as it got.
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
from act2see.graphs.state import AskContext
from act2see.serve.failures import log_failure
from act2see.serve.ui.catalog import shown_name
from act2see.serve.ui.live import Live
from act2see.trace.folder import OURS, frames_of, save_folder
from act2see.trace.record import Question
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from act2see.graphs.ask import Graph
    from act2see.tools.video.store import FrameSource

log = logging.getLogger(__name__)
Open = Callable[[Config], "tuple[Graph, FrameSource]"]
MOST = 500  # the number of past runs that are listed


@dataclass(frozen=True, slots=True)
class Asked:
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
    asked: Asked
    live: Live

    frames: FrameSource | None = None
    """The pixels of its frames. None until the models are loaded."""

    trace: Trace | None = None
    """Set when the run has ended. If it was stopped or failed, the trace is as far as it got."""

    error: str = ""
    """Why it failed, in one line."""

    stopped: bool = False
    done: bool = False
    """Whether it has ended and was saved."""

    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """A line of the history."""

    id: str
    when: datetime.datetime
    question: str

    answer: str | None = None
    """None if the run has no answer."""

    tools: tuple[str, ...] = ()

    config: str = ""
    """The configuration's hash."""

    running: bool = False


def open_graph(config: Config) -> tuple[Graph, FrameSource]:
    """Return the graph of a configuration and the source of its frames.

    Raises:
        WeightsError, ConfigError: The graph cannot be made.
    """
    from act2see.graphs.ask import create_act2see
    from act2see.graphs.parts import cached_parts

    graph = create_act2see(config)
    return graph, cached_parts(config).resources.store


@dataclass(slots=True)
class Runs:
    """Starts, stops and finds runs. Call its methods in the server's event loop; `past`, `load` and `frames`
    may be called in any thread."""

    folder: Path
    open: Open = open_graph
    running: dict[str, Run] = field(default_factory=dict)
    _known: dict[str, tuple[float, Past]] = field(default_factory=dict)

    def begin(self, asked: Asked) -> Run:
        """Start a run. It continues on its own."""
        id = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
        tags = asked.config.tools if asked.context.tools is None else asked.context.tools
        run = Run(
            id, asked, Live(id, Question(text=asked.question.strip(), options=asked.options), tuple(tags))
        )
        self.running[id] = run
        run.task = asyncio.create_task(self._go(run), name=f"act2see-run-{id}")
        return run

    async def stop(self, id: str) -> None:
        """Stop a run and wait until it is saved. Do nothing if it has ended."""
        run = self.running.get(id)
        if run and run.task:
            if run.trace is None:  # else it is already being saved
                run.task.cancel()
            await asyncio.wait([run.task])

    async def close(self) -> None:
        """Stop all runs."""
        await asyncio.gather(*(self.stop(id) for id in list(self.running)))

    async def _go(self, run: Run) -> None:
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

    def past(self) -> list[Past]:
        """Return the runs in progress, then those on disk, newest first. Runs that cannot be read are left
        out.

        Raises:
            StoreError: The folder cannot be listed.
        """
        now = datetime.datetime.now()
        out = [Past(run.id, now, run.asked.question, running=True) for run in reversed(self.running.values())]
        saved = [p for p in (self._past(path) for path in self._folders()) if p and p.id not in self.running]
        return [*out, *sorted(saved, key=lambda p: p.when, reverse=True)][:MOST]

    def load(self, id: str) -> Trace:
        """Return a trace on disk. Raises `TraceError` if there is none, or it cannot be read."""
        return Trace.load(self._folder(id))

    def frames(self, id: str) -> FrameSource:
        """Return the source of a saved run's pixels: the files beside its trace, or the frame store."""
        return frames_of(self._folder(id))

    def _folders(self) -> Sequence[Path]:
        try:
            return [p for p in self.folder.iterdir() if not p.name.startswith(".") and (p / OURS).is_file()]
        except FileNotFoundError:
            return []
        except OSError as e:
            raise StoreError(
                f"cannot list the runs in {self.folder} ({e.strerror}): choose another folder with --runs"
            ) from e

    def _folder(self, id: str) -> Path:
        """Find a run's folder among those that exist. An id never becomes part of a path."""
        for path in self._folders():
            if shown_name(path.name) == id:
                return path
        raise TraceError(f"there is no run {id!r} in {self.folder}: was its folder moved or deleted?")

    def _past(self, path: Path) -> Past | None:
        try:
            changed = (path / OURS).stat().st_mtime
            id = shown_name(path.name)
            if id not in self._known or self._known[id][0] != changed:
                trace = Trace.load(path)
                when = datetime.datetime.fromtimestamp(changed)
                past = Past(
                    id,
                    when,
                    trace.question.text,
                    trace.answer,
                    tuple(trace.versions.tools),
                    trace.versions.config,
                )
                self._known[id] = changed, past
        except (Act2SeeError, OSError, ValueError, OverflowError) as e:
            log.warning("cannot read the run in %s: %s", ascii(str(path)), ascii(str(e)))
            return None
        return self._known[id][1]


def error_line(error: Exception, what: str) -> str:
    """Return the line that the page shows for an error.

    Args:
        error: An `Act2SeeError` is shown in its own words. Any other error is logged under an id, and the
            line names only its type and the id.
        what: What failed, for the log.
    """
    if isinstance(error, Act2SeeError):
        return " ".join(str(error).split())
    id = log_failure(what, error)
    return f"something went wrong ({type(error).__name__}): see error {id} in the log of `act2see ui`"
