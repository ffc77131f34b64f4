"""The ids of a rollout in Qwen's own vocabulary: those of training, of inference, and of the whole text.

Micro's vocabulary holds few tokens that span a sentence and a tag. Qwen's holds ` <`, `.</` and many more.
Its 151,643 ranks come with the package `dashscope`; the added tokens are those of Qwen3's
`tokenizer_config.json`.
"""

from __future__ import annotations

import base64
import importlib.util
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.rollout import TextCodec, TextPiece, render
from act2see.graphs.reasoning import open_answer
from act2see.tools.frames import FrameRef
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Answer, Call, Frames, Question, Segment, Text
from act2see.trace.trace import Trace
from act2see.training.sft.collate import IGNORED, collate

# From Qwen3's tokenizer_config.json, in the order of their ids; the first is 151643.
ADDED = (  # noqa: SIM905 - one string is easier to compare with the published file
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|> "
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> "
    "<|file_sep|> <tool_response> </tool_response> <think> </think>"
).split()
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PROMPT = Prompt({"retrieve": "a real frame", "generate": "an imagined frame"})
CHAINS = 600
# Beginnings, middles and ends of thoughts, with the joints at which tokens can span two segments.
SENTENCES = (
    "Let me look.",
    "The ring is green,",
    "Wait: at 12.5 s?",
    "我需要再看一帧。",
    "Où est le chat ?",
    "So it's `B`",
    "the man (left) waves",
    "**Step 2**:",
    "x<y and a</b",
    "Hmm…",
    "I think inside <think></think>, so",
    "naïve café",
    "🙂🙂",
    "¿Quién?",
    "1234567",
)
JOINTS = ("", " ", "\n", "\n\n", "  ", " \n", ".", ". ", "(", "`", ">", "</", "\t")


@pytest.fixture(scope="session")
def ranks() -> Path:
    found = importlib.util.find_spec("dashscope")
    if found is None or not found.submodule_search_locations:
        pytest.skip("Qwen's vocabulary comes with dashscope: pip install --no-deps dashscope")
    return Path(found.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"


@pytest.fixture(scope="session")
def qwen(ranks: Path) -> Any:
    """Qwen3's tokenizer, as transformers loads it."""
    from tokenizers import AddedToken, normalizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    backend = TikTokenConverter(vocab_file=str(ranks), pattern=PATTERN).converted()
    backend.normalizer = normalizers.NFC()
    for token in ADDED:
        is_special = token.startswith("<|")
        add = backend.add_special_tokens if is_special else backend.add_tokens
        add([AddedToken(token, normalized=False, special=is_special)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


@pytest.fixture(scope="session")
def qwen_packer(qwen: Any, packer: Packer) -> Packer:
    image = int(qwen.convert_tokens_to_ids("<|image_pad|>"))
    return Packer(qwen, packer.image_processor, image)


def random_text(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.randint(1, 4)):
        parts += [rng.choice(JOINTS), rng.choice(SENTENCES)]
    return "".join([*parts, rng.choice(JOINTS)])


def random_chain(rng: random.Random, frames: list[FrameRef]) -> tuple[Segment, ...]:
    """Return a whole chain: thoughts, calls that were run or refused, frames, and an answer."""
    segments: list[Segment] = []
    for _ in range(rng.randint(0, 4)):
        if rng.random() < 0.9:
            segments.append(Text(text=random_text(rng)))
        tag = rng.choice(("retrieve", "generate"))
        query = rng.choice(SENTENCES)
        segments.append(Call(text=f"<{tag}>{query}</{tag}>", tag=tag, query=query))
        shown = tuple(rng.sample(frames, rng.randint(0, 2)))
        segments.append(Frames(tag=tag, frames=shown, note="" if shown else "No frame matches."))
    segments.append(Text(text=random_text(rng)))
    if rng.random() < 0.3:
        segments.append(Text(text="</think>\n\n<answer>", author="graph"))
        return *segments, Answer(text="B</answer>", body="B", forced=True)
    close = rng.choice(("</think>\n\n", "</think>\n", "</think>"))
    return *segments, Text(text=close), Answer(text="<answer>B</answer>", body="B")


@pytest.fixture(scope="module")
def chains(
    trace: Callable[..., Trace], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Trace], FrameStore]:
    import numpy as np

    rng = random.Random(0)
    store = FrameStore(tmp_path_factory.mktemp("frames"))
    frames = [store.ref(np.full((48, 48, 3), 40 * n, np.uint8), float(n)) for n in range(5)]
    made = []
    for n in range(CHAINS):
        question = Question(text=rng.choice(SENTENCES), options=("left", "right"))
        made.append(
            trace(
                id=f"run-{n}",
                question=question,
                initial=(frames[0],),
                segments=random_chain(rng, frames),
            )
        )
    return made, store


def test_the_tokenizer_gives_qwens_own_ids(qwen: Any, ranks: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken", reason="the reference encoder is tiktoken")
    lines = ranks.read_bytes().splitlines()
    pairs = (line.split() for line in lines if line)
    own = {base64.b64decode(token): int(rank) for token, rank in pairs}
    assert len(own) == 151_643
    assert qwen.convert_tokens_to_ids(ADDED) == list(range(151_643, 151_669))
    encoding = tiktoken.Encoding("Qwen", pat_str=PATTERN, mergeable_ranks=own, special_tokens={})
    rng = random.Random(1)
    for _ in range(200):
        text = random_text(rng).replace("<think></think>", "")
        expected = encoding.encode_ordinary(unicodedata.normalize("NFC", text))
        assert qwen(text, add_special_tokens=False)["input_ids"] == expected


def test_a_token_of_the_vocabulary_spans_a_sentence_and_a_call(qwen: Any) -> None:
    """The reason why the model's text is one piece: apart, the two would have other ids."""
    assert qwen.tokenize("look. <retrieve>")[1:3] == [".", "Ġ<"]


def test_ids_in_training_equal_those_of_the_models_whole_text(
    chains: tuple[list[Trace], FrameStore], qwen: Any, qwen_packer: Packer
) -> None:
    traces, store = chains
    end = int(qwen.convert_tokens_to_ids("<|im_end|>"))
    for trace in traces:
        rollout = render(trace, PROMPT, end_of_turn=True)
        batch = collate(qwen_packer, [rollout], store, qwen.pad_token_id, end)
        labels = [i for i in batch["labels"][0].tolist() if i != IGNORED]
        expected: list[int] = []
        for text in model_texts(trace):
            expected += qwen(text, add_special_tokens=False)["input_ids"]
        assert labels == [*expected, end]


def model_texts(trace: Trace) -> list[str]:
    """The texts that the model wrote without a break, each between two pieces of the graph."""
    texts = [""]
    for segment in trace.segments:
        if isinstance(segment, Frames) or (isinstance(segment, Text) and segment.author == "graph"):
            texts.append("")
        else:
            texts[-1] += segment.text
    return [text for text in texts if text]


def test_ids_at_inference_are_the_beginning_of_those_in_training(
    chains: tuple[list[Trace], FrameStore], qwen_packer: Packer
) -> None:
    turns = 0
    for trace in chains[0]:
        whole = qwen_packer.pack(render(trace, PROMPT, end_of_turn=True)).ids
        for count, segment in enumerate(trace.segments, start=1):
            if not isinstance(segment, Frames):
                continue
            shown = trace.model_copy(update={"segments": trace.segments[:count]})
            ids = qwen_packer.pack(render(shown, PROMPT)).ids
            assert whole[: len(ids)] == ids
            turns += 1
    assert turns > 500


def test_a_continued_reply_has_the_ids_of_the_whole_reply(qwen_packer: Packer, trace: Any) -> None:
    rollout = render(trace(question=Question(text="Where?")), PROMPT)
    parts = rollout.extend("Let me look.").extend(" <retrieve>the ring</retrieve>")
    whole = rollout.extend("Let me look. <retrieve>the ring</retrieve>")
    assert parts == whole
    assert qwen_packer.pack(parts).ids == qwen_packer.pack(whole).ids


def test_a_closed_thought_has_the_ids_that_the_model_writes(qwen: Any, trace: Any) -> None:
    closing = open_answer(trace(question=Question(text="Where?"), segments=(Text(text="Hm."),)))
    ids = TextCodec(qwen).encode(closing.text, "control")
    assert qwen.convert_ids_to_tokens(ids) == ["</think>", "ĊĊ", "<", "answer", ">"]


def test_every_token_decodes_to_the_text_that_it_completes(qwen: Any) -> None:
    codec = TextCodec(qwen)
    rng = random.Random(2)
    for _ in range(100):
        text = unicodedata.normalize("NFC", random_text(rng)) + "."
        decode = codec.decoder()
        assert "".join(map(decode, codec.encode(text, "model"))) == text


def test_no_plain_text_spells_an_added_token(qwen: Any) -> None:
    codec = TextCodec(qwen)
    for token in ADDED:
        ids = codec.encode(f"see {token} here", "plain")
        assert max(ids) < 151_643
        assert codec.decode(ids) == f"see {token} here"


def test_a_rollout_holds_one_piece_for_the_text_between_two_frames(trace: Callable[..., Trace]) -> None:
    run = trace(
        question=Question(text="Where?"),
        segments=(
            Text(text="I look. "),
            Call(text="<retrieve>a ring</retrieve>", tag="retrieve", query="a ring"),
            Frames(tag="retrieve", note="No frame matches."),
            Text(text="So it is left.</think>\n\n"),
            Answer(text="<answer>left</answer>", body="left"),
        ),
    )
    pieces = render(run, PROMPT, end_of_turn=True).pieces
    assert [piece.text for piece in pieces if isinstance(piece, TextPiece) and piece.trainable] == [
        "I look. <retrieve>a ring</retrieve>",
        "So it is left.</think>\n\n<answer>left</answer>",
    ]
