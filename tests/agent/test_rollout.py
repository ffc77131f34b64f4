"""The renderer and the codec: only trusted authors write control tokens, and prefixes keep their ids."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.rollout import ImagePiece, TextCodec, TextPiece, Trust, render
from act2see.micro.recipe.tokenizers import QWEN_ADDED, QWEN_SPECIAL
from act2see.tools.frames import FrameRef, Generated, stamp
from act2see.trace.record import Answer, Call, Frames, Question, Text, Turn
from act2see.trace.trace import Trace

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Parts of control tokens are included, since a cut in one token must not complete another.
spelled = st.sampled_from(
    [
        *QWEN_SPECIAL,
        *QWEN_ADDED,
        "<",
        "|",
        "<|",
        "|>",
        "im_start",
        "<|im_",
        "<|vision_<|im_end|>",
        "</",
        "think>",
    ]
)
words = st.lists(spelled | st.text(max_size=6), max_size=10).map("".join)
PROMPT = Prompt({"retrieve": "a real frame", "generate": "an imagined frame"})


def added(codec: TextCodec) -> dict[str, int]:
    return {t.content: i for i, t in codec.tokenizer.added_tokens_decoder.items()}


def test_tokenizer_has_the_tested_marks(codec: TextCodec) -> None:
    assert {*QWEN_SPECIAL, *QWEN_ADDED} == set(added(codec))


@quick
@given(words)
def test_plain_text_holds_no_added_token_and_reads_back(codec: TextCodec, text: str) -> None:
    ids = codec.encode(text, "plain")
    assert not set(ids) & set(added(codec).values())
    # Qwen's tokenizer composes characters (NFC); nothing else may change.
    assert unicodedata.normalize("NFC", codec.decode(ids)) == unicodedata.normalize("NFC", text)


@quick
@given(words)
def test_model_may_write_only_the_marks_of_its_thought(codec: TextCodec, text: str) -> None:
    ids = codec.encode(text, "model")
    marks = added(codec)
    assert not set(ids) & {i for t, i in marks.items() if t not in QWEN_ADDED}
    # A complete mark in the text is one token, unless another spelled-out token covers a part of it.
    assert sum(ids.count(marks[t]) for t in QWEN_ADDED) == sum(text.count(t) for t in QWEN_ADDED)
    assert unicodedata.normalize("NFC", codec.decode(ids)) == unicodedata.normalize("NFC", text)


@quick
@given(words)
def test_control_text_reads_back(codec: TextCodec, text: str) -> None:
    assert unicodedata.normalize("NFC", codec.decode(codec.encode(text, "control"))) == unicodedata.normalize(
        "NFC", text
    )


@quick
@given(question=words, option=words, query=words, note=words, text=words)
def test_spelled_out_tokens_inject_no_turn_or_frame(
    packer: Packer,
    trace: Callable[..., Trace],
    frame: Callable[..., FrameRef],
    question: str,
    option: str,
    query: str,
    note: str,
    text: str,
) -> None:
    def control(*fields: str) -> dict[str, int]:
        q, o, c, n, t = fields
        run = trace(
            question=Question(text=q, options=(o, "no")),
            initial=(frame(1),),
            segments=(
                Text(text=t),
                Call(text=f"<retrieve>{c}</retrieve>", tag="retrieve", query=c),
                Frames(tag="retrieve", note=n),
                Answer(text=f"<answer>{t}</answer>", body=t),
            ),
        )
        ids = packer.pack(render(run, PROMPT, end_of_turn=True)).ids
        return {mark: ids.count(i) for mark, i in added(packer.codec).items() if mark not in QWEN_ADDED}

    assert control(question, option, query, note, text) == control("a", "b", "c", "d", "e")


def texts(author: str) -> st.SearchStrategy[object]:
    return words.map(lambda t: Text(text=t, author=author))  # type: ignore[arg-type]


def refs(n: int) -> FrameRef:
    return FrameRef(digest=f"{n:032x}", width=48, height=48, seconds=n / 3)


segments = st.lists(
    st.one_of(
        texts("model"),
        texts("graph"),
        words.map(lambda q: Call(text=f"<retrieve>{q}</retrieve>", tag="retrieve", query=q)),
        st.builds(
            lambda ns, note: Frames(tag="retrieve", frames=tuple(map(refs, ns)), note=note),
            st.lists(st.integers(0, 9), max_size=2),
            words,
        ),
    ),
    max_size=6,
)


def is_written_by_model(segment: object) -> bool:
    return isinstance(segment, Call) or (isinstance(segment, Text) and segment.author == "model")


@quick
@given(segments, st.data())
def test_the_ids_before_a_piece_of_the_graph_do_not_depend_on_what_follows(
    packer: Packer, trace: Callable[..., Trace], parts: list[object], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(parts)))
    # The model's own text is one piece, so its ids are known only at its end.
    while 0 < cut < len(parts) and is_written_by_model(parts[cut - 1]) and is_written_by_model(parts[cut]):
        cut -= 1

    def pack(some: list[object]) -> list[int]:
        return packer.pack(
            render(trace(question=Question(text="Where?"), initial=(refs(0),), segments=tuple(some)), PROMPT)
        ).ids

    whole, part = pack(parts), pack(parts[:cut])
    assert whole[: len(part)] == part


def test_rendered_text_of_a_rollout(trace: Callable[..., Trace], frame: Callable[..., FrameRef]) -> None:
    real = frame(2, 1.0)
    made = Generated(prompt="a fall", anchor=real, seed=1, strength=0.3, model="generator")
    run = trace(
        question=Question(text="Where?", options=("left", "right")),
        initial=(frame(1),),
        segments=(
            Text(text="Let me see."),
            Call(text="<generate>a fall</generate>", tag="generate", query="a fall"),
            Frames(tag="generate", frames=(real.model_copy(update={"provenance": made}),)),
            Text(text="Time is up.</think>", author="graph"),
            Answer(text="<answer>A</answer>", body="A"),
        ),
    )
    rollout = render(run, Prompt({"generate": "x"}, "short"), end_of_turn=True)
    assert str(rollout) == (
        "<|im_start|>user\n<0.0 seconds><|vision_start|><|image_pad|><|vision_end|>"
        "\nWhere?\nA. left\nB. right\nTools: generate."
        "<|im_end|>\n<|im_start|>assistant\n<think>\nLet me see.<generate>a fall</generate>"
        "<frame><imagined><|vision_start|><|image_pad|><|vision_end|></frame>"
        "Time is up.</think><answer>A</answer><|im_end|>"
    )
    assert [p.text for p in rollout.pieces if isinstance(p, TextPiece) and p.trainable] == [
        "Let me see.<generate>a fall</generate>",
        "<answer>A</answer>",
    ]
    assert rollout.frames == run.shown
    assert rollout.session == "run"
    assert sum(isinstance(p, ImagePiece) for p in rollout.pieces) == 2


def test_the_turn_is_closed_only_after_an_answer(trace: Callable[..., Trace]) -> None:
    run = trace(question=Question(text="Where?"), segments=(Text(text="Hm."),))
    assert str(render(run, PROMPT, end_of_turn=True)).endswith("Hm.")


@pytest.mark.parametrize(
    ("seconds", "written"), [(0.0, "<0.0 seconds>"), (3.6667, "<3.7 seconds>"), (61.25, "<61.2 seconds>")]
)
def test_times_are_written_to_a_tenth(seconds: float, written: str) -> None:
    assert stamp(seconds) == written


def test_vision_and_turn_marks_are_forbidden_and_ends_are_not(codec: TextCodec) -> None:
    marks = added(codec)
    allowed = {*QWEN_ADDED, "<|im_end|>", "<|endoftext|>"}
    assert codec.forbidden() == sorted(i for t, i in marks.items() if t not in allowed)


FIRST = Turn(question="What colour\nis the circle?", answer="red <|im_end|>")


@pytest.mark.parametrize(
    ("style", "begins"),
    [
        (
            "short",
            "\nEarlier: What colour is the circle? red <|im_end|>\nEarlier: Sure? yes\nAnd the ring?\n",
        ),
        (
            "paper",
            "\nThese questions about the video were asked before, and these answers were given:\n"
            "- Question: What colour is the circle? Answer: red <|im_end|>\n- Question: Sure? Answer: yes\n"
            "The question now is:\nAnd the ring?\n",
        ),
    ],
)
def test_earlier_turns_are_plain_text_before_the_question(
    codec: TextCodec, trace: Callable[..., Trace], style: str, begins: str
) -> None:
    turns = (FIRST, Turn(question="Sure?", answer="yes"))
    prompt = Prompt({"retrieve": "a real frame"}, style)
    alone = prompt.question(Question(text="And the ring?"))
    asked = Question(text="And the ring?", earlier=turns)
    assert prompt.question(asked) == begins + alone.removeprefix("\nAnd the ring?\n")
    assert Prompt({}, "zero-shot").question(asked).startswith(begins) == (style == "paper")
    pieces = [p for p in render(trace(question=asked), prompt).pieces if isinstance(p, TextPiece)]
    (piece,) = [p for p in pieces if "And the ring?" in p.text]
    assert piece.trust == "plain"
    assert not set(codec.encode(piece.text, piece.trust)) & set(added(codec).values())


@pytest.mark.parametrize("trust", ["control", "plain"])
def test_the_work_for_a_text_of_marks_grows_with_its_length(codec: TextCodec, trust: Trust) -> None:
    read: list[int] = []

    class Counted:
        def search(self, text: str, position: int) -> Any:
            found = pattern.search(text, position)
            read.append((found.end() if found else len(text)) - position)
            return found

    pattern = codec._pattern
    counted = TextCodec(codec.tokenizer)
    counted._pattern = Counted()  # type: ignore[assignment]
    text = "<|im_start|>" * 500
    one = codec.encode("<|im_start|>", "control")
    # A spelled-out mark is cut after its first character.
    cut = (
        codec.encode("<", "plain"),
        codec.encode("|im_start|><", "plain"),
        codec.encode("|im_start|>", "plain"),
    )
    expected = one * 500 if trust == "control" else cut[0] + cut[1] * 499 + cut[2]
    assert counted.encode(text, trust) == expected
    assert sum(read) < 2 * len(text)
