"""The base class of reasoners: its defaults, its use in a graph, and the error for other objects."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.graphs.doubles import clip_in, parts_in

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Needs, Reasoner, Request, WrappedReasoner
from act2see.agent.rollout import Rollout
from act2see.errors import ConfigError
from act2see.graphs.ask import create_act2see
from act2see.graphs.run import aask
from act2see.tools.runtime.weights import Wanted


class Minimal(Reasoner):
    name = "minimal"

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        text = "So.</think><answer>B</answer>"
        request.until(text)
        yield Delta(text)
        yield Done(StopReason.UNTIL, decoded=1)


async def test_stream_alone_makes_a_reasoner(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Minimal())
    trace = await aask(create_act2see(config, parts=parts), clip_in(tmp_path), "What?", ["cat", "dog"])
    assert trace.choice == "dog"
    assert trace.versions.reasoner == "minimal"
    # A trace holds a plain string, although the reasoner gives an enum.
    assert [type(loop.stop) for loop in trace.usage.loops] == [str]
    assert [loop.stop for loop in trace.usage.loops] == ["answer"]


async def test_default_methods_do_nothing() -> None:
    reasoner = Minimal()
    await reasoner.check()
    await reasoner.prepare()
    reasoner.forget("run")
    await asyncio.to_thread(reasoner.close)
    assert (list(reasoner.wanted()), reasoner.context) == ([], None)


async def test_request_with_only_a_rollout_and_a_limit() -> None:
    request = Request(Rollout(()), 5)
    assert not request.until("</answer>")
    assert [type(item) async for item in Minimal().stream(request)] == [Delta, Done]


def test_graph_refuses_an_object_that_is_not_a_reasoner(tmp_path: Path) -> None:
    class Duck:
        name = "duck"

        async def stream(self, *_: Any, **__: Any) -> Any:
            yield

    config, parts = parts_in(tmp_path, Minimal())
    with pytest.raises(
        ConfigError, match=r"is not a Reasoner: derive its class from .*\.Reasoner and implement"
    ):
        create_act2see(config, parts=replace(parts, reasoner=Duck()))  # type: ignore[arg-type]


def test_needed_context() -> None:
    assert Needs(images=2, side=192, tokens=100).context(9) == 2 * (9 + 16) + 1024 + 100


async def test_the_reasoner_of_the_documentation_answers(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "(Reasoner)" in c]
    names: dict[str, Any] = {}
    exec(code, names)
    config, parts = parts_in(tmp_path, names["Mine"]())
    trace = await aask(create_act2see(config, parts=parts), clip_in(tmp_path), "What?")
    assert trace.answer == "ring"


async def test_a_wrapped_reasoner_passes_every_call_on() -> None:
    called: list[str] = []

    class Inner(Minimal):
        context = 512

        async def check(self) -> None:
            called.append("check")

        async def prepare(self) -> None:
            called.append("prepare")

        def forget(self, session: str) -> None:
            called.append(f"forget {session}")

        def close(self) -> None:
            called.append("close")

        def wanted(self) -> Iterator[Wanted]:
            yield Wanted("reasoner", "micro:vlm")

    outer = WrappedReasoner(Inner())
    await outer.check()
    await outer.prepare()
    outer.forget("run")
    await asyncio.to_thread(outer.close)
    assert called == ["check", "prepare", "forget run", "close"]
    assert (outer.name, outer.context) == ("minimal", 512)
    assert [wanted.name for wanted in outer.wanted()] == ["micro:vlm"]
    assert [type(item) async for item in outer.stream(Request(Rollout(()), 5))] == [Delta, Done]


def test_wrapped_reasoner_overrides_every_method() -> None:
    own = {name for name in vars(Reasoner) if callable(getattr(Reasoner, name)) and name[0] != "_"}
    assert own <= set(vars(WrappedReasoner))
