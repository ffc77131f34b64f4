"""Qwen3-VL in this process: one forward pass decodes many rollouts, and no token is read twice.

A worker thread owns the model. New rollouts are read (prefilled) one by one and then decoded together, one
token each per forward. A long one is read in chunks while others decode: they get a token after each chunk. A
rollout that stops leaves the batch at once, and its keys and values stay in their row. When the rollout comes
back with a frame, its ids are compared with those in the row, and only the new ones are read: the last token
written, the frame, its marks. Ids are always those of the rendered rollout, so a resumed run reads exactly
the ids that the interrupted run had read. If more rollouts wait than there are rows, rollouts of different
videos take turns. Long prompts are packed in other threads (`ahead.py`).

Positions are passed explicitly, from `get_rope_index` over the whole sequence: otherwise the model object
would apply the offsets of the rollout that it read last.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act2see.agent.packing import Packer
from act2see.agent.parser import StopReason
from act2see.agent.reasoners.adapters import check_adapter
from act2see.agent.reasoners.ahead import PackAhead
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.agent.reasoners.decode import StepDecoder, choose_record
from act2see.agent.reasoners.faults import SHORTEN
from act2see.agent.reasoners.jobs import Job, Row, choose_job, choose_row
from act2see.agent.reasoners.kv import RowCache
from act2see.agent.reasoners.prefill import Prefill
from act2see.errors import Act2SeeError, ContextError, ReasonerError
from act2see.tools.runtime.forks import Lock, check_inherited, native, renew_after_fork
from act2see.tools.runtime.memory import in_halves, out_of_memory
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.text import first_line
from act2see.tools.runtime.weights import cached_folder, not_loaded
from act2see.tools.video.store import FrameSource

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
CHUNK = 256
"""The most tokens that are read in one forward while other rollouts decode; a larger frame is read whole."""


class TransformersReasoner(Reasoner):
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
        forbidden: Sequence[int] | None = None,
        chunk: int = CHUNK,
    ) -> None:
        """
        Args:
            model: A `Qwen3VLForConditionalGeneration`.
            packer: The model's tokenizer and image processor.
            frames: Returns the pixels of a frame.
            name: The model's name in traces.
            rows: The number of rollouts that are decoded together.
            context: The maximum number of tokens of a rollout (default: the model's).
            forbidden: Ids that are never written (default: vision and turn marks).
            chunk: The most tokens of a prompt that are read at once while other rollouts decode.
        """
        self.name = name
        self.packer = packer
        self.frames = frames
        self._model = model.eval()
        text = model.config.text_config
        self.context: int = context or text.max_position_embeddings
        parameter = next(model.parameters())
        heads = text.num_key_value_heads
        dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self._cache = RowCache(
            text.num_hidden_layers, rows, heads, dim, parameter.dtype, parameter.device, limit=self.context
        )
        self._decoder = StepDecoder(model, self._cache, choose_record(model))
        self._rows = [Row() for _ in range(rows)]
        self._active = 0
        # The number of rows decoded in one forward: smaller once memory has run out, until all jobs are done.
        self._together = rows
        self._clock = 0  # counts jobs that ended
        self._chunk = chunk
        self._forbidden = packer.codec.forbidden() if forbidden is None else forbidden
        self._ends = packer.codec.ends()
        self._inbox: queue.SimpleQueue[Job | str | None] = queue.SimpleQueue()
        self._waiting: list[Job] = []
        self._reading: Prefill | None = None  # the rollout that is read now; its row has its job
        self._ahead = PackAhead(packer, frames, self.context)
        self._thread: threading.Thread | None = None
        self._lock = Lock()
        self._inherited = False  # whether the model was loaded by the process that this one was forked from
        renew_after_fork(self)
        self.forwards = 0
        """The number of decoding forwards so far."""

    @property
    def active(self) -> int:
        """The number of rollouts that are being decoded."""
        return self._active

    @property
    def cache_shape(self) -> tuple[int, ...]:
        """The shape of the cached keys, and of the values: (layers, rows, heads, length, head_dim)."""
        return (self._cache.layer_count, *self._cache.shape)

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
        """Load a checkpoint.

        Args:
            weights: The checkpoint's folder or hub name.
            frames: Returns the pixels of a frame.
            device: The torch device of the model.
            dtype: The name of the model's torch dtype.
            adapter: The folder of a PEFT LoRA.
            options: Further arguments of the constructor.

        Raises:
            WeightsError: The weights cannot be loaded, or the adapter belongs to other weights.
        """
        import torch
        from transformers import Qwen3VLForConditionalGeneration

        folder = cached_folder(str(weights))
        packer = Packer.from_pretrained(folder)
        try:
            model: Any = Qwen3VLForConditionalGeneration.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True
            ).to(device)
        except (OSError, ValueError) as e:
            raise not_loaded("the reasoner's weights", str(weights), e) from e
        if adapter:
            model.load_adapter(check_adapter(adapter, str(weights), model))
        return cls(model, packer, frames, name=Path(str(weights)).name, **options)

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Delta | Done | BaseException] = asyncio.Queue()

        def emit(item: Delta | Done | BaseException) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        if self._inherited:
            check_inherited(self.name, next(self._model.parameters()).device.type)
        job = Job(request, emit)
        self._start()
        self._inbox.put(job)
        try:
            while True:
                item = await arrived.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if isinstance(item, Done):
                    return
        finally:
            job.cancelled = True

    def forget(self, session: str) -> None:
        self._inbox.put(session)

    def close(self) -> None:
        """End the worker. The cache, which can be gigabytes, is freed with this object."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.put(None)
            thread.join()
        self._ahead.close()

    def renew(self) -> None:
        """Start with an own worker and empty rows in a forked child. The parent answers its own requests."""
        self._inbox = queue.SimpleQueue()
        self._waiting = []
        self._reading = None
        self._ahead = PackAhead(self.packer, self.frames, self.context)
        self._thread = None
        self._rows = [Row() for _ in self._rows]
        self._active = 0
        self._together = len(self._rows)
        self._inherited = True

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="act2see-reasoner", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        """Run the worker: read a part of one new rollout, decode one token for all others, and repeat."""
        import torch

        with torch.inference_mode():
            while self._receive(block=not (self._active or self._waiting or self._reading)):
                with native():
                    if not self._reading and self._waiting and self._active < len(self._rows):
                        job = self._waiting.pop(choose_job(self._waiting, self._rows[: self._active]))
                        self._admit(job, choose_row(self._rows, job.request.rollout.session))
                    if self._reading:
                        self._read_on(self._reading)
                    if self._active:
                        self._step()

    def _receive(self, block: bool) -> bool:
        """Take what has arrived; with `block`, wait for it. Return False once the reasoner is closed."""
        try:
            while True:
                item = self._inbox.get(block)
                block = False
                if item is None:
                    return False
                if isinstance(item, Job):
                    if not self._ahead.take(item, self._rows, self._inbox.put):
                        self._waiting.append(item)
                else:
                    self._forget_rows(item)
        except queue.Empty:
            return True

    def _forget_rows(self, session: str) -> None:
        for row in self._rows:
            if row.session == session and row.job is None:
                row.session, row.used = "", 0

    def _admit(self, job: Job, at: int) -> None:
        """Begin to read the new part of a rollout into row `at`."""
        if job.cancelled:
            return
        try:
            if job.failure:
                raise job.failure
            self._reading = self._begin(job, self._rows[at])
        except Exception as e:
            job.emit(self._to_reasoner_error(e))

    def _begin(self, job: Job, row: Row) -> Prefill:
        """Prepare a job, and return the prefill of its rollout. The row is the job's from now on."""
        rollout = job.request.rollout
        packed = job.packed or self.packer.pack(rollout)
        count = len(packed.ids)
        if count + 1 > self.context:
            raise ContextError(
                f"the rollout has {count} tokens and {self.name} takes {self.context}: {SHORTEN}"
            )
        known = row.keys if row.session == rollout.session else []
        prefill = Prefill(self._model, self._cache, self.packer, self.frames, job, packed, known)
        job.prepare(packed.ids, self._forbidden, self.packer.codec.decoder(), prefill.device)
        row.job, row.session, row.keys = job, rollout.session, prefill.keys[: prefill.done]
        return prefill

    def _read_on(self, prefill: Prefill) -> None:
        """Read a rollout to its end, or by one chunk if others decode. At its end, decode its first token."""
        job = prefill.job
        at = next(i for i, row in enumerate(self._rows) if row.job is job)
        row = self._rows[at]
        try:
            # What was read stays in the row if the caller has gone.
            logits = None if job.cancelled else self._advance(prefill, at)
        except Exception as e:
            self._reading = None
            self._rows[at] = Row()  # it may be half-written
            job.emit(self._to_reasoner_error(e))
            return
        row.keys = prefill.keys[: prefill.done]
        if job.cancelled:
            self._reading = None
            self._release(row)
        if logits is None or job.cancelled:
            return
        self._reading = None
        row.position = prefill.next_position
        self._move(at, self._active)  # next to the active rows
        self._active += 1
        self._accept_or_fail(row, logits)
        self._retire_rows()

    def _advance(self, prefill: Prefill, at: int) -> torch.Tensor | None:
        return prefill.advance(at, self._chunk if self._active else None)

    def _step(self) -> None:
        """Decode one token for every active row, in parts if memory does not hold all rows at once."""
        rows = self._rows[: self._active]
        indices = range(self._active)
        results: list[torch.Tensor | Exception] = []
        while len(results) < len(rows):
            part = indices[len(results) : len(results) + self._together]
            results += in_halves(self._decode, part)
        for row, logits in zip(rows, results, strict=True):
            if isinstance(logits, Exception):
                self._fail(row, logits)
                continue
            row.keys.append(row.pending)
            row.position += 1
            self._accept_or_fail(row, logits)
        self._retire_rows()
        if not self._active:
            self._together = len(self._rows)

    def _decode(self, at: Sequence[int]) -> Sequence[torch.Tensor]:
        """Read the pending token of adjacent rows. Return their next logits, `(vocabulary,)` each."""
        rows = [self._rows[i] for i in at]
        lengths = [len(row.keys) for row in rows]
        pending = [row.pending for row in rows]
        try:
            logits = self._decoder.decode(at[0], lengths, pending, [row.position for row in rows])
        except Exception as e:
            if out_of_memory(e):
                self._together = max(1, len(rows) // 2)
            raise
        self.forwards += 1
        return logits

    def _accept_or_fail(self, row: Row, logits: torch.Tensor) -> None:
        """Accept a row's next token. A failure ends only this row's job."""
        try:
            self._accept(row, logits)
        except Exception as e:
            self._fail(row, e)

    def _fail(self, row: Row, e: Exception) -> None:
        job = row.job
        row.session = ""
        row.job = None
        assert job is not None
        job.emit(self._to_reasoner_error(e))

    def _to_reasoner_error(self, e: Exception) -> Act2SeeError:
        if out_of_memory(e):
            return ReasonerError(
                f"{self.name} has too little memory for this rollout, even alone: show fewer initial frames "
                "(view.max_frames), smaller ones, or decode fewer at once (reasoner.rows)"
            )
        return e if isinstance(e, Act2SeeError) else ReasonerError(f"{self.name} failed: {first_line(e)}")

    def _accept(self, row: Row, logits: torch.Tensor) -> None:
        """Draw a row's next token, emit its text, and end the job if the text is complete."""
        job = row.job
        assert job is not None
        row.pending = self._sample(logits, job)
        stop = StopReason.EOS if row.pending in self._ends else self._write(row, job)
        if job.cancelled or stop:
            job.emit(replace(job.done, stop=stop or StopReason.LENGTH, decoded=len(job.written)))
            self._release(row)

    def _release(self, row: Row) -> None:
        """End the use of a row by its job; its tokens stay."""
        row.job = None
        self._clock += 1
        row.used = self._clock

    def _write(self, row: Row, job: Job) -> StopReason | None:
        """Emit the text of the row's new token. Return the reason if decoding stops there, else None."""
        job.written.append(row.pending)
        if new := job.decode(row.pending):
            job.emit(Delta(new))
            if job.request.until(new):
                return StopReason.UNTIL
        is_full = len(job.written) >= job.request.max_tokens or len(row.keys) + 1 >= self.context
        return StopReason.LENGTH if is_full else None

    def _sample(self, logits: torch.Tensor, job: Job) -> int:
        return int(job.sampler.draw(logits))

    def _retire_rows(self) -> None:
        """Move the rows whose job has ended after the active rows."""
        for at in reversed(range(self._active)):
            if self._rows[at].job is None:
                self._active -= 1
                self._move(at, self._active)

    def _move(self, a: int, b: int) -> None:
        self._cache.swap(a, b)
        self._rows[a], self._rows[b] = self._rows[b], self._rows[a]
