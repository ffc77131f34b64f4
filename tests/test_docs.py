"""The code in the documentation runs and gives the documented results."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.trace.trace import Trace
from tests.graphs.doubles import Scripted, clip_in, parts_in
from tests.graphs.parents import Agent

ROOT = Path(__file__).parents[1]


def code_blocks(page: str, language: str = "python") -> list[str]:
    """Return the code blocks of a page in one language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


async def test_the_tool_of_docs_tools_md(tmp_path: Path) -> None:
    [code] = code_blocks("docs/tools.md")
    assert len(code.splitlines()) <= 30
    (tmp_path / "middle.py").write_text(code, encoding="utf-8")
    blocks = code_blocks("docs/tools.md", "yaml")
    for block in blocks:
        (tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
        build_parts(load_config(tmp_path / "mine.yaml", cache=str(tmp_path / "cache")))
    [mine] = [b for b in blocks if "middle:Middle" in b]
    (tmp_path / "mine.yaml").write_text(mine, encoding="utf-8")
    config = load_config(str(tmp_path / "mine.yaml"), cache=str(tmp_path / "cache"), view={"guard": None})
    reasoner = Scripted("I look. <middle>the middle</middle>", "So.</think><answer>B</answer>")
    parts = replace(build_parts(config), reasoner=reasoner)
    given: Any = {"video": clip_in(tmp_path), "question": "What?"}
    result = await create_act2see(config, parts=parts).ainvoke(given)
    (frame,) = Trace.model_validate(result["trace"]).shown[-1:]
    assert frame.seconds == 1.5
    assert "Tools: retrieve, generate, middle." in reasoner.rollouts[0]


def test_the_code_of_docs_compose_md(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "I look. <generate>it in blue</generate>", "So.</think><answer>B</answer>"
    _, parts = parts_in(tmp_path, Scripted(*lines))
    monkeypatch.setattr("act2see.graphs.ask.cached_parts", lambda config: parts)
    monkeypatch.chdir(tmp_path)
    clip_in(tmp_path)
    call = {"name": "ask_video", "id": "1", "args": {"video": "clip.mp4", "question": "Which shape blinks?"}}
    names: dict[str, Any] = {
        "model": Agent(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("It is B.")]))
    }
    for block in code_blocks("docs/compose.md"):
        exec(block, names)
    assert names["result"]["answer"] == "B"
    assert names["verdict"] == "false"
    assert Trace.model_validate(names["trace"]).answer == "B"
    assert names["reply"].text.startswith("Answer: B")
    assert "".join(lines) in (printed := capsys.readouterr().out)
    assert printed.endswith("generate it in blue\n")
    assert names["answer"].startswith("Answer: B")


def test_the_code_of_docs_traces_md(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(make_item("blink", 3, "test").clip, tmp_path / "blink.mp4")
    names: dict[str, Any] = {}
    for block in code_blocks("docs/traces.md"):
        exec(block, names)
    assert names["trace"].calls[0].tag == "retrieve"
    assert names["diff"].parted == 2
    for messages in (names["messages"], names["full"]):
        assert [m.type for m in messages] == ["human", "ai", "tool", "ai"]
    origin = names["without"].origin
    assert (origin.trace, origin.change) == (names["trace"].id, "drop")


@pytest.mark.timeout(300)  # it loads models, which takes long on a busy machine
def test_the_code_of_docs_compositions_md(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blinks = (make_item("blink", n, "test", seconds=10) for n in range(200))
    colours = (i for i in blinks if i.kind == "colour" and not i.in_view)
    item = next(i for i in colours if i.clip.short[0].piece.shape == "triangle")
    (blink,) = item.clip.short
    # The same clip, which continues without changes to one and a half times its length.
    write_clip(replace(item.clip, frames=15 * 12), tmp_path / "long.mp4")
    write_clip(item.clip, tmp_path / "clips/b.mp4")
    (tmp_path / "clips/b.srt").write_text("00:01,0 --> 00:02,0\nThe board is ready.\n")
    names: dict[str, Any] = {}
    for block in code_blocks("docs/compositions.md"):
        exec(block, names)
    assert (names["result"]["answer"], names["result"]["found"]) == (blink.piece.colour, True)
    printed = f"{blink.piece.colour} True\npart 0, 0 s to 9 s: Answer: {blink.piece.colour}"
    assert printed in capsys.readouterr().out
    assert names["trace"].answer == blink.piece.colour
    assert names["messages"][-1].text.endswith('b.mp4, 1.0 s to 2.0 s: "The board is ready."')
