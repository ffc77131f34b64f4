"""python -m benchmarks.gpu.extra_look [--tiny]: what one more look costs a Qwen3-VL-8B of random weights.

After the first loop (initial frames, question, a thought and a call) one frame comes back. What loop 2 reads,
the call's last token, the frame and its marks, is timed beside the reading of one frame's tokens by
themselves, with nothing before them, and beside the reading of everything anew. Goal: at most 1.5 times one
frame's tokens.

Operations of a reading: 2 N a token for the language model, 2 N_v a patch for the vision tower, 4 q a layer
for each pair of a new token and one it attends to, and the head for one token; the floor of memory is the
weights, once. Times are medians.
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
from benchmarks.gpu.common import arguments, bounds, make_reasoner, report, sizes
from benchmarks.gpu.forced import Forced
from benchmarks.gpu.sft_8b import make_trace


def floors(model: Any, new: int, before: int, patches: int, bound: dict[str, float]) -> dict[str, float]:
    """Seconds that reading takes at the least: by arithmetic and by the weights' way through memory."""
    c, n = model.config.text_config, sizes(model)
    pairs = new * before + new * (new + 1) / 2
    attention = 4 * pairs * c.num_attention_heads * c.head_dim * c.num_hidden_layers
    needed = 2 * n["language"] * new + attention + 2 * n["vision"] * patches + 2 * n["head"]
    moved = sum(n.values()) * next(model.parameters()).element_size()
    # A copy reads and writes: weights are only read, at the same bytes a second.
    return {
        "teraflop": needed / 1e12,
        "arithmetic": needed / bound["matrix product, op/s"],
        "memory": moved / bound["copy, bytes/s"],
    }


async def read(engine: Forced, rollout: Rollout, tokens: int = 1) -> Any:
    done: Any = None
    async for item in engine.stream(Request(rollout, tokens)):
        done = item
    return done


async def measure(engine: Forced, rollout: Rollout, keep: int, times: int) -> tuple[float, Any]:
    """Median seconds of reading a rollout of which so many tokens are known."""
    done = await read(engine, rollout)
    engine.prefills.clear()
    for _ in range(times):
        engine.rewind(rollout.session, keep)
        done = await read(engine, rollout)
    return statistics.median(s for _, s in engine.prefills), done


async def look(
    model: Any, folder: Path, store: FrameStore, given: Any, bound: dict[str, float]
) -> dict[str, Any]:
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
    loop1 = await read(engine, first, len(engine.script(0)))
    began = engine.prefills[-1][1]
    known = engine.known(trace.id)
    two, extra = await measure(engine, second, known, given.times)
    anew, whole = await measure(engine, second, 0, max(1, given.times // 5))
    engine.close()
    _, rows, columns = engine.packer.grid(frame.width, frame.height)
    patches = rows * columns
    return {
        "context before": extra.cached,
        "loop 1": {"tokens": loop1.prefilled, "seconds": began},
        "loop 2": {"tokens": extra.prefilled, "repeated": extra.repeated, "seconds": two}
        | {"floor, " + k: v for k, v in floors(model, extra.prefilled, extra.cached, patches, bound).items()},
        "one frame alone": {"tokens": single.prefilled, "seconds": one}
        | {"floor, " + k: v for k, v in floors(model, single.prefilled, 0, patches, bound).items()},
        "loop 2 without a cache": {"tokens": whole.prefilled, "seconds": anew},
        "times cheaper by the cache": anew / two,
        "goals": {"times one frame's tokens": at_most(two / one, 1.5)},
    }


def run(given: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """The bounds, and the figures."""
    bound = bounds(given.tiny)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "base"
        model = make_reasoner(folder, given.tiny)
        return bound, asyncio.run(look(model, folder, FrameStore(Path(temporary) / "frames"), given, bound))


def main() -> None:
    given = arguments(
        __doc__ or "",
        40,
        frames=(64, 4, "initial frames"),
        side=(448, 64, "pixels of a frame's side"),
        words=(1500, 40, "of thought"),
        times=(20, 3, "measurements"),
    )
    report(given.tiny, *run(given))


if __name__ == "__main__":
    main()
