"""Pack long prompts ahead of the worker, in threads of their own.

The worker of `TransformersReasoner` decodes for all rollouts. A prompt of megabytes takes seconds to
tokenise, and large pictures take seconds to cut into patches: in the worker, nobody would get a token
meanwhile. So such a prompt goes through another thread first and comes back to the worker. The worker packs
short prompts itself, at once: they never wait behind long ones.

Two threads are enough: native code uses the processor's cores anyway, and the rest waits in a queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from act2see.agent.packing import Packer, frame_key
from act2see.agent.reasoners.jobs import Job, Row
from act2see.agent.rollout import TextPiece
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import native
from act2see.tools.video.store import FrameSource

_THREADS = 2
_LONG = 8192
"""The characters of a prompt that the worker packs itself. They take about 10 ms."""
_PIECE = 16  # the characters that take the time of a piece, however short it is
_PIXELS = 200  # the pixels that are cut into patches in the time of a character


class PackAhead:
    """Packs the prompts of jobs that are long.

    Args:
        packer: The packer of the worker.
        frames: Returns the pixels of a frame.
        context: The maximum number of tokens of a prompt; the pictures of longer ones are left.
    """

    def __init__(self, packer: Packer, frames: FrameSource, context: int) -> None:
        self._packer = packer
        self._frames = frames
        self._context = context
        self._threads: ThreadPoolExecutor | None = None

    def take(self, job: Job, rows: Iterable[Row], give_back: Callable[[Job], None]) -> bool:
        """Pack a job's prompt in another thread if it is long and not packed yet.

        Args:
            job: The job.
            rows: The rows of the cache.
            give_back: Called with the packed job, in the other thread.

        Returns:
            Whether the job was taken. If not, the caller goes on with it.
        """
        if job.packed or job.failure:
            return False
        new = self._new_frames(job, rows)
        if self._cost(job, new) <= _LONG:
            return False
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="act2see-packer")
        self._threads.submit(self._pack, job, new, give_back)
        return True

    def close(self) -> None:
        """End the threads after what they do now."""
        if self._threads:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    def _new_frames(self, job: Job, rows: Iterable[Row]) -> list[FrameRef]:
        """Return the frames that are not read into the session's row and whose patches are not kept."""
        rollout = job.request.rollout
        missing = self._packer.missing(rollout.frames)
        if not missing or not rollout.session:
            return missing
        read: set[int] = set()
        for row in rows:
            if row.session == rollout.session:
                read.update(row.keys)
        return [frame for frame in missing if frame_key(frame) not in read]

    def _cost(self, job: Job, new: Sequence[FrameRef]) -> int:
        """Return how long a prompt takes to pack, in characters."""
        pieces = job.request.rollout.pieces
        characters = sum(len(piece.text) for piece in pieces if isinstance(piece, TextPiece))
        pixels = sum(frame.width * frame.height for frame in new)
        return characters + len(pieces) * _PIECE + pixels // _PIXELS

    def _pack(self, job: Job, new: Sequence[FrameRef], give_back: Callable[[Job], None]) -> None:
        if job.cancelled:
            return
        try:
            with native():
                packed = self._packer.pack(job.request.rollout)
                if new and len(packed.ids) < self._context and not job.cancelled:
                    job.patches = self._packer.make_patches(new, self._frames)
            job.packed = packed
        except Exception as e:
            job.failure = e
        give_back(job)
