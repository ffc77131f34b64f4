"""One decoding step: the pending token of each row in, the logits of its next token out.

On a GPU, launching the kernels of a step takes longer than running them if only one rollout is decoded. Its
step is therefore recorded once as a CUDA graph and replayed for every token. A graph has fixed addresses and
shapes: the token, its position and its place in the row are tensors that each step fills, and the row is read
up to a multiple of `STRIDE` tokens, of which a mask hides the rest. Several rows, other devices, and models
that cannot be recorded are decoded without a graph.

A recorded step reads weights and cache where they were when it was recorded. It is dropped when the cache
grows, and the model must not be moved.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from act2see.agent.reasoners.kv import RowCache
from act2see.tools.runtime.memory import out_of_memory, release
from act2see.tools.runtime.text import first_line

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Forward = Callable[[], "torch.Tensor"]
"""Computes logits from tensors that stay in place."""
Record = Callable[[Forward], Forward]
"""Returns a function that repeats a forward without launching each kernel anew."""
STRIDE = 1024
"""Recorded steps read a multiple of this many tokens. Reading at most 1,023 tokens too many costs the 8B
model under 1 % of a step, whose weights are a hundred times as large."""


class StepDecoder:
    """Runs the decoding steps of a model on its cache."""

    def __init__(self, model: Any, cache: RowCache, record: Record | None = None) -> None:
        """
        Args:
            model: A `Qwen3VLForConditionalGeneration`.
            cache: The cache that its rows share.
            record: Records the step of a single row; None to record none.
        """
        self._model = model
        self._cache = cache
        self._record = record
        self._steps: dict[int, Forward] = {}  # number of tokens read -> the recorded step
        self._recorded_length = 0  # the cache's length when they were recorded
        self._device = next(model.parameters()).device
        self._ids = self._integers(1, 1)
        self._position = self._integers(1, 1)
        self._place = self._integers(1)

    @property
    def recorded_steps(self) -> int:
        """The number of recorded steps."""
        return len(self._steps)

    def decode(
        self, first: int, lengths: list[int], pending: Sequence[int], positions: Sequence[int]
    ) -> Sequence[torch.Tensor]:
        """Read the pending token of adjacent rows.

        Args:
            first: The index of the first row.
            lengths: The number of tokens in each row.
            pending: The token of each row.
            positions: The position of each token.

        Returns:
            The logits of each row's next token, `(vocabulary,)` each.
        """
        if first == 0 and len(lengths) == 1 and self._record is not None:
            recorded = self._decode_recorded(lengths[0], pending[0], positions[0])
            if recorded is not None:
                return [recorded]
        return self._decode_rows(first, lengths, pending, positions)

    def _decode_rows(
        self, first: int, lengths: list[int], pending: Sequence[int], positions: Sequence[int]
    ) -> Sequence[torch.Tensor]:
        import torch

        longest = self._cache.aim(first, lengths, 1)
        ends = torch.tensor(lengths, device=self._device)[:, None]  # (rows, 1)
        mask = torch.arange(longest, device=self._device)[None] <= ends  # (rows, longest)
        ids = torch.tensor(pending, device=self._device)[:, None]  # (rows, 1)
        places = torch.tensor(positions, device=self._device)[:, None]  # (rows, 1)
        return list(self._forward(ids, places, mask))

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits of each row's next token, `(rows, vocabulary)`.

        Args:
            ids: The token of each row, `(rows, 1)`.
            positions: Its position, `(rows, 1)`.
            mask: The tokens of the cache that the row sees, `(rows, longest)`.
        """
        logits: torch.Tensor = self._model(
            input_ids=ids,
            position_ids=positions.expand(3, -1, -1),  # time, height, width: (3, rows, 1)
            attention_mask=mask[:, None, None],  # (rows, 1, 1, longest)
            past_key_values=self._cache,
            use_cache=True,
        ).logits[:, -1]
        return logits

    def _decode_recorded(self, length: int, token: int, position: int) -> torch.Tensor | None:
        """Decode row 0 by a recorded step. Return None if the step cannot be recorded."""
        self._cache.reserve(length + 1)
        if self._cache.length != self._recorded_length:
            self._steps.clear()
            self._recorded_length = self._cache.length
        self._ids.fill_(token)
        self._position.fill_(position)
        self._place.fill_(length)
        reach = min(-(-(length + 1) // STRIDE) * STRIDE, self._cache.length)
        if reach not in self._steps and not self._record_step(reach):
            return None
        # The next step overwrites the recorded output.
        return self._steps[reach]()[0].clone()

    def _record_step(self, reach: int) -> bool:
        """Record the step that reads `reach` tokens of row 0. Return whether it worked."""
        import torch

        def forward() -> torch.Tensor:
            self._cache.aim_at(self._place, reach)
            mask = torch.arange(reach, device=self._device)[None] <= self._place  # (1, reach)
            return self._forward(self._ids, self._position, mask)

        assert self._record is not None
        try:
            self._steps[reach] = self._record(forward)
        except Exception as e:
            if out_of_memory(e):
                release()
            log.warning("decoding without CUDA graphs, since recording failed: %s", first_line(e))
            self._record = None
            self._steps.clear()
            return False
        return True

    def _integers(self, *shape: int) -> torch.Tensor:
        import torch

        return torch.zeros(*shape, dtype=torch.long, device=self._device)


def choose_record(model: Any) -> Record | None:
    """Return how to record a model's steps; None if its device has no graphs or its parts are offloaded."""
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1 or devices.pop().type != "cuda" or hasattr(model, "hf_device_map"):
        return None
    return CudaRecorder()


class CudaRecorder:
    """Records forwards as CUDA graphs, which share one memory pool, since only one of them runs at a time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, forward: Forward) -> Forward:
        """Record a forward; return the function that replays it and returns its output."""
        import torch

        # Libraries allocate their workspaces at the first calls, which a graph cannot record.
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                forward()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        # Other threads, such as the encoder's, may allocate memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = forward()

        def replay() -> torch.Tensor:
            graph.replay()
            return output

        return replay
