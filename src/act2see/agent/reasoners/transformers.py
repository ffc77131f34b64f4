"""Qwen3-VL in this process: one forward for many rollouts, and nothing read twice.

A worker thread owns the model. Rollouts that arrive are read (prefilled) one by one and then decoded
together, one token each per forward; one that stops leaves the batch at once and its keys and values stay in
their row. When it comes back with a frame, its ids are compared with what the row holds, and only what is new
is read: the last token written, the frame, its marks. Ids are always those of the rendered rollout, so a
resumed run reads exactly what the interrupted one had. Where more rollouts wait than there are rows, those of
different videos take turns.

Positions are given explicitly, from `get_rope_index` over the whole sequence: the model object would
otherwise carry the offsets of whichever rollout came last.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act2see.agent.packing import Packed, Packer
from act2see.agent.reasoners.adapters import check_adapter
from act2see.agent.reasoners.base import Delta, Done, Sampling, Stop
from act2see.agent.reasoners.kv import RowCache
from act2see.agent.reasoners.prefill import prefill
from act2see.agent.rollout import Rollout
from act2see.errors import Act2SeeError, ContextError, ReasonerError
from act2see.tools.runtime.forks import Lock, check_inherited, native, renew_after_fork
from act2see.tools.runtime.memory import in_halves, out_of_memory
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.weights import not_loaded
from act2see.tools.video.store import FrameSource

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
_COLDEST = 1e-4  # a temperature below it is greedy: logits divided by less overflow


@dataclass(slots=True)
class _Request:
    """One continuation under way."""

    rollout: Rollout
    until: Callable[[str], bool]
    max_tokens: int
    sampling: Sampling
    emit: Callable[[Delta | Done | BaseException], None]
    cancelled: bool = False
    written: list[int] = field(default_factory=list)
    said: int = 0
    done: Done = field(default_factory=lambda: Done("eos"))
    generator: Any = None


@dataclass(slots=True)
class _Row:
    """One row of the cache: which run it belongs to, what it has read, where its next token stands."""

    session: str = ""
    keys: list[int] = field(default_factory=list)
    position: int = 0
    used: int = 0
    request: _Request | None = None
    pending: int = 0


class TransformersReasoner:
    """Continues rollouts with a local Qwen3-VL checkpoint."""

    def __init__(
        self,
        model: Any,
        packer: Packer,
        frames: FrameSource,
        *,
        name: str = "qwen3-vl",
        rows: int = 16,
        context: int | None = None,
    ) -> None:
        self.name, self.packer, self.frames = name, packer, frames
        self._model = model.eval()
        text = model.config.text_config
        self.context = context or text.max_position_embeddings
        parameter = next(model.parameters())
        heads, dim = (
            text.num_key_value_heads,
            getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        )
        self._cache = RowCache(text.num_hidden_layers, rows, heads, dim, parameter.dtype, parameter.device)
        self._rows = [_Row() for _ in range(rows)]
        self._active = 0
        self._together = (
            rows  # how many decode in one forward; fewer once memory has run out, until all are done
        )
        self._clock = 0
        self._forbidden = packer.codec.forbidden()
        self._ends = set(self._end_ids())
        self._inbox: queue.SimpleQueue[_Request | str | None] = queue.SimpleQueue()
        self._waiting: list[_Request] = []
        self._thread: threading.Thread | None = None
        self._lock = Lock()
        self._inherited = False  # from the process that this one was forked from
        renew_after_fork(self)
        self.forwards = 0  # decoding forwards so far: what batching is measured by

    @classmethod
    @quiet()
    def from_pretrained(
        cls,
        weights: str | Path,
        frames: FrameSource,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        adapter: str | None = None,
        **options: Any,
    ) -> TransformersReasoner:
        """Load a checkpoint folder or hub name; `adapter` is a PEFT LoRA folder."""
        import torch
        from transformers import Qwen3VLForConditionalGeneration

        packer = Packer.from_pretrained(weights)
        try:
            model: Any = Qwen3VLForConditionalGeneration.from_pretrained(
                weights, dtype=getattr(torch, dtype), use_safetensors=True
            ).to(device)
        except (OSError, ValueError) as e:
            raise not_loaded("the reasoner's weights", str(weights), e) from e
        if adapter:
            model.load_adapter(check_adapter(adapter, str(weights), model))
        return cls(model, packer, frames, name=Path(str(weights)).name, **options)

    async def stream(
        self,
        rollout: Rollout,
        *,
        until: Callable[[str], bool],
        stops: Sequence[str],
        max_tokens: int,
        sampling: Sampling,
    ) -> AsyncIterator[Delta | Done]:
        """Text as it is decoded, then `Done`. Leaving the iterator early stops the decoding."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Delta | Done | BaseException] = asyncio.Queue()

        def emit(item: Delta | Done | BaseException) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        if self._inherited:
            check_inherited(self.name, next(self._model.parameters()).device.type)
        request = _Request(rollout, until, max_tokens, sampling, emit)
        self._start()
        self._inbox.put(request)
        try:
            while True:
                item = await arrived.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if isinstance(item, Done):
                    return
        finally:
            request.cancelled = True

    def forget(self, session: str) -> None:
        self._inbox.put(session)

    def close(self) -> None:
        """End the worker, when no run is under way: its cache, which can be gigabytes, is then freed with
        this object."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.put(None)
            thread.join()

    def renew(self) -> None:
        """In a forked child: a worker of its own and empty rows. The requests of the parent are answered
        there."""
        self._inbox, self._waiting, self._thread = queue.SimpleQueue(), [], None
        self._rows, self._active, self._together = [_Row() for _ in self._rows], 0, len(self._rows)
        self._inherited = True

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="act2see-reasoner", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        import torch

        with torch.inference_mode():
            while self._receive(block=not self._active and not self._waiting):
                with native():
                    if self._waiting and self._active < len(self._rows):
                        request = self._waiting.pop(self._first())
                        self._admit(request, self._free_row(request.rollout.session))
                    if self._active:
                        self._step()

    def _receive(self, block: bool) -> bool:
        """Take what has arrived; wait only where there is nothing else to do. False once it is closed."""
        try:
            while True:
                item = self._inbox.get(block)
                block = False
                if item is None:
                    return False
                if isinstance(item, _Request):
                    self._waiting.append(item)
                else:
                    for row in self._rows:
                        if row.session == item and row.request is None:
                            row.session, row.used = "", 0
        except queue.Empty:
            return True

    def _first(self) -> int:
        """Who of those that wait is next: of the owner that has the fewest rows, the one that came first."""
        rows = Counter(r.request.rollout.owner for r in self._rows[: self._active] if r.request)
        return min(range(len(self._waiting)), key=lambda i: rows[self._waiting[i].rollout.owner])

    def _free_row(self, session: str) -> int:
        """The session's own row, else the idle one that was used longest ago."""
        idle = [i for i in range(len(self._rows)) if self._rows[i].request is None]
        own = [i for i in idle if session and self._rows[i].session == session]
        return own[0] if own else min(idle, key=lambda i: self._rows[i].used)

    def _admit(self, request: _Request, at: int) -> None:
        """Read what is new of a rollout into its row and decode its first token."""
        if request.cancelled:
            return
        try:
            packed = self.packer.pack(request.rollout)
            if len(packed.ids) + 1 > self.context:
                raise ContextError(
                    f"the rollout has {len(packed.ids)} tokens and {self.name} takes {self.context}: show fewer initial frames "
                    "(view.max_frames), smaller ones, or allow fewer calls (budget.calls)"
                )
            self._move(at, self._active)
            row = self._rows[self._active]
            logits = self._prefill(row, packed, request)
        except Exception as e:
            # The row may be half-written: it is nobody's now.
            self._rows[self._active] = _Row()
            request.emit(self._told(e))
            return
        row.request = request
        self._active += 1
        self._take(row, logits)
        self._settle()

    def _prefill(self, row: _Row, packed: Packed, request: _Request) -> torch.Tensor:
        import torch

        keys = packed.keys()
        same = _common(row.keys, keys) if row.session == request.rollout.session else 0
        start = min(same, len(keys) - 1)
        for first, grid in zip(packed.starts, packed.grids, strict=True):
            n = grid[1] * grid[2] // self.packer.merge**2
            if first < start < first + n:
                start = first  # never begin inside a frame
        request.done = Done(
            "eos",
            len(keys) - start,
            start,
            0,
            max(0, min(len(row.keys), len(keys)) - start) if row.session == request.rollout.session else 0,
        )
        logits, position = prefill(
            self._model,
            self._cache,
            self._active,
            packed,
            start,
            image=self.packer.image_token_id,
            merge=self.packer.merge,
            patches=lambda new: self.packer.patches([packed.images[i] for i in new], self.frames),
        )
        row.session, row.keys, row.position = request.rollout.session, keys, position
        request.generator = torch.Generator("cpu").manual_seed(request.sampling.seed)
        return logits

    def _step(self) -> None:
        """One token for every rollout that is decoding; in parts where memory does not hold them all."""
        rows, everything = self._rows[: self._active], range(self._active)
        done: list[torch.Tensor | Exception] = []
        while len(done) < len(rows):
            done += in_halves(self._decode, everything[len(done) : len(done) + self._together])
        for r, logits in zip(rows, done, strict=True):
            if isinstance(logits, Exception):
                self._fail(r, logits)
                continue
            r.keys.append(r.pending)
            r.position += 1
            self._take(r, logits)
        self._settle()
        if not self._active:
            self._together = len(self._rows)

    def _decode(self, at: Sequence[int]) -> Sequence[torch.Tensor]:
        """The next logits of rows that stand side by side."""
        import torch

        rows = [self._rows[i] for i in at]
        device = next(self._model.parameters()).device
        lengths = [len(r.keys) for r in rows]
        longest = self._cache.aim(at[0], lengths, 1)
        mask = torch.arange(longest, device=device)[None] <= torch.tensor(lengths, device=device)[:, None]
        ids = torch.tensor([[r.pending] for r in rows], device=device)
        positions = torch.tensor([[r.position] for r in rows], device=device).expand(3, -1, -1)
        try:
            logits = self._model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=mask[:, None, None],
                past_key_values=self._cache,
                use_cache=True,
            ).logits[:, -1]
        except Exception as e:
            if out_of_memory(e):
                self._together = max(1, len(rows) // 2)
            raise
        self.forwards += 1
        return list(logits)

    def _take(self, row: _Row, logits: torch.Tensor) -> None:
        """`_accept`, so that what fails in one rollout ends that one alone."""
        try:
            self._accept(row, logits)
        except Exception as e:
            self._fail(row, e)

    def _fail(self, row: _Row, e: Exception) -> None:
        request, row.session, row.request = row.request, "", None
        assert request is not None
        request.emit(self._told(e))

    def _told(self, e: Exception) -> Act2SeeError:
        if out_of_memory(e):
            return ReasonerError(
                f"{self.name}: there is no memory for this rollout, even alone: show fewer initial frames (view.max_frames), smaller ones, "
                "or decode fewer at once (reasoner.rows)"
            )
        return (
            e
            if isinstance(e, Act2SeeError)
            else ReasonerError(f"{self.name} failed: {(str(e) or repr(e)).splitlines()[0]}")
        )

    def _accept(self, row: _Row, logits: torch.Tensor) -> None:
        """Choose a row's next token, say its text, and end its request where that is due."""
        request = row.request
        assert request is not None
        token = self._sample(logits, request)
        row.pending = token
        stop: Stop | None = None
        if token in self._ends:
            stop = "eos"
        else:
            request.written.append(token)
            text = self.packer.codec.decode(request.written)
            # A character cut in two decodes to the replacement mark: wait for its rest.
            new = "" if text.endswith("\ufffd") and len(text) - request.said < 8 else text[request.said :]
            request.said += len(new)
            if new:
                request.emit(Delta(new))
                if request.until(new):
                    stop = "until"
            if stop is None and (
                len(request.written) >= request.max_tokens or len(row.keys) + 1 >= self.context
            ):
                stop = "length"
        if request.cancelled or stop:
            d = request.done
            request.emit(Done(stop or "length", d.prefilled, d.cached, len(request.written), d.repeated))
            row.request = None
            self._clock += 1
            row.used = self._clock

    def _sample(self, logits: torch.Tensor, request: _Request) -> int:
        import torch

        logits = logits.float().cpu()
        logits[self._forbidden] = -torch.inf
        if request.sampling.temperature < _COLDEST:
            return int(logits.argmax())
        chances = (logits / request.sampling.temperature).softmax(-1)
        if request.sampling.top_p < 1:
            ordered, index = chances.sort(descending=True)
            ordered[ordered.cumsum(0) - ordered > request.sampling.top_p] = 0
            return int(index[torch.multinomial(ordered, 1, generator=request.generator)])
        return int(torch.multinomial(chances, 1, generator=request.generator))

    def _settle(self) -> None:
        """Bring the rows that still decode to the front."""
        for at in reversed(range(self._active)):
            if self._rows[at].request is None:
                self._active -= 1
                self._move(at, self._active)

    def _move(self, a: int, b: int) -> None:
        if a != b:
            self._cache.swap(a, b)
            self._rows[a], self._rows[b] = self._rows[b], self._rows[a]

    def _end_ids(self) -> list[int]:
        tokenizer = self.packer.codec.tokenizer
        marks = [tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>")]
        return [i for i in (*marks, tokenizer.eos_token_id) if isinstance(i, int)]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading entries are equal."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
