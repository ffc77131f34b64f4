"""Tools chosen by configuration, and faulty tools of other packages, which do not end the run."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from act2see.errors import ConfigError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.state import AskContext
from act2see.tools.frames import Cropped, Taken
from act2see.trace.record import Frames
from act2see.trace.trace import Trace
from tests.graphs.doubles import Scripted, clip_in

ODD = "tests.graphs.odd_tools"
DONE = "So.</think><answer>B</answer>"
NONE = {"retrieve": None, "generate": None}  # the preset's tools would load models


def configured(folder: Path, style: str = "paper", **tools: Any) -> Config:
    return load_config(
        "micro",
        cache=str(folder / "cache"),
        view={"guard": None},
        reasoner={"prompt": style},
        tools={**NONE, **tools},
    )


def scripted(config: Config, *lines: str) -> tuple[Parts, Scripted]:
    reasoner = Scripted(*lines)
    return replace(build_parts(config), reasoner=reasoner), reasoner


async def ask(folder: Path, config: Config, *lines: str, **context: Any) -> tuple[Trace, str]:
    parts, reasoner = scripted(config, *lines, DONE)
    given: Any = {"video": clip_in(folder), "question": "What?"}
    result = await create_act2see(config, parts=parts).ainvoke(given, context=AskContext(**context))
    return Trace.model_validate(result["trace"]), reasoner.rollouts[0]


async def reply_of(folder: Path, name: str, query: str = "x", **settings: Any) -> Frames:
    """The reply to a call of one of the odd tools. The run must end with its answer."""
    config = configured(folder, odd={"use": f"{ODD}:{name}", "retries": 0, **settings})
    trace, _ = await ask(folder, config, f"<odd>{query}</odd>")
    assert trace.answer == "B"
    [frames] = [s for s in trace.segments if isinstance(s, Frames)]
    return frames


SHIPPED = {
    "zoom": {"use": "act2see.tools.zoom:Zoom"},
    "clip": {"use": "act2see.tools.clip:ClipTool", "options": {"count": 3}},
}


async def test_a_tag_changes_prompt_grammar_graph_and_drawing_together(tmp_path: Path) -> None:
    with_, without = configured(tmp_path, **SHIPPED), configured(tmp_path, clip=SHIPPED["clip"])
    drawn, rollouts, outcomes = [], [], []
    for config in (with_, without):
        parts, reasoner = scripted(config, "<zoom>left half of 1.0 seconds</zoom>", "<clip>1 s</clip>", DONE)
        graph = create_act2see(config, parts=parts)
        result = await graph.ainvoke({"video": clip_in(tmp_path), "question": "What?"})  # type: ignore[arg-type]
        trace = Trace.model_validate(result["trace"])
        drawn.append((graph.get_graph().draw_mermaid(), set(graph.get_graph().nodes)))
        rollouts.append(reasoner.rollouts[0])
        outcomes.append([c.outcome for c in trace.calls])
    assert outcomes == [["ok", "ok"], ["unknown", "ok"]]
    assert "<zoom> query </zoom>: a part of a frame that you have seen" in rollouts[0]
    assert "zoom" not in rollouts[1]
    assert "zoom" in drawn[0][1] - drawn[1][1]
    assert "reason -.-> zoom" in drawn[0][0]
    assert "zoom" not in drawn[1][0]
    assert with_.hash != without.hash


async def test_the_shipped_tools_run_in_the_graph(tmp_path: Path) -> None:
    config = configured(tmp_path, **SHIPPED)
    trace, _ = await ask(
        tmp_path, config, "<clip>1 to 2 seconds</clip>", "<zoom>0.5,0,1,0.5 of the last frame</zoom>"
    )
    later = trace.shown[len(trace.initial) :]
    assert [f.seconds for f in later] == [1.0, 1.5, 2.0, 2.0]
    assert [type(f.provenance) for f in later] == [Taken, Taken, Taken, Cropped]
    assert Trace.from_json(trace.to_json()) == trace
    html = trace._repr_html_()
    assert "a part: from 50 to 100 % across, from 0 to 50 % down" in html


async def test_a_run_picks_among_declared_tools(tmp_path: Path) -> None:
    config = configured(tmp_path, "short", **SHIPPED)
    trace, rollout = await ask(tmp_path, config, "<clip>1 s</clip>", "<zoom>middle</zoom>", tools=("zoom",))
    assert "Tools: zoom." in rollout
    assert [c.outcome for c in trace.calls] == ["unknown", "ok"]
    assert list(trace.versions.tools) == ["zoom"]


async def test_another_tool_under_a_tag_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "preset: micro\nview: {guard: null}\ntools:\n  generate: null\n"
        f'  retrieve: {{use: "{ODD}:Plain"}}\n',
        encoding="utf-8",
    )
    config = load_config(path, cache=str(tmp_path / "cache"))
    trace, rollout = await ask(tmp_path, config, "<retrieve>the circle</retrieve>")
    assert "Tools: retrieve." in rollout
    assert trace.shown[-1].seconds == 1.0
    assert trace.versions.tools == {"retrieve": "plain 1"}


async def test_a_tool_that_raises(tmp_path: Path) -> None:
    assert (await reply_of(tmp_path, "Raises")).note == "The tool failed: division by zero. Go on without it."


@pytest.mark.parametrize("name", ["Hangs", "Blocks"])
async def test_a_tool_that_hangs_is_abandoned(tmp_path: Path, name: str) -> None:
    started = time.perf_counter()
    frames = await reply_of(tmp_path, name, "block", timeout=0.3)
    assert frames.note.startswith("The tool failed: ")
    assert "0.3" in frames.note
    assert time.perf_counter() - started < 15


async def test_the_call_after_a_blocked_one_works(tmp_path: Path) -> None:
    config = configured(tmp_path, odd={"use": f"{ODD}:Blocks", "timeout": 1.5, "retries": 0})
    trace, _ = await ask(tmp_path, config, "<odd>block</odd>", "<odd>go</odd>")
    first, second = (s for s in trace.segments if isinstance(s, Frames))
    assert not first.frames
    assert second.frames


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Exits", "the tool 'odd' tried to end the process (SystemExit)"),
        ("Cancels", "the tool 'odd' failed: it cancelled itself"),
        ("ReturnsNothing", "the tool 'odd' returned nothing (None); it must return a ToolResult"),
        (
            "ReturnsPixels",
            "the tool 'odd' returned a ndarray for a frame; store the pixels with `resources.store.ref`",
        ),
        (
            "ReturnsAFrame",
            "the tool 'odd' returned a ToolResult whose frames is a FrameRef; "
            "it must be a tuple of FrameRefs",
        ),
        ("ReturnsUnstored", "the tool 'odd' returned a frame whose pixels are not in the store"),
        ("ReturnsNumbers", "the tool 'odd' returned a ToolResult whose note is a int; it must be text"),
    ],
)
async def test_an_invalid_result_of_a_tool_is_reported(tmp_path: Path, name: str, says: str) -> None:
    frames = await reply_of(tmp_path, name)
    assert says in frames.note
    assert not frames.frames


@pytest.mark.parametrize(("settings", "most"), [({}, 16), ({"max_frames": 3}, 3)])
async def test_a_tool_that_returns_ten_thousand_frames(
    tmp_path: Path, settings: dict[str, int], most: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(tmp_path, odd={"use": f"{ODD}:ReturnsMany", **settings})
    parts, reasoner = scripted(config, "<odd>x</odd>", DONE)
    graph = create_act2see(config, parts=parts, checkpointer=InMemorySaver())
    run: Any = {"configurable": {"thread_id": "t"}}
    result = await graph.ainvoke({"video": clip_in(tmp_path), "question": "What?"}, run)  # type: ignore[arg-type]
    [frames] = [s for s in Trace.model_validate(result["trace"]).segments if isinstance(s, Frames)]
    assert len(frames.frames) == most
    assert frames.note.endswith(
        f"… (46,000 more characters) {10_000 - most:,} more frames were found and not shown; "
        "ask for something narrower to see them."
    )
    assert reasoner.rollouts[1].endswith(f"{frames.note}</frame>")
    assert f"the tool 'odd' returned 10000 frames; only the first {most} are shown" in caplog.text
    async for state in graph.aget_state_history(run):
        assert len(json.dumps(state.values.get("segments", []))) < 20_000


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        (
            {"use": f"{ODD}:NoOptions"},
            f"tools.odd: '{ODD}:NoOptions' is not a tool: a tool is a class with a nested",
        ),
        ({"use": f"{ODD}:ask"}, "cannot be imported"),
        ({"use": f"{ODD}:time"}, "is not a tool: a tool is a class"),
        ({"use": f"{ODD}:NoCall"}, "is not a tool: it has no `call`"),
        ({"use": f"{ODD}:NoUsage"}, "`usage` of .* must say"),
        ({"use": f"{ODD}:NotMade"}, "cannot be set up: KeyError: 'API_KEY'"),
        (
            {"use": f"{ODD}:Plain", "options": {"att": 1}},
            r"tools.odd.options: unknown key 'att'; did you mean 'at'\?",
        ),
    ],
)
def test_an_invalid_tool_class_is_a_config_error(tmp_path: Path, tool: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_parts(configured(tmp_path, odd=tool))


@pytest.mark.parametrize("tag", ["view", "answer", "approve", "video", "segments"])
def test_a_tag_that_the_graph_uses_itself(tmp_path: Path, tag: str) -> None:
    says = f"tool tag '{tag}' is reserved"
    with pytest.raises(ConfigError, match=says):
        build_parts(configured(tmp_path, **{tag: {"use": f"{ODD}:Plain"}}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "tools:\n  look: {use: retrieve}\n  look: {use: generate}\n",
            "line 4: duplicate key 'look', first in line 3",
        ),
        (
            "tools: {look: {use: retrieve}, look: {use: generate}}\n",
            "line 2: duplicate key 'look', first in line 2",
        ),
        ("seed: 1\nbudget: {calls: 2}\nseed: 2\n", "line 4: duplicate key 'seed', first in line 2"),
    ],
)
def test_duplicate_keys_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"preset: micro\n{text}", encoding="utf-8")
    with pytest.raises(ConfigError) as e:
        load_config(path)
    assert f"{path}, {says}; rename or remove one" == str(e.value)


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    lines = [
        "  one: &one {use: retrieve, retries: 3}",
        "  two: &two {<<: *one, use: generate}",
        "  three: {<<: *two, retries: 5}",
    ]
    path.write_text("\n".join(["preset: micro", "tools:", *lines]), encoding="utf-8")
    tools = load_config(path).tools
    assert [(tools[t].use, tools[t].retries) for t in ("one", "two", "three")] == [
        ("retrieve", 3),
        ("generate", 3),
        ("generate", 5),
    ]
