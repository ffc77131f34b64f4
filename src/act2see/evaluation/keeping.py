"""The folder of a run: answers are appended as they come, and a run that was killed continues in it.

A line is one write to a file opened for appending, so that a kill leaves whole lines and at most one that
was cut, which is dropped. The places of lines are kept, not the lines, so memory stays flat. A question is
asked again only if it has no line.

A folder holds one run: with another benchmark, preset, seed or file it is refused, since the numbers of two
settings must not end in one table.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from act2see.errors import BenchmarkError
from act2see.evaluation.records import (
    DIAGNOSIS,
    LARGEST,
    QUESTIONS,
    RUN,
    QuestionRecord,
    RunRecord,
    check_line,
    parse_record,
    read_run,
)
from act2see.tools.runtime.files import replacing_file, write_text
from act2see.tools.runtime.text import quote_text

_SYNC = 1.0  # seconds: what a power failure may cost; a kill costs nothing
_OURS = {RUN, QUESTIONS, DIAGNOSIS, "traces", "logs", ".lock", ".DS_Store"}
Key = tuple[str, int]


class RunFolder:
    """The folder of one run, open for one process."""

    def __init__(self, folder: Path, run: RunRecord) -> None:
        """Open a folder, new or not.

        Raises:
            BenchmarkError: It holds another run or other files, or another process is running it.
        """
        self.path = folder
        _check_content(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BenchmarkError(
                f"another process is running {folder}: wait for it, or name another"
            ) from None
        try:
            if (folder / RUN).exists():
                earlier = read_run(folder)
                _check_same(folder, earlier, run)
                run = run.model_copy(
                    update={"started": earlier.started, "notes": _note_commits(earlier, run)}
                )
            self.run = run
            self._places = self._read_places()
            self.save_run(run)
        except BaseException:
            self._lock.release()
            raise
        self._file: BinaryIO | None = None
        self._synced = time.monotonic()

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def keys(self) -> frozenset[Key]:
        """Return the questions that have a line."""
        return frozenset(self._places)

    def append(self, record: QuestionRecord) -> None:
        """Add a line. A question that has one keeps it."""
        if record.key in self._places:
            return
        if self._file is None:
            self._file = (self.path / QUESTIONS).open("ab", buffering=0)
        place = self._file.tell()
        self._file.write(record.model_dump_json().encode() + b"\n")
        self._places[record.key] = place
        if time.monotonic() - self._synced > _SYNC:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def get(self, key: Key) -> QuestionRecord:
        """Return the line of a question."""
        with (self.path / QUESTIONS).open("rb") as file:
            return self._record_at(file, key)

    def records(self, keys: Sequence[Key]) -> Iterator[QuestionRecord]:
        """Yield the lines of these questions, in this order."""
        with (self.path / QUESTIONS).open("rb") as file:
            for key in keys:
                yield self._record_at(file, key)

    def finish(self, keys: Sequence[Key], run: RunRecord) -> None:
        """Put the lines in the order of the benchmark, and save what is known of the run."""
        self._close_file()
        with replacing_file(self.path / QUESTIONS) as new, new.open("wb") as file:
            places: dict[Key, int] = {}
            with (self.path / QUESTIONS).open("rb") as old:
                for key in keys:
                    places[key] = file.tell()
                    old.seek(self._places[key])
                    file.write(old.readline())
        self._places = places
        self.save_run(run)

    def save_run(self, run: RunRecord) -> None:
        """Write `run.json`, whole or not at all."""
        self.run = run
        write_text(self.path / RUN, run.model_dump_json(indent=1) + "\n")

    def close(self) -> None:
        """Let other processes open the folder."""
        self._close_file()
        self._lock.release()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _record_at(self, file: BinaryIO, key: Key) -> QuestionRecord:
        file.seek(self._places[key])
        return parse_record(QuestionRecord, file.readline().decode(), f"{self.path / QUESTIONS}")

    def _read_places(self) -> dict[Key, int]:
        """Return where each line begins. Drop a line that was cut, and those to be asked again.

        What failed is asked again: the server may be back. What is missing may have been downloaded.
        """
        path = self.path / QUESTIONS
        if not path.exists():
            return {}
        if path.stat().st_size > LARGEST:
            raise BenchmarkError(f"{path} is larger than {LARGEST >> 30} GiB: name another folder")
        places: dict[Key, int] = {}
        again = False
        with path.open("rb") as file:
            while line := file.readline():
                if not line.endswith(b"\n"):
                    again = True
                    break
                number = len(places) + 1
                record = parse_record(QuestionRecord, line.decode(errors="replace"), f"{path}, line {number}")
                check_line(record, self.run.setting, f"{path}, line {number}")
                if record.key in places:
                    raise BenchmarkError(
                        f"{path} has {quote_text(record.id)!r} twice: it was changed by hand"
                    )
                if record.status in ("failed", "missing"):
                    again = True
                    continue
                places[record.key] = file.tell() - len(line)
        if not again:
            return places
        kept: dict[Key, int] = {}
        with path.open("rb") as file, replacing_file(path) as new, new.open("wb") as target:
            for key, place in places.items():
                kept[key] = target.tell()
                file.seek(place)
                target.write(file.readline())
        return kept


def _note_commits(earlier: RunRecord, now: RunRecord) -> tuple[str, ...]:
    """Return the notes of a run that continues: its answers may be of other commits than its table."""
    if earlier.commit is None or earlier.commit == now.commit:
        return earlier.notes
    return tuple(dict.fromkeys((*earlier.notes, f"earlier answers are of commit {earlier.commit}")))


def _check_content(folder: Path) -> None:
    """Raise `BenchmarkError` if a folder holds anything but a run, or is none."""
    if folder.exists() and not folder.is_dir():
        raise BenchmarkError(f"{folder} is a file: name a folder with --out")
    if folder.is_dir() and not (folder / RUN).exists():
        others = sorted({path.name for path in folder.iterdir()} - _OURS)
        if others or (folder / QUESTIONS).exists():
            named = others[0] if others else QUESTIONS
            raise BenchmarkError(
                f"{folder} holds other files ({quote_text(named)}) and no run: name a new folder with --out"
            )


def _check_same(folder: Path, earlier: RunRecord, now: RunRecord) -> None:
    """Raise `BenchmarkError` if a folder holds the answers of another setting."""
    for field in type(now.setting).model_fields:
        had, has = getattr(earlier.setting, field), getattr(now.setting, field)
        if had != has and field != "source":  # a file may have moved: its digest says what it holds
            old, new = quote_text(str(had)), quote_text(str(has))
            raise BenchmarkError(
                f"{folder} holds another run ({field} {old!r}, not {new!r}): "
                "name another folder with --out, since runs are not mixed"
            )
    for part, name in now.weights.items():
        had = earlier.weights.get(part, name)
        if had != name and "@" in had and "@" in name:  # without a revision they were not here yet
            raise BenchmarkError(
                f"{folder} holds answers of other weights ({part} {quote_text(had)!r}, not "
                f"{quote_text(name)!r}): name another folder with --out, since runs are not mixed"
            )
    before = earlier.of if earlier.limit is None else earlier.limit
    wanted = now.of if now.limit is None else now.limit
    if wanted < before:
        asked = "all" if earlier.limit is None and earlier.of == now.of else f"{before:,}"
        raise BenchmarkError(
            f"{folder} holds {asked} questions and --limit asks for {wanted:,}: a limit can only grow"
        )
