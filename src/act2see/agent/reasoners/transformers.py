"""Qwen3-VL in this process: one forward for many rollouts, and no token is read twice.

A worker thread owns the model. Rollouts that arrive are read (prefilled) one by one and then decoded
together, one token each per forward. A rollout that stops leaves the batch at once, and its keys and values
stay in their row. When it comes back with a frame, its ids are compared with those in the row, and only the
new ones are read: the last token written, the frame, its marks. Ids are always those of the rendered rollout,
so a resumed run reads exactly what the interrupted one had read. If more rollouts wait than there are rows,
those of different videos take turns.

Positions are given explicitly, from `get_rope_index` over the whole sequence: the model object would
otherwise carry the offsets of whichever rollout came last.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act2see.agent.grammar import StopReason
from act2see.agent.packing import Packed, Packer
from act2see.agent.reasoners.adapters import check_adapter
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.agent.reasoners.jobs import Job, Row
from act2see.agent.reasoners.kv import RowCache
from act2see.agent.reasoners.prefill import frame_spans, known_tokens, prefill
from act2see.agent.reasoners.sampling import TokenSampler
from act2see.errors import Act2SeeError, ContextError, ReasonerError
from act2see.tools.runtime.forks import Lock, check_inherited, native, renew_after_fork
from act2see.tools.runtime.memory import in_halves, out_of_memory
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.text import first_line
from act2see.tools.runtime.weights import not_loaded
from act2see.tools.video.store import FrameSource

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


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
    ) -> None:
        """
        Args:
            model: A `Qwen3VLForConditionalGeneration`.
            packer: Its tokenizer and image processor.
            frames: Gives the pixels of a frame.
            name: The model's name in traces.
            rows: How many rollouts are decoded at once.
            context: The most tokens of a rollout (default: the model's).
            forbidden: Ids that are never written (default: vision and turn marks).
        """
        self.name, self.packer, self.frames = name, packer, frames
        self._model = model.eval()
        text = model.config.text_config
        self.context: int = context or text.max_position_embeddings
        parameter = next(model.parameters())
        heads = text.num_key_value_heads
        dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self._cache = RowCache(text.num_hidden_layers, rows, heads, dim, parameter.dtype, parameter.device)
        self._rows = [Row() for _ in range(rows)]
        self._active = 0
        # Rows decoded in one forward: fewer once memory has run out, until all jobs are done.
        self._together = rows
        self._clock = 0
        self._forbidden = packer.codec.forbidden() if forbidden is None else forbidden
        self._ends = packer.codec.ends()
        self._inbox: queue.SimpleQueue[Job | str | None] = queue.SimpleQueue()
        self._waiting: list[Job] = []
        self._thread: threading.Thread | None = None
        self._lock = Lock()
        self._inherited = False  # from the process that this one was forked from
        renew_after_fork(self)
        self.forwards = 0
        """Decoding forwards so far."""

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
            weights: A folder or a hub name.
            frames: Gives the pixels of a frame.
            device: Where the model runs.
            dtype: Its precision, by torch's name.
            adapter: A PEFT LoRA's folder.
            options: Of the constructor.

        Raises:
            WeightsError: They cannot be loaded, or the adapter belongs to other weights.
        """
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
        """End the worker. Its cache, which can be gigabytes, is freed with this object."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.put(None)
            thread.join()

    def renew(self) -> None:
        """In a forked child: a worker of its own and empty rows. The parent's requests are answered there."""
        self._inbox, self._waiting, self._thread = queue.SimpleQueue(), [], None
        self._rows, self._active, self._together = [Row() for _ in self._rows], 0, len(self._rows)
        self._inherited = True

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="act2see-reasoner", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        """The worker: admit one job, decode one token for all, again and again."""
        import torch

        with torch.inference_mode():
            while self._receive(block=not self._active and not self._waiting):
                with native():
                    if self._waiting and self._active < len(self._rows):
                        job = self._waiting.pop(self._next_job())
                        self._admit(job, self._free_row(job.request.rollout.session))
                    if self._active:
                        self._step()

    def _receive(self, block: bool) -> bool:
        """Take what has arrived, and wait for something if `block`. False once the reasoner is closed."""
        try:
            while True:
                item = self._inbox.get(block)
                block = False
                if item is None:
                    return False
                if isinstance(item, Job):
                    self._waiting.append(item)
                else:
                    self._forget_rows(item)
        except queue.Empty:
            return True

    def _forget_rows(self, session: str) -> None:
        for row in self._rows:
            if row.session == session and row.job is None:
                row.session, row.used = "", 0

    def _next_job(self) -> int:
        """The number of the waiting job that came first of those whose owner has the fewest rows."""
        jobs = [row.job for row in self._rows[: self._active] if row.job]
        rows = Counter(job.request.rollout.owner for job in jobs)
        return min(range(len(self._waiting)), key=lambda i: rows[self._waiting[i].request.rollout.owner])

    def _free_row(self, session: str) -> int:
        """The session's own row, else the idle one that was used longest ago."""
        idle = [i for i, row in enumerate(self._rows) if row.job is None]
        own = [i for i in idle if session and self._rows[i].session == session]
        return own[0] if own else min(idle, key=lambda i: self._rows[i].used)

    def _admit(self, job: Job, at: int) -> None:
        """Read the new part of a rollout into row `at`, and decode its first token."""
        if job.cancelled:
            return
        try:
            packed = self.packer.pack(job.request.rollout)
            if len(packed.ids) + 1 > self.context:
                raise ContextError(
                    f"the rollout has {len(packed.ids)} tokens and {self.name} takes {self.context}: show "
                    "fewer initial frames (view.max_frames), smaller ones, or allow fewer calls "
                    "(budget.calls)"
                )
            self._move(at, self._active)
            row = self._rows[self._active]
            logits = self._prefill(row, packed, job)
        except Exception as e:
            # The row may be half-written: it is nobody's now.
            self._rows[self._active] = Row()
            job.emit(self._to_reasoner_error(e))
            return
        row.job = job
        self._active += 1
        self._take(row, logits)
        self._settle()

    def _prefill(self, row: Row, packed: Packed, job: Job) -> torch.Tensor:
        import torch

        keys, merge = packed.keys(), self.packer.merge
        session = job.request.rollout.session
        known = row.keys if row.session == session else []
        start = known_tokens(known, keys, frame_spans(packed, merge))
        repeated = max(0, min(len(known), len(keys)) - start)
        job.done = Done(StopReason.EOS, prefilled=len(keys) - start, cached=start, repeated=repeated)
        logits, position = prefill(
            self._model,
            self._cache,
            self._active,
            packed,
            start,
            image=self.packer.image_token_id,
            merge=merge,
            patches=lambda new: self.packer.patches([packed.images[i] for i in new], self.frames),
        )
        row.session, row.keys, row.position = session, keys, position
        forbidden = torch.tensor(self._forbidden, dtype=torch.long, device=logits.device)
        prompt = torch.tensor(packed.ids, dtype=torch.long, device=logits.device)
        job.sampler = TokenSampler(job.request.sampling, forbidden, prompt)
        job.decode = self.packer.codec.decoder()
        return logits

    def _step(self) -> None:
        """One token for every rollout that is decoding; in parts if memory does not hold them all."""
        rows, everything = self._rows[: self._active], range(self._active)
        done: list[torch.Tensor | Exception] = []
        while len(done) < len(rows):
            done += in_halves(self._decode, everything[len(done) : len(done) + self._together])
        for row, logits in zip(rows, done, strict=True):
            if isinstance(logits, Exception):
                self._fail(row, logits)
                continue
            row.keys.append(row.pending)
            row.position += 1
            self._take(row, logits)
        self._settle()
        if not self._active:
            self._together = len(self._rows)

    def _decode(self, at: Sequence[int]) -> Sequence[torch.Tensor]:
        """The next logits, `(vocabulary,)` each, of rows that stand side by side."""
        import torch

        rows = [self._rows[i] for i in at]
        device = next(self._model.parameters()).device
        lengths = [len(row.keys) for row in rows]
        longest = self._cache.aim(at[0], lengths, 1)
        ends = torch.tensor(lengths, device=device)[:, None]
        mask = torch.arange(longest, device=device)[None] <= ends  # (rows, longest)
        ids = torch.tensor([[row.pending] for row in rows], device=device)  # (rows, 1)
        positions = torch.tensor([[row.position] for row in rows], device=device)
        try:
            logits = self._model(
                input_ids=ids,
                position_ids=positions.expand(3, -1, -1),  # time, height, width
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

    def _take(self, row: Row, logits: torch.Tensor) -> None:
        """`_accept`, so that a failure in one rollout ends that one alone."""
        try:
            self._accept(row, logits)
        except Exception as e:
            self._fail(row, e)

    def _fail(self, row: Row, e: Exception) -> None:
        job, row.session, row.job = row.job, "", None
        assert job is not None
        job.emit(self._to_reasoner_error(e))

    def _to_reasoner_error(self, e: Exception) -> Act2SeeError:
        if out_of_memory(e):
            return ReasonerError(
                f"{self.name}: there is no memory for this rollout, even alone: show fewer initial frames "
                "(view.max_frames), smaller ones, or decode fewer at once (reasoner.rows)"
            )
        return e if isinstance(e, Act2SeeError) else ReasonerError(f"{self.name} failed: {first_line(e)}")

    def _accept(self, row: Row, logits: torch.Tensor) -> None:
        """Choose a row's next token, emit its text, and end the job if it is over."""
        job = row.job
        assert job is not None
        row.pending = job.sampler.draw(logits)
        stop = StopReason.EOS if row.pending in self._ends else self._write(row, job)
        if job.cancelled or stop:
            job.emit(replace(job.done, stop=stop or StopReason.LENGTH, decoded=len(job.written)))
            row.job = None
            self._clock += 1
            row.used = self._clock

    def _write(self, row: Row, job: Job) -> StopReason | None:
        """Emit the text of the row's new token, and tell why decoding ends there, if it does."""
        job.written.append(row.pending)
        if new := job.decode(row.pending):
            job.emit(Delta(new))
            if job.request.until(new):
                return StopReason.UNTIL
        full = len(job.written) >= job.request.max_tokens or len(row.keys) + 1 >= self.context
        return StopReason.LENGTH if full else None

    def _settle(self) -> None:
        """Bring the rows that still decode to the front."""
        for at in reversed(range(self._active)):
            if self._rows[at].job is None:
                self._active -= 1
                self._move(at, self._active)

    def _move(self, a: int, b: int) -> None:
        if a != b:
            self._cache.swap(a, b)
            self._rows[a], self._rows[b] = self._rows[b], self._rows[a]
