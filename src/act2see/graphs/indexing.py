"""Indexes that are built while the model thinks.

The node `view` begins the index of the video for the tools that search it, so that a call waits only for what
is left. Models are loaded before: loading one changes torch's default data type for the whole process, and
must not coincide with the encoding of an index, which is kept.

Nobody waits for an index that no call needs: after the answer it is completed in the background, for the next
question. It stops if the run is cancelled or the process ends; what is done is kept. An error is raised by
the call that needs the index, which requests it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial, wraps
from typing import Any

from langgraph.runtime import Runtime

from act2see.graphs.events import emit
from act2see.graphs.state import AskState
from act2see.graphs.wiring import Node
from act2see.tools.base import FrameTool, NeedsIndex
from act2see.tools.search.finder import Finder
from act2see.tools.search.index import FrameIndex
from act2see.trace.events import IndexEvent

log = logging.getLogger(__name__)
_EVERY = 1.0  # seconds between two events of one wait


class Indexing:
    """The indexes that the runs of one graph have begun."""

    def __init__(self) -> None:
        self._begun: dict[str, list[Future[FrameIndex]]] = {}

    async def begin(self, run: str, tools: Iterable[FrameTool], video: str) -> None:
        """Begin the indexes of a video that tools need, each once. Does not wait for them.

        Args:
            run: The id of the run.
            tools: The tools that the run may call.
            video: The path of the video.
        """
        finders = {id(tool.index_of): tool.index_of for tool in tools if isinstance(tool, NeedsIndex)}
        for finder in finders.values():
            try:
                requested = await finder.request(video)
            except Exception:
                log.debug("the index of %s cannot be begun", video, exc_info=True)
                continue
            if isinstance(requested, Future):
                self._begun.setdefault(run, []).append(requested)
                requested.add_done_callback(partial(self._forget, run))

    def stop(self, run: str) -> None:
        """Withdraw a run's requests: an index that no other run needs stops after the batch under way."""
        for requested in self._begun.pop(run, ()):
            requested.cancel()

    def stopped_with(self, node: Node) -> Node:
        """Return a node whose cancellation also stops the indexes of its run."""

        @wraps(node)
        async def run_node(state: AskState, *args: Any, **keywords: Any) -> Any:
            try:
                return await node(state, *args, **keywords)
            except asyncio.CancelledError:
                self.stop(state["id"])
                raise

        return run_node

    async def wait(self, finder: Finder, video: str, run: str, runtime: Runtime[Any]) -> None:
        """Wait until a video is indexed. The run's events show the progress.

        Args:
            finder: The finder of the index.
            video: The path of the video.
            run: The id of the run.
            runtime: The runtime of the node that waits.

        Raises:
            StoreError: The index cannot be written.
            VideoError: The video cannot be read.
        """
        now = (0, 0)
        shown = now

        def report(done: int, of: int) -> None:  # called in another thread
            nonlocal now
            now = (done, of)

        index = asyncio.ensure_future(finder.ready(video, report))
        try:
            while not (await asyncio.wait({index}, timeout=_EVERY))[0]:
                if now != shown:
                    shown = now
                    emit(runtime, IndexEvent(run=run, done=shown[0], of=shown[1]))
            index.result()
        finally:
            index.cancel()

    def _forget(self, run: str, requested: Future[FrameIndex]) -> None:
        """Forget a request that is done. Called in any thread."""
        begun = self._begun.get(run, [])
        if requested in begun:
            begun.remove(requested)
        if not begun:
            self._begun.pop(run, None)
