"""python -m benchmarks.gpu.trace_8b [--tiny]: one whole trace with the paper's three models (random weights)
on one GPU.

The graph of the `paper` preset runs view -> reason -> retrieve -> reason -> generate -> reason -> answer on a
generated 720p clip. The reasoner writes a script, since random weights write no tags, but runs every forward
pass (`forced.py`). The encoder finds a frame for every query. The question is asked twice: the first run
indexes the clip, the second uses the index.

To decode a token, the GPU reads the weights of the language model and the head, and the cached keys and
values. The floor is the time of these bytes at the bandwidth of a large copy. The other GPU benchmarks report
the floors of the other steps. Goal: decoding at 70 % of the bandwidth bound.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import build_parts
from act2see.micro.questions import make_item
from act2see.micro.world import CELLS, COLOURS, SHAPES, cell_name, write_clip as board_clip
from act2see.tools.runtime.weights import pick_dtype
from act2see.trace.trace import Trace
from benchmarks import at_least
from benchmarks.decode import write_clip
from benchmarks.gpu.common import (
    bounds,
    count_weights,
    device_of,
    make_blip2,
    make_generator,
    make_reasoner,
    parse_arguments,
    report,
    weightless,
)
from benchmarks.gpu.extra_look import floors
from benchmarks.gpu.forced import Forced

KINDS = ["text", "call", "frames", "text", "call", "frames", "text", "answer"]


def build_config(folder: Path, given: Any) -> Config:
    """Return the preset, with local folders in place of the hub's names, so that no weights are missing."""
    preset = load_config("micro" if given.tiny else "paper")
    generator = folder / "generator"
    generator.mkdir(exist_ok=True)
    return load_config(
        preset,
        reasoner={"weights": str(folder / "vlm")},
        encoder={"weights": str(folder / "encoder")},
        tools={"generate": {"options": {"weights": str(generator)}}},
        cache=str(folder / "cache"),
        view={"max_frames": given.frames, "guard": None},
        budget={"tokens": 4 * given.words + 256},
    )


def make_clip(folder: Path, given: Any) -> str:
    """Write a clip with at least one second for each initial frame, and return its path."""
    if given.tiny:
        return str(board_clip(make_item("blink", 0, "test").clip, folder / "clip.mp4"))
    write_clip(folder / "clip.mp4", 1280, 720, -(-given.frames // 20) * 20)
    return str(folder / "clip.mp4")


def make_script(words: int) -> tuple[tuple[str, ...], ...]:
    """Return the script of the three loops, with about `words` words of thought in each.

    The sentences vary, because the graph stops a model that repeats itself.
    """
    rng = random.Random(0)
    sentences = []
    for _ in range(max(1, words // 7)):
        colour, shape, cell = rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.choice(CELLS)
        sentences.append(f"now the {colour} {shape} is at {cell_name(cell)}")
    thought = ". ".join(sentences)
    return (
        (thought, "<retrieve>the red circle blinks</retrieve>"),
        (thought, "<generate>the red circle is at the top</generate>"),
        (thought + "</think>", "<answer>the top</answer>"),
    )


async def ask(graph: Any, clip: str) -> tuple[Trace, float]:
    """Ask a question; return the trace and the seconds."""
    started = time.perf_counter()
    out = await graph.ainvoke({"video": clip, "question": "Where is the circle?", "options": []})
    return Trace.model_validate(out["trace"]), time.perf_counter() - started


def loop_figures(engine: Forced, model: Any, trace: Trace, bound: dict[str, float]) -> list[dict[str, Any]]:
    """Return the prefill and decoding times of each loop with their floors.

    Args:
        engine: The reasoner, with its recorded times.
        model: Its model.
        trace: The trace of the run.
        bound: The machine's limits, as `bounds` returns them.
    """
    c, n = model.config.text_config, count_weights(model)
    size = next(model.parameters()).element_size()
    decodes = iter(engine.decodes)
    out = []
    for (tokens, seconds), loop in zip(engine.prefills, trace.usage.loops, strict=True):
        steps = [next(decodes) for _ in range(loop.decoded - 1)]
        context = statistics.mean(length for length, _ in steps)
        cache = 2 * context * c.num_key_value_heads * c.head_dim * c.num_hidden_layers
        moved = size * (n["language"] + n["head"] + cache)  # bytes read for a token
        step = statistics.median(s for _, s in steps)
        floor = floors(model, tokens, loop.cached, 0, bound)
        out.append(
            {
                "read": tokens,
                "known": loop.cached,
                "decoded": loop.decoded,
                "seconds to read": seconds,
                "floor of reading, without vision": max(floor["arithmetic"], floor["memory"]),
                "seconds a token": step,
                "floor a token": moved / bound["copy, bytes/s"],
                "share of bandwidth": moved / bound["copy, bytes/s"] / step,
            }
        )
    return out


async def ask_twice(
    config: Config, given: Any, folder: Path, model: Any, bound: dict[str, float]
) -> dict[str, Any]:
    """Ask the question on a new clip and again on the indexed clip; return the figures.

    Args:
        config: The configuration of the graph.
        given: The command's options.
        folder: The folder of weights and the clip.
        model: The VLM.
        bound: The machine's limits, as `bounds` returns them.

    Raises:
        RuntimeError: If the trace does not follow the script.
    """
    parts = build_parts(config)
    store = parts.resources.store
    engine = Forced.from_pretrained(
        folder / "vlm",
        store,
        device=device_of(given.tiny),
        rows=config.reasoner.rows,
        dtype="float32" if given.tiny else "bfloat16",
    )
    assert isinstance(engine, Forced)
    engine.lines = make_script(given.words)
    graph = create_act2see(config, parts=dataclasses.replace(parts, reasoner=engine))
    clip = make_clip(folder, given)
    _, first = await ask(graph, clip)
    encoded = parts.resources.finder.encoded
    engine.prefills.clear()
    engine.decodes.clear()
    trace, seconds = await ask(graph, clip)
    engine.close()
    kinds = [s.kind for s in trace.segments]
    if kinds != KINDS or trace.answer != "the top":
        raise RuntimeError(f"the trace does not follow the script: {kinds}, {trace.answer!r}")
    if not all(s.frames for s in trace.segments if s.kind == "frames"):
        raise RuntimeError("a tool returned no frame")
    loops = loop_figures(engine, model, trace, bound)
    share = statistics.median(loop["share of bandwidth"] for loop in loops)
    return {
        "initial frames": len(trace.initial),
        "seconds, first question": first,
        "frames encoded for it": encoded,
        "seconds, second question": seconds,
        "seconds by node": dict(trace.usage.node_seconds),
        "loops": loops,
        "goals": {"share of the bandwidth bound, decoding at batch 1": at_least(share, 0.7)},
    }


def run(given: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the bounds and the figures."""
    bound = bounds(given.tiny)
    if not given.tiny:
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = build_config(folder, given)
        model = make_reasoner(folder / "vlm", given.tiny)
        # Real weights are loaded in the preset's data type, so the random ones must have it too.
        dtype = getattr(torch, pick_dtype(config.encoder.dtype, device_of(given.tiny)))
        blip2 = make_blip2(folder / "encoder", given.tiny, dtype)
        with weightless(model, blip2, make_generator(given.tiny)):
            return bound, asyncio.run(ask_twice(config, given, folder, model, bound))


def main() -> None:
    given = parse_arguments(
        __doc__ or "", 80, frames=(120, 4, "initial frames"), words=(350, 14, "words of thought in each loop")
    )
    report(given.tiny, *run(given))


if __name__ == "__main__":
    main()
