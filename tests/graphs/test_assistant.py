"""The assistant end to end on micro, offline, and other supervisors with the same workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from act2see.errors import ConfigError
from act2see.graphs.assistant import create_assistant, make_transcript_reader, traces_of
from act2see.graphs.config import Config, load_config
from act2see.micro.questions import Item, make_item
from act2see.micro.supervisor import Plan, make_plan, next_message
from act2see.micro.world import write_clip
from act2see.tools.video.folders import Folders
from tests.graphs.parents import Agent, thread


def blink_items() -> list[Item]:
    """Three clips with the same shape. It blinks only in the second, between the initial frames."""
    items = [i for n in range(80) if (i := make_item("blink", n, "test")).kind == "colour" and not i.in_view]
    first, shape = items[0], items[0].clip.short[0].piece.shape
    others = [i for i in items[1:] if i.clip.short[0].piece.shape != shape and i.clip.base(0).find(shape)]
    return [others[0], first, others[1]]


ITEMS = blink_items()
SHAPE, COLOUR = ITEMS[1].clip.short[0].piece.shape, ITEMS[1].clip.short[0].piece.colour
QUESTION = (
    f"In which clip does the {SHAPE} blink, and what colour does the {SHAPE} turn when it blinks? "
    "What is said about the board?"
)

RING = "What colour is the ring?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, item in zip("abc", ITEMS, strict=True):
        write_clip(item.clip, folder / f"{name}.mp4")
    (folder / "b.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nHere is the board.\n\n"
        "2\n00:00:04,000 --> 00:00:05,000\nLook there!\n"
    )
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "d.srt").symlink_to(tmp_path_factory.mktemp("outside") / "d.srt")
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return load_config("micro", cache=str(tmp_path_factory.mktemp("cache")), budget={"seconds": 3600.0})


@pytest.mark.timeout(300)  # loads models, which is slow on a busy machine
async def test_the_assistant_finds_a_clip_asks_about_it_and_reads_its_subtitles(
    folder: Path, config: Config
) -> None:
    result = await create_assistant(config, folder).ainvoke({"messages": [HumanMessage(QUESTION)]})
    messages = result["messages"]
    calls = [
        (c["name"], c["args"].get("video", ""))
        for m in messages
        if isinstance(m, AIMessage)
        for c in m.tool_calls
    ]
    assert calls == [("find_clips", ""), ("ask_video", "b.mp4"), ("search_transcript", "b.mp4")]
    found = next(m for m in messages if isinstance(m, ToolMessage) and m.name == "find_clips")
    assert found.artifact["clips"][0]["video"] == "b.mp4"
    assert [name for name, _ in found.artifact["skipped"]] == ["broken.mp4"]
    (trace,) = traces_of(messages)
    assert trace.answer == COLOUR
    said = messages[-1].text
    blink = ITEMS[1].clip.short[0]
    assert "It is b.mp4." in said
    assert f"Answer: {COLOUR}" in said
    assert f"frame at {trace.shown[-1].seconds:.1f} s, found for" in said
    assert blink.start / 12 - 0.01 <= trace.shown[-1].seconds < blink.stop / 12
    assert '1.0 s to 2.0 s: "Here is the board."' in said


def call(name: str, **args: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "id": name, "args": args}])


async def test_a_chat_model_supervises_and_sees_errors(folder: Path, config: Config) -> None:
    script = [
        call("ask_video", video="../x.mp4", question="What?"),
        call("ask_video", video="broken.mp4", question="What?"),
        call("search_transcript", video="/etc/passwd"),
        call("search_transcript", video="a.mp4"),
        call("find_clips", query="the circle", count=99),
        AIMessage("I give up."),
    ]
    agent = create_assistant(config, folder, model=Agent(messages=iter(script)), checkpointer=InMemorySaver())
    result = await agent.ainvoke({"messages": ["What?"]}, thread())
    outside, broken, passwd, none, many = [m for m in result["messages"] if isinstance(m, ToolMessage)]
    assert [m.status for m in (outside, broken, passwd, many)] == ["error"] * 4
    assert "may be opened" in outside.text
    # The message does not reveal whether the file exists.
    assert outside.text.partition(":")[0] == passwd.text.partition(":")[0]
    assert "broken.mp4" in broken.text
    assert none.text == "There are no subtitles of a.mp4."
    assert "20" in many.text
    assert result["messages"][-1].text == "I give up."


async def test_an_endless_supervisor_is_stopped(folder: Path, config: Config) -> None:
    script = (
        call("search_transcript", video="b.mp4", query=str(n)).model_copy(update={"id": str(n)})
        for n in range(99)
    )
    result = await create_assistant(config, folder, {"turns": 3}, model=Agent(messages=script)).ainvoke(
        {"messages": ["?"]}
    )
    assert sum(isinstance(m, ToolMessage) for m in result["messages"]) == 3


def test_transcripts_of_all_videos_without_links_that_lead_out(folder: Path) -> None:
    tool = make_transcript_reader(Folders([folder]))
    assert tool.invoke({"query": "look"}) == 'b.mp4, 4.0 s to 5.0 s: "Look there!"'
    assert tool.invoke({"query": "elephant", "video": "b.mp4"}) == "Nothing like that is said in b.mp4."
    (folder / "b.vtt").write_text("no time here")
    try:
        assert "no line with a time in" in tool.invoke({"query": "look"})
    finally:
        (folder / "b.vtt").unlink()


def test_a_wrong_setting_of_the_assistant_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        create_assistant("micro", tmp_path / "none")
    with pytest.raises(ConfigError, match="assistant: unknown key 'turn'; did you mean 'turns'"):
        create_assistant("micro", tmp_path, {"turn": 1})
    with pytest.raises(ConfigError, match="assistant's model 'nobody:model'"):
        create_assistant("micro", tmp_path, {"model": "nobody:model"})


@pytest.mark.parametrize(
    ("question", "plan"),
    [
        (
            "In which clip does the triangle blink, and what colour does it turn?",
            Plan("the triangle blinks", "", ("What colour does it turn?",)),
        ),
        ("Which video shows a ring? What is said there?", Plan("shows a ring", "", (), ("",))),
        ("What colour is the ring?", Plan("What colour is the ring", "", ("What colour is the ring?",))),
        ("What colour is the ring in a.mp4?", Plan("", "a.mp4", ("What colour is the ring?",))),
        (
            "In b.mp4, who mentions the board? Which shape moves?",
            Plan("", "b.mp4", ("Which shape moves?",), ("board",)),
        ),
        ('What colour is the ring in "Ann\'s clip 2.mp4"?', Plan("", "Ann's clip 2.mp4", (RING,))),
        ("In 'a (1).mp4', what colour is the ring?", Plan("", "a (1).mp4", (RING,))),
        ("What colour is the ring in my clip 2.mp4?", Plan("", "my clip 2.mp4", (RING,))),
        (
            "my clip 2.mp4: what colour is the ring?",
            Plan("", "my clip 2.mp4", (RING,)),
        ),
    ],
)
def test_the_scripted_supervisor_plans_by_sentences(question: str, plan: Plan) -> None:
    assert make_plan(question) == plan


async def test_a_name_with_spaces_is_found_in_a_sentence(folder: Path, config: Config) -> None:
    spaced = folder.parent / "spaced"
    spaced.mkdir(exist_ok=True)
    write_clip(ITEMS[1].clip, spaced / "clip 2.mp4")
    (spaced / "clip 2.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHere is the board.\n")
    agent = create_assistant(config, spaced)
    for name in ("my clip 2.mp4", '"clip 2.mp4"'):
        result = await agent.ainvoke({"messages": [HumanMessage(f"What is said in {name}?")]})
        assert (
            result["messages"][-1].text
            == 'In the subtitles:\nclip 2.mp4, 1.0 s to 2.0 s: "Here is the board."'
        )
    result = await agent.ainvoke({"messages": [HumanMessage("What is said in no clip.mp4?")]})
    said = result["messages"][-1].text
    assert "there is no video of that name" in said
    assert "In the subtitles" not in said


def test_a_name_is_tried_until_a_worker_opens_it() -> None:
    messages: list[Any] = [HumanMessage("What colour is the ring in my clip 2.mp4?")]
    for name in ("my clip 2.mp4", "clip 2.mp4", "2.mp4"):
        wanted = next_message(messages)
        assert wanted.tool_calls[0]["args"] == {"video": name, "question": RING}
        messages += [wanted, ToolMessage("none", tool_call_id=wanted.tool_calls[0]["id"], status="error")]
    assert next_message(messages).text.splitlines() == [RING, "none"]
    messages[-1] = ToolMessage("Answer: red", tool_call_id=messages[-2].tool_calls[0]["id"])
    assert next_message(messages).text.splitlines() == [RING, "Answer: red"]
    assert next_message([HumanMessage("my b.mp4")]).text.startswith("Ask something about my b.mp4")


def test_the_scripted_supervisor_follows_the_results() -> None:
    human = HumanMessage("In which clip is the ring? What colour is the ring?")
    one = next_message([human])
    assert one.tool_calls[0]["args"] == {"query": "the ring"}
    ranked = "Searched 2.\n1. a.mp4: 1.0 s (score 0.50)\n2. my b.mp4: 2.0 s (score 0.40); no match"
    so_far = [human, one, ToolMessage(ranked, tool_call_id=one.tool_calls[0]["id"])]
    two = next_message(so_far)
    assert two.tool_calls[0]["args"] == {"video": "a.mp4", "question": "What colour is the ring?"}
    so_far += [two, ToolMessage("there is none", tool_call_id=two.tool_calls[0]["id"], status="error")]
    three = next_message(so_far)
    assert three.tool_calls[0]["args"]["video"] == "my b.mp4"
    last = next_message([*so_far, three, ToolMessage("Answer: red", tool_call_id=three.tool_calls[0]["id"])])
    assert not last.tool_calls
    assert last.text.splitlines() == [
        "No clip clearly shows it; the closest is my b.mp4.",
        "Found for 'the ring': my b.mp4: 2.0 s (score 0.40); no match",
        "What colour is the ring?",
        "Answer: red",
    ]
    nothing = next_message(
        [human, one, ToolMessage("Searched 0 videos.", tool_call_id=one.tool_calls[0]["id"])]
    )
    assert nothing.text == "No clip can be searched. Searched 0 videos."
    assert "Ask something" in next_message([]).text


@pytest.mark.parametrize(
    "path", ["act2see.micro.supervisor", "act2see.micro.supervisor:Nobody", "no_such_module:Supervisor", ""]
)
def test_a_supervisor_that_cannot_be_loaded_is_a_config_error(
    folder: Path, config: Config, path: str
) -> None:
    with pytest.raises(ConfigError, match=r"assistant\.supervisor: .* cannot be loaded"):
        create_assistant(config, folder, {"supervisor": path})
