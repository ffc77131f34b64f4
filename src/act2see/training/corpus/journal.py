"""The file that a construction run writes: one finished record a line, safe on disk before the next begins.

A process that is killed in the middle of a line leaves half of it; the next one cuts that off. What is in the
file is never made again, so a run that goes on duplicates nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from act2see.errors import CorpusError
from act2see.training.corpus.records import Chain, Cost, read_chains


class Journal:
    """`chains.jsonl` of a run's folder, opened for appending by one process at a time; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "chains.jsonl"
        self.done: dict[str, bool] = {}  # by sample: whether its chain was kept
        self.cost = Cost()
        self._folder = folder

    def __enter__(self) -> Journal:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._folder / ".lock", timeout=0)
            self._lock.acquire()
            self._file = self.path.open("ab")
        except Timeout as e:
            raise CorpusError(
                f"another process is writing to {self._folder}: wait for it, or give another folder"
            ) from e
        except OSError as e:
            raise CorpusError(f"cannot write to {self._folder} ({e.strerror}): give another folder") from e
        try:
            self._mend()
            for chain in read_chains(self.path):
                self._note(chain)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.release()

    def write(self, chain: Chain) -> None:
        """Append, and wait until it is on disk. Raises `CorpusError` where it cannot be; the file then ends
        as before."""
        end = self._file.tell()
        try:
            self._file.write((chain.model_dump_json() + "\n").encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            os.truncate(self.path, end)
            raise CorpusError(
                f"cannot write to {self.path} ({e.strerror}): free some space and run it again; it goes on from here"
            ) from e
        self._note(chain)

    def _note(self, chain: Chain) -> None:
        self.done[chain.sample.id] = not chain.dropped
        self.cost += chain.cost

    def _mend(self) -> None:
        """Cut off a last line that has no end."""
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            self._file.truncate(data.rfind(b"\n") + 1)
            self._file.seek(0, os.SEEK_END)
