"""What this server does to its process before it listens, because no setting does it.

The LangGraph server is started by another program, so the limits on heads are set in uvicorn itself. The
search for threads by `values` fails with 500 as soon as one thread has no state yet: that thread matches
nothing, and the others are searched.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

from act2see.serve.heads import bound_every_head


def repair_server() -> None:
    """Bound the heads of requests, and let threads without a state be searched."""
    bound_every_head()
    with suppress(ImportError):  # another storage than that of `langgraph dev`
        _let_nothing_be_searched(import_module("langgraph_runtime_inmem.ops"))


def _let_nothing_be_searched(ops: Any) -> None:
    contains = getattr(ops, "is_jsonb_contained", None)
    if contains is None or hasattr(contains, "__wrapped__"):
        return

    def is_contained(superset: Any, subset: Any) -> bool:
        return isinstance(superset, dict) and bool(contains(superset, subset))

    vars(is_contained)["__wrapped__"] = contains
    ops.is_jsonb_contained = is_contained
