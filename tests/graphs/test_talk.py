"""A model that thinks aloud: talk about tags, plain answers and failed calls in the graph."""

from __future__ import annotations

from pathlib import Path

from act2see.trace.record import Answer, Call, Frames, Text
from tests.graphs.test_ask import DONE, LOOK, ask

TALK = (
    "I may write <retrieve> query </retrieve>, or `<generate>`. At last the answer goes inside "
    "<answer></answer>, as the letter alone. "
)


async def test_talk_about_tags_runs_nothing_and_ends_nothing(tmp_path: Path) -> None:
    trace, reasoner = await ask(tmp_path, TALK + LOOK, DONE, options=("blue", "red"))
    assert trace.segments[0] == Text(text=TALK + "I look again. ")
    assert [(call.tag, call.query, call.outcome) for call in trace.calls] == [
        ("retrieve", "the circle blinks", "ok")
    ]
    assert trace.choice == "red"
    assert len(reasoner.rollouts) == 2


async def test_unknown_and_malformed_calls_cost_no_call(tmp_path: Path) -> None:
    lines = ("<zoom>the door</zoom>", "<retrieve>the door</generate>", LOOK, DONE)
    trace, _ = await ask(tmp_path, *lines, options=("blue", "red"), max_calls=1)
    assert [call.outcome for call in trace.calls] == ["unknown", "nested", "ok"]
    notes = [s.note for s in trace.segments if isinstance(s, Frames) and s.note]
    assert len(notes) == 2
    assert (trace.choice, trace.forced) == ("red", False)


async def test_malformed_calls_have_a_limit_of_their_own(tmp_path: Path) -> None:
    lines = [f"<zoom{n}>the door</zoom{n}>" for n in range(9)]
    trace, reasoner = await ask(tmp_path, *lines, "B</answer>", options=("blue", "red"))
    outcomes = [call.outcome for call in trace.calls]
    assert outcomes == ["unknown"] * 8 + ["over_budget"]
    assert len(reasoner.rollouts) == 10
    assert trace.forced
    assert trace.forced_because == "it wrote too many calls that are none"


async def test_a_name_is_told_once_to_be_no_tool(tmp_path: Path) -> None:
    """A model that marks its plans with tags of its own is interrupted once, not until its limit."""
    lines = ("<plan>look</plan>", "<plan>look closer</plan> <plan>again</plan> " + LOOK, DONE)
    trace, _ = await ask(tmp_path, *lines, options=("blue", "red"))
    assert [(call.tag, call.outcome) for call in trace.calls] == [("plan", "unknown"), ("retrieve", "ok")]
    assert trace.choice == "red"


async def test_a_forced_answer_that_is_cut_says_so(tmp_path: Path) -> None:
    trace, _ = await ask(tmp_path, "Hm.", "it moves towards the wo" * 20)
    assert trace.forced_because.endswith(", and its answer was cut at the limit of tokens")


async def test_prose_after_the_thought_is_the_answer(tmp_path: Path) -> None:
    trace, _ = await ask(tmp_path, "It blinks.</think>\n\nThe ring turns red.")
    assert trace.segments[-1] == Answer(text="\n\nThe ring turns red.", body="The ring turns red.")
    assert not trace.forced


async def test_prose_that_names_an_option_is_a_choice(tmp_path: Path) -> None:
    trace, _ = await ask(tmp_path, "It blinks.</think>\n**B**", options=("blue", "red"))
    assert (trace.choice, trace.forced) == ("red", False)


async def test_prose_that_names_no_option_opens_the_answer(tmp_path: Path) -> None:
    lines = ("It blinks.</think>\nHard to say.", "B</answer>")
    trace, reasoner = await ask(tmp_path, *lines, options=("blue", "red"))
    assert trace.segments[0] == Text(text="It blinks.</think>\nHard to say.")
    assert reasoner.rollouts[1].endswith("Hard to say.\n<answer>")
    assert (trace.choice, trace.forced) == ("red", True)


async def test_a_quoted_pair_of_think_tags_leaves_the_thought_open(tmp_path: Path) -> None:
    trace, _ = await ask(tmp_path, "I think inside <think></think>. " + LOOK, "Hm.", "B</answer>")
    assert [s.text for s in trace.segments if isinstance(s, Text) and s.author == "graph"] == [
        "</think>\n\n<answer>"
    ]
    assert [c.outcome for c in trace.segments if isinstance(c, Call)] == ["ok"]


async def test_a_quoted_end_of_the_thought_leaves_it_open(tmp_path: Path) -> None:
    lines = (
        "I end with `</think>` then. <retrieve>a door</retrieve>",
        "Use `<retrieve>the other door</retrieve>`? No.</think> <answer>B</answer>",
    )
    trace, _ = await ask(tmp_path, *lines, options=("blue", "red"))
    assert [(call.query, call.outcome) for call in trace.calls] == [("a door", "ok")]
    assert (trace.choice, trace.forced) == ("red", False)


async def test_a_placeholder_is_no_answer_to_a_question_with_options(tmp_path: Path) -> None:
    lines = ("Hm.</think><answer>your answer</answer>", "B</answer>")
    trace, _ = await ask(tmp_path, *lines, options=("blue", "red"))
    assert (trace.choice, trace.forced) == ("red", True)
    free, _ = await ask(tmp_path / "free", "Hm.</think><answer>a letter</answer>")
    assert (free.answer, free.forced) == ("a letter", False)


async def test_a_good_call_is_run_after_the_last_malformed_one(tmp_path: Path) -> None:
    lines = [f"<zoom{n}>the door</zoom{n}>" for n in range(8)]
    trace, _ = await ask(tmp_path, *lines, LOOK, DONE, options=("blue", "red"))
    assert trace.calls[-1].outcome == "ok"
    assert trace.choice == "red"


async def test_a_loop_closes_the_thought_and_the_trace_says_so(tmp_path: Path) -> None:
    loop = "I look. " + "Is it red? It may be red, or not. " * 400
    trace, reasoner = await ask(tmp_path, loop, "B</answer>", options=("blue", "red"))
    first = trace.segments[0]
    assert isinstance(first, Text)
    assert len(first.text) < 3_000
    assert [visit.stop for visit in trace.usage.loops] == ["loop", "answer"]
    assert reasoner.rollouts[1].endswith("</think>\n\n<answer>")
    assert (trace.choice, trace.forced_because) == ("red", "it repeated itself")
