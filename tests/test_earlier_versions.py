"""Corpora, indexes and checkpoints that 0.1.0 wrote: they are read, made again, or resumed.

`tests/trace/test_versions.py` has the traces and chains. The checkpoint is of a run that waits for a person,
saved as `act2see ask --approve generate` does.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from act2see.cli.runs import settings_of
from act2see.errors import StoreError
from act2see.graphs.ask import create_act2see
from act2see.graphs.run import aresume
from act2see.graphs.state import STATE_VERSION, trace_of
from act2see.tools.frames import Curve
from act2see.tools.search.index import INDEX_VERSION, IndexWriter, read_index
from act2see.tools.video.store import FrameStore
from act2see.training.corpus.dataset import read_corpus, read_info
from tests.graphs.doubles import Scripted, parts_in

EARLIER = Path(__file__).parent / "data" / "0.1.0"
RUN = "20261121-waits"
INDEX = "0" * 32 + "-e-3fps"


def test_a_corpus_of_0_1_0_is_read_with_its_pictures(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    info = read_info(EARLIER / "corpus")
    assert (info.act2see, info.chains, info.pictures) == ("0.1.0", 2, 10)
    first, second = read_corpus(EARLIER / "corpus", store)
    assert first.trace
    assert second.trace
    assert (first.trace.answer, first.trace.choice, second.teacher) == ("A", "the ring", "scripted")
    assert [one.imagined for one in first.trace.returned] == [False, True]
    assert all(store.get(one.digest).shape == (one.height, one.width, 3) for one in second.trace.shown)


def test_an_index_of_0_1_0_is_made_again(tmp_path: Path) -> None:
    """It has no checksums, so it is not given to FAISS. An index can always be made from its video."""
    folder = tmp_path / INDEX
    shutil.copytree(EARLIER / "index", folder)
    with pytest.raises(StoreError, match=f"its version is 1, not {INDEX_VERSION}"):
        read_index(folder, INDEX)
    writer = IndexWriter()
    writer.add(np.arange(2), np.arange(2.0), np.full((2, 1, 4), 0.5, np.float16))
    index = writer.write(folder, INDEX, {"video": "0" * 32})
    assert isinstance(index.curve(index.scores(np.full((1, 4), 0.5, np.float32))), Curve)
    assert len(read_index(folder, INDEX)) == 2


async def test_a_run_of_0_1_0_is_resumed(tmp_path: Path) -> None:
    shutil.copy(EARLIER / "runs.sqlite", tmp_path)
    reasoner = Scripted(*["So it is red.</think>\n<answer>B</answer>"] * 3)
    config, parts = parts_in(tmp_path, reasoner)
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as saver:
        settings = await settings_of(RUN, saver)
        assert settings.config.name == "micro"
        assert tuple(settings.context.approve or ()) == ("generate",)
        graph = create_act2see(config, parts=parts, checkpointer=saver)
        trace = await aresume(graph, RUN, decision={"type": "refuse", "reason": "It is not needed."})
        assert (trace.id, trace.answer, trace.choice) == (RUN, "B", "red")
        assert [(call.tag, call.query) for call in trace.calls] == [
            ("retrieve", "the circle blinks"),
            ("generate", "the circle in blue"),
        ]
        assert "It is not needed." in reasoner.rollouts[-1]


async def test_a_checkpoint_of_a_newer_version_is_named(tmp_path: Path) -> None:
    shutil.copy(EARLIER / "runs.sqlite", tmp_path)
    config, parts = parts_in(tmp_path, Scripted("So.</think><answer>B</answer>"))
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as saver:
        graph = create_act2see(config, parts=parts, checkpointer=saver)
        run: Any = {"configurable": {"thread_id": RUN}}
        values = (await graph.aget_state(run)).values
        assert trace_of(values).id == RUN
        newer = {**values, "asked": {**values["asked"], "version": STATE_VERSION + 1}}
        says = (
            f"saved with version {STATE_VERSION + 1}, and this act2see reads version {STATE_VERSION}: resume"
        )
        with pytest.raises(StoreError, match=says):  # each node begins with this
            trace_of(newer)
