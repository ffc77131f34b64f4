"""python -m benchmarks.gpu.generator_35 [--tiny]: an imagined frame of Stable Diffusion 3.5 Large with random
weights.

`Diffuser.make` makes a frame with the paper preset's options, as the generate tool does. Hooks time the text
encoders, the VAE's encoder and decoder, and each step of the transformer. Operations per step, with width d,
L blocks, I image tokens and X text tokens:

    image stream    24 I d^2 per block (query, key, value, output: 8; feed-forward: 16)
    text stream     24 X d^2 per block, 6 X d^2 in the last, which drops it
    attention       4 (I + X)^2 d per block

With guidance it is twice that, since each frame is also denoised without its prompt. The bound is this number
at the speed of a large matrix product.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import Any

import numpy as np

from act2see.graphs.config import load_config
from act2see.tools.diffusion import Diffuser, GenerationRequest
from act2see.tools.generate import Generate
from benchmarks.gpu.common import bounds, make_generator, parse_arguments, report, sync, timed, weightless


def operations(config: Any, width: int, height: int, scale: int, text: int, batch: int) -> int:
    """Return the operations of one step for a batch, by the formulas at the top.

    Args:
        config: The transformer's config.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.
        scale: Pixels per latent along a side.
        text: Text tokens.
        batch: Size of the batch; with guidance, twice the number of frames.
    """
    d, layers = config.num_attention_heads * config.attention_head_dim, config.num_layers
    image = (width // scale // config.patch_size) * (height // scale // config.patch_size)
    streams = 24 * d * d * (image * layers + text * (layers - 1)) + 6 * d * d * text
    return int(batch * (streams + 4 * (image + text) ** 2 * d * layers))


class Clock:
    """A clock of the forward passes of a pipeline's modules, device work included."""

    def __init__(self, pipeline: Any) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.text = self.batch = 0
        parts = {
            n: getattr(pipeline, n)
            for n in ("text_encoder", "text_encoder_2", "text_encoder_3", "transformer")
        }
        parts |= {"VAE encoder": pipeline.vae.encoder, "VAE decoder": pipeline.vae.decoder}
        for name, part in parts.items():
            if part is not None:
                part.register_forward_pre_hook(self._start, with_kwargs=True)
                part.register_forward_hook(lambda *_, name=name: self._end(name))

    def _start(self, _: Any, args: Any, given: dict[str, Any]) -> None:
        if "encoder_hidden_states" in given:
            self.batch, self.text = given["encoder_hidden_states"].shape[:2]
        sync()
        self._at = time.perf_counter()

    def _end(self, name: str) -> None:
        sync()
        self.seconds[name].append(time.perf_counter() - self._at)


def run(tiny: bool, times: int, batch: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the bounds and the figures."""
    bound = bounds(tiny)
    options = Generate.Options(**load_config("micro" if tiny else "paper").tools["generate"].options)
    pipeline = make_generator(tiny)
    rows = []
    with weightless(generator=pipeline):
        diffuser = Diffuser(options)
        source = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
        params = diffuser.params(source)
        for n in sorted({1, batch}):
            jobs = [GenerationRequest(source, "the red circle is at the top", seed) for seed in range(n)]
            failed: list[Any] = []

            def make(jobs: list[GenerationRequest] = jobs, failed: list[Any] = failed) -> None:
                failed += [made for made in diffuser.make(params, jobs) if isinstance(made, Exception)]

            whole = min(timed(make, times))
            if failed:
                raise failed[0]
            clock = Clock(pipeline)
            make()
            steps = clock.seconds.pop("transformer")
            needed = operations(
                pipeline.transformer.config, *params.size, pipeline.vae_scale_factor, clock.text, clock.batch
            )
            step = statistics.median(steps)
            rows.append(
                {
                    "frames at once": n,
                    "seconds": whole,
                    "frames/s": n / whole,
                    "steps": len(steps),
                    "seconds a step": step,
                    "teraflop a step": needed / 1e12,
                    "share of matrix peak": needed / bound["matrix product, op/s"] / step,
                    "other seconds": {name: sum(s) for name, s in clock.seconds.items()},
                }
            )
    parameters = {}
    for name, part in pipeline.components.items():
        if hasattr(part, "parameters"):
            parameters[name] = sum(p.numel() for p in part.parameters())
    return bound, {
        "size": list(params.size),
        "strength": options.strength,
        "parameters": parameters,
        "frames": rows,
    }


def main() -> None:
    given = parse_arguments(__doc__ or "", 48, times=(3, 1, "repetitions"), batch=(2, 2, "frames at once"))
    report(given.tiny, *run(given.tiny, given.times, given.batch))


if __name__ == "__main__":
    main()
