"""The traces that a server keeps. `tests/graphs` tests saved folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from act2see.errors import StoreError, TraceError
from act2see.trace.folder import KeptTraces
from act2see.trace.record import Question
from act2see.trace.trace import Trace


@pytest.fixture
def kept(tmp_path: Path) -> KeptTraces:
    return KeptTraces(tmp_path / "traces")


@pytest.mark.parametrize("id", ["../secret", "", "a/b", "a" * 65, "none", "a\0"])
def test_an_unknown_or_harmful_id_names_no_trace(kept: KeptTraces, tmp_path: Path, id: str) -> None:
    (tmp_path / "secret.json").write_text("{}")
    with pytest.raises(TraceError, match="there is no trace"):
        kept.get(id)


def test_a_kept_trace_is_read_again(kept: KeptTraces, trace: Callable[..., Trace]) -> None:
    made = trace(id="a", question=Question(text="?"))
    kept.keep(made)
    assert kept.get("a") == made


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "../a"},
        {"id": ""},
        {"id": "a\0"},
        {"question": Question.model_construct(text="\ud800", options=())},
    ],
)
def test_a_trace_without_a_file_name_or_with_a_lone_surrogate_is_refused(
    kept: KeptTraces, trace: Callable[..., Trace], wrong: dict[str, Any]
) -> None:
    made = trace(id="a", question=Question(text="?"))
    with pytest.raises(StoreError, match=r"cannot be (kept|written)"):
        kept.keep(made.model_copy(update=wrong))


def test_an_unwritable_folder_is_named_with_a_way_out(tmp_path: Path, trace: Callable[..., Trace]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="ACT2SEE_CACHE"):
        KeptTraces(tmp_path / "file").keep(trace(id="a", question=Question(text="?")))
