"""The in-process reasoner, compared with a simple loop that reads the whole sequence for every token.

The model is a random-weight micro VLM with enlarged weights and an own head, so that its text depends on the
whole sequence. A test with a second loop allows only whole words: the tokenizer gives their text the same
ids, which is nearly always the case for the text of a trained model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act2see.agent.packing import Packer
from act2see.agent.parser import StopReason
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Delta, Done, Request, Sampling
from act2see.agent.reasoners.kv import RowCache
from act2see.agent.reasoners.transformers import TransformersReasoner
from act2see.agent.rollout import Rollout, render
from act2see.errors import ReasonerError
from act2see.tools.frames import FrameRef
from act2see.trace.record import Frames, Question, Text
from act2see.trace.trace import Trace

Source = Callable[[FrameRef], np.ndarray]
PROMPT = Prompt({"retrieve": "a real frame"}, "short")
GREEDY = Sampling()


@pytest.fixture(scope="module")
def model(vlm_folder: Path) -> Any:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    made: Any = Qwen3VLForConditionalGeneration.from_pretrained(vlm_folder, dtype=torch.float32).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in made.named_parameters():
            if p.dim() > 1 and "embed" not in name:
                p.mul_(4.0)
        made.lm_head.weight = torch.nn.Parameter(torch.randn_like(made.lm_head.weight))
    return made


@pytest.fixture(scope="module")
def ids_other_than_words(packer: Packer) -> list[int]:
    tokenizer = packer.codec.tokenizer
    whole = {
        i
        for t, i in tokenizer.get_vocab().items()
        if t.startswith("\u0120") and t[1:].isalpha() and t[1:].isascii()
    }
    assert len(whole) > 50
    return sorted(set(range(len(tokenizer))) - whole)


@pytest.fixture
def make(model: Any, packer: Packer, source: Source) -> Iterator[Callable[..., TransformersReasoner]]:
    def build(rows: int = 8, **options: Any) -> TransformersReasoner:
        return TransformersReasoner(model, packer, source, rows=rows, **options)

    return build


@pytest.fixture
def rollout(trace: Callable[..., Trace], frame: Callable[..., FrameRef]) -> Callable[..., Rollout]:
    """`rollout(n, *segments)` returns run n with its own frames. The question is longer for a higher n."""

    def build(n: int, *segments: Any) -> Rollout:
        text = "What colour does the ring turn" + " when it blinks" * n
        run = trace(
            id=f"run-{n}",
            question=Question(text=text),
            initial=(frame(10 + n), frame(50 + n, 1.0)),
            segments=segments,
        )
        return render(run, PROMPT)

    return build


def write_without_cache(
    model: Any, packer: Packer, rollout: Rollout, source: Source, count: int, forbidden: list[int]
) -> str:
    """Return the text of at most `count` greedy tokens, reading the whole sequence again for each."""
    import torch

    packed = packer.pack(rollout)
    ends = set(packer.codec.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))
    written: list[int] = []
    with torch.inference_mode():
        while len(written) < count:
            ids = torch.tensor([packed.ids + written])
            logits = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=packer.patches(packed.images, source),
                image_grid_thw=torch.tensor(packed.grids),
                mm_token_type_ids=(ids == packer.image_token_id).int(),
                use_cache=False,
            ).logits[0, -1]
            logits[forbidden] = -torch.inf
            token = int(logits.argmax())
            if token in ends:
                break
            written.append(token)
    return packer.codec.decode(written)


async def write(
    reasoner: TransformersReasoner,
    rollout: Rollout,
    count: int = 12,
    sampling: Sampling = GREEDY,
    until: Callable[[str], bool] = lambda text: False,
) -> tuple[str, Done]:
    pieces: list[str] = []
    async for item in reasoner.stream(Request(rollout, count, until, sampling=sampling)):
        if isinstance(item, Done):
            return "".join(pieces), item
        pieces.append(item.text)
    raise AssertionError("no Done")


async def test_second_loop_reads_only_new_tokens(
    make: Any,
    model: Any,
    packer: Packer,
    rollout: Any,
    frame: Any,
    source: Source,
    ids_other_than_words: list[int],
) -> None:
    reasoner = make(forbidden=ids_other_than_words)
    first = rollout(0)
    text, done = await write(reasoner, first)
    assert text == write_without_cache(model, packer, first, source, 12, ids_other_than_words)
    assert len(set(text.split())) > 3, "a model that repeats itself tests nothing"
    read = len(packer.pack(first).ids)
    assert done == Done(StopReason.LENGTH, prefilled=read, cached=0, decoded=12, repeated=0)

    shown = Frames(tag="retrieve", frames=(frame(90, 0.5, 96, 48),), note="here")
    second = rollout(0, Text(text=text), shown)
    again, done = await write(reasoner, second)
    assert again == write_without_cache(model, packer, second, source, 12, ids_other_than_words)
    # All tokens were in the cache except the one that was written last.
    assert done.cached == read + 12 - 1
    assert done.prefilled == len(packer.pack(second).ids) - done.cached
    assert done.repeated == 0

    others = set()
    for number in (91, 20, 150, 220):
        shown = Frames(tag="retrieve", frames=(frame(number, 0.5, 96, 48),), note="here")
        other, _ = await write(reasoner, rollout(0, Text(text=text), shown))
        others.add(other)
    assert others - {again}, "the text must depend on the frame's pixels"


async def test_exchanged_frame_is_read_again(
    make: Any, model: Any, packer: Packer, trace: Any, frame: Any, source: Source
) -> None:
    reasoner = make()
    runs = [
        render(trace(question=Question(text="Where?"), initial=(frame(1), frame(n, 1.0))), PROMPT)
        for n in (2, 3)
    ]
    await write(reasoner, runs[0])
    text, done = await write(reasoner, runs[1])
    assert text == write_without_cache(model, packer, runs[1], source, 12, packer.codec.forbidden())
    assert done.cached == packer.pack(runs[1]).starts[1]


async def test_batched_rollouts_write_the_same_text_as_alone(make: Any, rollout: Any) -> None:
    rollouts = [rollout(n) for n in range(8)]
    alone, together = make(), make()
    expected = [await write(alone, r, 16) for r in rollouts]
    got = await asyncio.gather(*(write(together, r, 16) for r in rollouts))
    assert [t for t, _ in got] == [t for t, _ in expected]
    assert len({t for t, _ in got}) == 8
    assert together.forwards < alone.forwards / 3


async def test_more_rollouts_than_rows_wait_and_finish(make: Any, rollout: Any) -> None:
    rollouts = [rollout(n) for n in range(5)]
    wide, narrow = make(rows=5), make(rows=2)
    expected = await asyncio.gather(*(write(wide, r, 6) for r in rollouts))
    assert await asyncio.gather(*(write(narrow, r, 6) for r in rollouts)) == expected


async def test_evicted_row_is_read_again(make: Any, rollout: Any) -> None:
    reasoner = make(rows=1)
    first, _ = await write(reasoner, rollout(0))
    await write(reasoner, rollout(1))
    again, done = await write(reasoner, rollout(0))
    assert again == first
    assert done.cached == 0


async def test_forget_frees_the_row(make: Any, rollout: Any) -> None:
    reasoner = make(rows=2)
    await write(reasoner, rollout(0))
    reasoner.forget("run-0")
    assert (await write(reasoner, rollout(0)))[1].cached == 0
    reasoner.forget("unknown")


async def test_sampling_repeats_with_its_seed(make: Any, rollout: Any) -> None:
    reasoner = make()

    async def draw(top_p: float, seed: int) -> str:
        text, _ = await write(reasoner, rollout(0), 12, Sampling(2.0, top_p, seed))
        return text

    for top_p in (1.0, 0.9):
        first = await draw(top_p, 5)
        assert await draw(top_p, 5) == first
        assert await draw(top_p, 6) != first
    # The other rows of the batch do not change the text.
    sampling = Sampling(2.0, 0.9, 5)
    together = await asyncio.gather(*(write(reasoner, rollout(n), 12, sampling) for n in range(4)))
    assert together[0][0] == (await write(make(), rollout(0), 12, sampling))[0]
    greedy, _ = await write(reasoner, rollout(0))
    for narrow in (Sampling(2.0, 1e-6, 1), Sampling(2.0, top_k=1, seed=2), Sampling(2.0, min_p=1.0, seed=3)):
        assert (await write(reasoner, rollout(0), 12, narrow))[0] == greedy


async def test_until_stops_decoding_at_once(make: Any, rollout: Any) -> None:
    reasoner = make()
    seen: list[str] = []

    def until(text: str) -> bool:
        seen.append(text)
        return len(seen) == 3

    text, done = await write(reasoner, rollout(0), 50, until=until)
    assert done.stop == "until"
    assert text == "".join(seen)
    assert len(seen) == 3
    assert reasoner.forwards == done.decoded - 1  # the prefill gives the first token


async def test_forbidden_marks_are_never_written(make: Any, packer: Packer, rollout: Any) -> None:
    reasoner = make()
    temperature = 1e6  # all tokens are equally likely
    results = await asyncio.gather(
        *(write(reasoner, rollout(n), 120, Sampling(temperature, 1.0, n)) for n in range(8))
    )
    assert sum(done.decoded for _, done in results) > 300
    marks = [packer.codec.tokenizer.convert_ids_to_tokens(i) for i in packer.codec.forbidden()]
    assert len(marks) >= 5
    for text, _ in results:
        assert not [mark for mark in marks if mark in text]


async def test_end_of_turn_mark_is_left_out_of_the_text(make: Any, packer: Packer, rollout: Any) -> None:
    end = packer.codec.tokenizer.convert_tokens_to_ids("<|im_end|>")
    reasoner = make(forbidden=[i for i in range(len(packer.codec.tokenizer)) if i != end])
    assert await write(reasoner, rollout(0)) == (
        "",
        Done(StopReason.EOS, len(packer.pack(rollout(0)).ids), 0, 0, 0),
    )


async def test_rollout_longer_than_the_context_raises(make: Any, packer: Packer, rollout: Any) -> None:
    length = len(packer.pack(rollout(0)).ids)
    with pytest.raises(
        ReasonerError,
        match=rf"the rollout has {length} tokens and qwen3-vl takes {length}: show fewer initial frames",
    ):
        await write(make(context=length), rollout(0))
    reasoner = make(context=length + 4)
    assert (await write(reasoner, rollout(0), 50))[1].stop == "length"
    with pytest.raises(ReasonerError, match=r"budget\.calls"):
        await write(reasoner, rollout(3))
    assert (await write(reasoner, rollout(0), 2))[1].decoded == 2  # the worker still runs


async def test_missing_frame_fails_its_run_alone(
    make: Any, model: Any, vlm_folder: Path, rollout: Any, source: Source
) -> None:
    def missing(ref: FrameRef) -> np.ndarray:
        if ref.digest.startswith(f"{10:08x}"):
            raise OSError("the disk is gone")
        return source(ref)

    reasoner = TransformersReasoner(model, Packer.from_pretrained(vlm_folder), missing, rows=2)
    bad, good = await asyncio.gather(
        write(reasoner, rollout(0), 4), write(reasoner, rollout(1), 4), return_exceptions=True
    )
    assert isinstance(bad, ReasonerError)
    assert str(bad).startswith("qwen3-vl failed: ")
    assert "the disk is gone" in str(bad)
    assert good == await write(make(), rollout(1), 4)


async def test_leaving_early_frees_the_row(make: Any, rollout: Any) -> None:
    reasoner = make(rows=1)
    stream = reasoner.stream(Request(rollout(0), 3000))
    assert isinstance(await anext(stream), Delta)
    await stream.aclose()
    _, done = await asyncio.wait_for(write(reasoner, rollout(1), 4), 20)
    assert done.decoded == 4
    assert reasoner.forwards < 1000


async def test_from_pretrained_loads_a_checkpoint_folder(
    vlm_folder: Path, rollout: Any, source: Source, tmp_path: Path
) -> None:
    reasoner = TransformersReasoner.from_pretrained(vlm_folder, source, rows=1)
    assert reasoner.name == vlm_folder.name
    assert reasoner.context == 4096
    assert (await write(reasoner, rollout(0), 3))[1].decoded == 3


def test_row_cache_rows_differ_in_length() -> None:
    import torch

    torch.manual_seed(0)
    cache = RowCache(layers=2, rows=3, heads=2, head_dim=4, dtype=torch.float32, device="cpu", length=4)
    a, b = torch.randn(2, 1, 2, 3, 4), torch.randn(2, 1, 2, 1, 4)
    for row, new in ((0, a), (1, b)):
        assert cache.aim(row, [0], new.shape[3]) == new.shape[3]
        for layer in range(2):
            keys, values = cache.update(new[layer], -new[layer], layer)
            assert torch.equal(keys, new[layer])
            assert torch.equal(values, -new[layer])
    # One token for both, each at its own place.
    step = torch.randn(2, 2, 1, 4)
    assert cache.aim(0, [3, 1], 1) == 4
    keys, _ = cache.update(step, -step, 0)
    assert keys.shape == (2, 2, 4, 4)
    assert torch.equal(keys[0], torch.cat([a[0, 0], step[0]], 1))
    assert torch.equal(keys[1, :, :2], torch.cat([b[0, 0], step[1]], 1))
    assert cache.get_seq_length() == 4


def test_row_cache_swaps_and_grows_without_loss() -> None:
    import torch

    cache = RowCache(layers=1, rows=2, heads=1, head_dim=2, dtype=torch.float32, device="cpu", length=2)
    one, two = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 2.0)
    for row, new in ((0, one), (1, two)):
        cache.aim(row, [0], 2)
        cache.update(new, -new, 0)
    cache.swap(0, 1)
    cache.swap(1, 1)
    more = torch.full((2, 1, 1, 2), 3.0)
    assert cache.aim(0, [2, 2], 1) == 3
    assert cache.length == 4
    keys, values = cache.update(more, -more, 0)
    assert keys[0, 0, :, 0].tolist() == [2, 2, 3]
    assert keys[1, 0, :, 0].tolist() == [1, 1, 3]
    assert torch.equal(values, -keys)
    cache.aim(0, [40], 1)
    assert cache.length == 41
    assert cache.update(more[:1], more[:1], 0)[0][0, 0, :3, 0].tolist() == [2, 2, 3]


def test_cache_grows_no_further_than_its_limit() -> None:
    import torch

    cache = RowCache(1, 1, 1, 2, torch.float32, "cpu", length=4, limit=10)
    lengths = []
    for length in (4, 8, 9):
        cache.aim(0, [length], 1)
        lengths.append(cache.length)
    assert lengths == [8, 10, 10]
