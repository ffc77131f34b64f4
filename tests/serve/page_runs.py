"""Runs of the page on scripted reasoners."""

from __future__ import annotations

from pathlib import Path

from tests.graphs.doubles import clip_in, parts_in

from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config
from act2see.serve.ui.runs import AskRequest, Runs
from act2see.trace.trace import Trace

SCRIPT = ("I look.\n<retrieve> the circle </retrieve>", "There it is.</think>\n<answer>B</answer>")


def runs_in(folder: Path, reasoner: object, **fails: Exception) -> tuple[Config, Runs]:
    config, parts = parts_in(folder, reasoner, **fails)
    store = parts.resources.store
    return config, Runs(folder / "runs", lambda _: (create_act2see(config, parts=parts), store))


async def ask(folder: Path, runs: Runs, config: Config, question: str = "Which?", **more: object) -> Trace:
    run = runs.begin(AskRequest(config, clip_in(folder), question, ("a", "b"), **more))  # type: ignore[arg-type]
    async for _ in run.live.watch():
        pass
    assert not run.error
    assert run.trace is not None
    return run.trace
