"""A trace: its data (`record.py`), and the two ways in which other programs show it.

Notebooks call `_repr_html_`, other agents take messages. Both are imported when they are used, so reading a
trace loads neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from act2see.errors import TraceError
from act2see.tools.runtime.plain_json import read_lines
from act2see.trace.record import TraceRecord

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from act2see.tools.video.store import FrameStore


class Trace(TraceRecord):
    """The trace of a run: the question, everything seen and written, and the answer."""

    def to_messages(self, store: FrameStore | None = None) -> list[BaseMessage]:
        """Return the trace as LangChain messages with standard content blocks.

        Args:
            store: The source of the pictures. Without a store, a picture is only its digest.

        Raises:
            StoreError: The store lacks a frame.
        """
        from act2see.trace.messages import trace_messages

        return trace_messages(self, store)

    def _repr_html_(self) -> str:
        from act2see.trace.page import trace_html

        return trace_html(self, fragment=True)


def load_traces(path: str | Path) -> Iterator[Trace]:
    """Read the traces of a JSON Lines file one by one.

    Raises:
        TraceError: The file cannot be read, or a line is not a trace.
    """
    try:
        for number, line in enumerate(read_lines(Path(path)), start=1):
            if line.strip():
                yield Trace.from_json(line, f"{path}, line {number}")
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or e
        raise TraceError(f"cannot read the traces {path} ({why}): give a JSON Lines file of traces") from e
