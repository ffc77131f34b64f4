"""python -m benchmarks.gpu.extra_look [--tiny]: the cost of one more look for a Qwen3-VL-8B with random
weights.

After the first loop (initial frames, question, a thought and a call) one frame is returned. The prefill of
loop 2 (the call's last token, the frame and its marks) is compared with the prefill of one frame's tokens
without context, and with a prefill of everything without a cache. Goal: at most 1.5 times one frame's tokens.

Operations of a prefill: 2 N per token for the language model, 2 N_v per patch for the vision tower, 4 q per
layer for each pair of a new token and a token it attends to, and the head for one token. The memory floor is
reading the weights once. Times are medians.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Request
from act2see.agent.rollout import ImagePiece, Rollout, render
from act2see.tools.video.store import FrameStore
from benchmarks import at_most
from benchmarks.gpu.common import bounds, count_weights, make_reasoner, parse_arguments, report
from benchmarks.gpu.forced import Forced
from benchmarks.gpu.sft_8b import make_trace


def floors(model: Any, new: int, before: int, patches: int, bound: dict[str, float]) -> dict[str, float]:
    """Return the minimum seconds of a prefill, by arithmetic and by memory traffic.

    Args:
        model: A Qwen3-VL.
        new: Tokens to read.
        before: Tokens in the cache.
        patches: Image patches to encode.
        bound: The machine's limits, as `bounds` returns them.
    """
    c, n = model.config.text_config, count_weights(model)
    pairs = new * before + new * (new + 1) / 2
    attention = 4 * pairs * c.num_attention_heads * c.head_dim * c.num_hidden_layers
    needed = 2 * n["language"] * new + attention + 2 * n["vision"] * patches + 2 * n["head"]
    moved = sum(n.values()) * next(model.parameters()).element_size()
    # A copy reads and writes; weights are only read, at the same bytes per second.
    return {
        "teraflop": needed / 1e12,
        "arithmetic": needed / bound["matrix product, op/s"],
        "memory": moved / bound["copy, bytes/s"],
    }


async def continue_rollout(engine: Forced, rollout: Rollout, tokens: int = 1) -> Any:
    """Continue a rollout by some tokens and return its `Done`."""
    done: Any = None
    async for item in engine.stream(Request(rollout, tokens)):
        done = item
    return done


async def measure(engine: Forced, rollout: Rollout, keep: int, times: int) -> tuple[float, Any]:
    """Return the median seconds of a rollout's prefill, and its `Done`.

    Args:
        engine: The reasoner.
        rollout: The rollout.
        keep: The number of tokens that stay in the cache.
        times: The number of repetitions.
    """
    done = await continue_rollout(engine, rollout)
    engine.prefills.clear()
    for _ in range(times):
        engine.rewind(rollout.session, keep)
        done = await continue_rollout(engine, rollout)
    return statistics.median(s for _, s in engine.prefills), done


async def measure_look(
    model: Any, folder: Path, store: FrameStore, given: Any, bound: dict[str, float]
) -> dict[str, Any]:
    """Measure both loops, one frame alone, and a prefill without a cache; return the figures.

    Args:
        model: The VLM.
        folder: The folder of its tokenizer.
        store: The store of the frames.
        given: The command's options.
        bound: The machine's limits, as `bounds` returns them.
    """
    trace = make_trace(0, store, given.frames, given.side, given.words)
    thought, call, shown = trace.segments[:3]
    prompt = Prompt({"retrieve": "frames of the video that show what you describe"}, "paper")
    engine = Forced(model, Packer.from_pretrained(folder), store, rows=2)
    engine.lines = ((thought.text, call.text), ("",))  # type: ignore[union-attr]
    first = render(trace.model_copy(update={"segments": ()}), prompt)
    second = render(trace.model_copy(update={"segments": trace.segments[:3]}), prompt)
    frame = shown.frames[0]  # type: ignore[union-attr]
    alone = Rollout((ImagePiece(frame),), "alone")
    one, single = await measure(engine, alone, 0, given.times)
    loop1 = await continue_rollout(engine, first, len(engine.script(0)))
    first_seconds = engine.prefills[-1][1]
    known = engine.cached_tokens(trace.id)
    two, extra = await measure(engine, second, known, given.times)
    uncached_seconds, whole = await measure(engine, second, 0, max(1, given.times // 5))
    engine.close()
    _, rows, columns = engine.packer.grid(frame.width, frame.height)
    patches = rows * columns
    return {
        "context before": extra.cached,
        "loop 1": {"tokens": loop1.prefilled, "seconds": first_seconds},
        "loop 2": {"tokens": extra.prefilled, "repeated": extra.repeated, "seconds": two}
        | {"floor, " + k: v for k, v in floors(model, extra.prefilled, extra.cached, patches, bound).items()},
        "one frame alone": {"tokens": single.prefilled, "seconds": one}
        | {"floor, " + k: v for k, v in floors(model, single.prefilled, 0, patches, bound).items()},
        "loop 2 without a cache": {"tokens": whole.prefilled, "seconds": uncached_seconds},
        "times cheaper by the cache": uncached_seconds / two,
        "goals": {"times one frame's tokens": at_most(two / one, 1.5)},
    }


def run(given: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the bounds and the figures."""
    bound = bounds(given.tiny)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "base"
        model = make_reasoner(folder, given.tiny)
        return bound, asyncio.run(
            measure_look(model, folder, FrameStore(Path(temporary) / "frames"), given, bound)
        )


def main() -> None:
    given = parse_arguments(
        __doc__ or "",
        40,
        frames=(64, 4, "initial frames"),
        side=(448, 64, "pixels of a frame's side"),
        words=(1500, 40, "words of thought"),
        times=(20, 3, "repetitions"),
    )
    report(given.tiny, *run(given))


if __name__ == "__main__":
    main()
