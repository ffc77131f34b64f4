"""What the documentation tells to type does what it says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from act2see.agent.trace import Trace
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts
from tests.graphs.doubles import Scripted, clip_in

ROOT = Path(__file__).parents[1]


async def test_the_tool_of_docs_tools_md(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", (ROOT / "docs/tools.md").read_text(), re.S))
    (tmp_path / "middle.py").write_text(blocks["python"])
    (tmp_path / "mine.yaml").write_text(blocks["yaml"])
    monkeypatch.syspath_prepend(str(tmp_path))
    config = load_config(str(tmp_path / "mine.yaml"), cache=str(tmp_path / "cache"), view={"guard": None})
    reasoner = Scripted("I look. <middle>the middle</middle>", "So.</think><answer>B</answer>")
    parts = replace(build_parts(config), reasoner=reasoner)
    given: Any = {"video": clip_in(tmp_path), "question": "What?"}
    result = await create_act2see(config, parts=parts).ainvoke(given)
    (frame,) = Trace.model_validate(result["trace"]).shown[-1:]
    assert frame.seconds == 1.5
    assert "Tools: retrieve, generate, middle." in reasoner.rollouts[0]
