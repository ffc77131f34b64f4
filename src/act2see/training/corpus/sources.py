"""The sources of human reasoning: MINERVA, CausalVQA, Social Genome (the paper's three) and JSON Lines files.
The board world has its own loader (`micro.source`).

A loader yields a `Sample` for each record, or a `Problem` that names the record, the field and the remedy. A
problem with `dropped` False is a notice, for instance about a licence that restricts use: the sample follows.
No record is skipped silently. The formats are those of the data sets' own files.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from act2see.errors import SourceError
from act2see.tools.frames import Record
from act2see.tools.runtime.files import read_file
from act2see.tools.runtime.plain_json import parse_json
from act2see.tools.video.window import Window
from act2see.trace.options import choose

VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")
_LARGEST = 64 << 20  # bytes of a file; the sources have at most 10 MB
LICENCES = {
    "minerva": "CC-BY-4.0",
    "causalvqa": "CausalVQA (evaluation only, by its croissant.json; videos under the EgoExo licence)",
    "social-genome": "Social-IQ 2.0 (research)",
}


class Sample(Record):
    """One question about one clip, with its answer and a person's reasoning."""

    id: str
    source: str
    video: str
    question: str
    options: tuple[str, ...] = ()
    answer: str
    """The text of the right option, or the right free answer if there are no options."""
    chain: str = ""
    """The human reasoning."""
    trim: tuple[float, float] | None = None
    """Start and end, in seconds, of the part of the video that is asked about; None for all of it."""
    licence: str = ""
    """The licence of the annotations."""

    @property
    def clip(self) -> str:
        """The video, or the part that is asked about, in the syntax of `open_video`."""
        return str(Window(self.video, *self.trim)) if self.trim else self.video

    def read(self, given: str | None) -> str | None:
        """Return the option that an answer names, or None; without options, return its normalised words."""
        return choose(given, self.options) if self.options else _normalise(given or "")

    def is_right(self, given: str | None) -> bool:
        """Whether an answer names the right option or, without options, has the same words, ignoring case."""
        return self.read(given) == (self.answer if self.options else _normalise(self.answer))


def _normalise(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .")


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of a record."""

    source: str
    record: str
    """The id of the record, or its number."""
    field: str
    why: str
    dropped: bool = True
    """Whether the record has no sample."""

    def __str__(self) -> str:
        kept = "" if self.dropped else " (kept)"
        return f"{self.source} {self.record}: {self.field}: {self.why}{kept}"


Loaded = Sample | Problem
Loader = Callable[[Path, Path, bool], Iterator[Loaded]]


class _FieldError(Exception):
    """A field that is missing or cannot be used."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field
        self.why = why


def _required_text(row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    if value is None or not str(value).strip():
        raise _FieldError(field, "is missing" if value is None else "is empty")
    return str(value).strip()


def _find_video(folder: Path | None, name: str, field: str) -> str:
    """Return the path of a video in `folder`, whose name may lack its extension; without one, its name."""
    if folder is None:
        return name
    candidates = [folder / name, *(folder / f"{name}{ending}" for ending in VIDEO_ENDINGS)]
    found = next((p for p in candidates if _is_file(p)), None)
    if found is None:
        raise _FieldError(
            field,
            f"there is no video {name!r} in {folder}: download it there, or use another --videos folder",
        )
    return str(found)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long
        return False


def _human_chain(row: dict[str, Any], field: str, optional: bool) -> str:
    """Return the human reasoning. It is required unless `optional`, since the filter compares chains with
    it."""
    if optional and not str(row.get(field) or "").strip():
        return ""
    try:
        return _required_text(row, field)
    except _FieldError as e:
        raise _FieldError(
            field,
            f"{e.why}, so the chain cannot be compared: `--without-chains` accepts such records, "
            "without the comparison",
        ) from e


def _load_rows(
    source: str, rows: Iterable[tuple[str, Any]], parse: Callable[[dict[str, Any]], Sample]
) -> Iterator[Loaded]:
    """Parse each row; a row that cannot be used becomes a `Problem`.

    Args:
        source: The name of the source.
        rows: The name of each row, and the row; a string in place of a row is the reason why it is invalid.
        parse: Converts a row.
    """
    seen: set[str] = set()
    for name, row in rows:
        if not isinstance(row, dict):
            why = row if isinstance(row, str) else f"is {type(row).__name__}, not an object"
            yield Problem(source, name, "record", why)
            continue
        try:
            sample = parse(row)
        except _FieldError as e:
            yield Problem(source, name, e.field, e.why)
            continue
        if sample.id in seen:
            yield Problem(source, name, "id", f"{sample.id!r} is a duplicate: the first record is used")
            continue
        seen.add(sample.id)
        if not sample.licence:
            why = "is not given: check that you may train on the sample"
            yield Problem(source, sample.id, "licence", why, dropped=False)
        yield sample


def _open(path: Path, what: str) -> str:
    try:
        return read_file(path, _LARGEST).decode("utf-8-sig")
    except (OSError, ValueError) as e:
        raise SourceError(f"cannot read {path} ({e}): give {what}") from e


def _json_rows(path: Path, key: str, what: str) -> Iterator[tuple[str, Any]]:
    """Yield the name and the object of each record of a JSON array."""
    try:
        data = parse_json(_open(path, what), _LARGEST)
    except ValueError as e:
        raise SourceError(f"{path} is not JSON ({e}): give {what}") from e
    if not isinstance(data, list):
        raise SourceError(f"{path} holds a {type(data).__name__}, not an array of records: give {what}")
    for n, row in enumerate(data, start=1):
        yield _name_of(row, key, f"record {n}"), row


def _name_of(row: Any, key: str, otherwise: str) -> str:
    return str(row.get(key) or otherwise) if isinstance(row, dict) else otherwise


def load_minerva(path: Path, videos: Path | None, without_chains: bool = False) -> Iterator[Loaded]:
    """Load `minerva.json` (google-deepmind/neptune).

    Args:
        path: The file.
        videos: The folder of the videos, named by their YouTube ids; None to keep the names.
        without_chains: Accept records without human reasoning.

    Raises:
        SourceError: The file cannot be read.
    """

    def parse(row: dict[str, Any]) -> Sample:
        options = tuple(_required_text(row, f"answer_choice_{i}") for i in range(5))
        number = _required_text(row, "answer_id")
        if number not in {str(i) for i in range(5)}:
            raise _FieldError("answer_id", f"is {number!r}, not a number from 0 to 4")
        return Sample(
            id=_required_text(row, "key"),
            source="minerva",
            video=_find_video(videos, _required_text(row, "video_id"), "video_id"),
            question=_required_text(row, "question"),
            options=options,
            answer=options[int(number)],
            chain=_human_chain(row, "reasoning", without_chains),
            licence=LICENCES["minerva"],
        )

    yield from _load_rows("minerva", _json_rows(path, "key", "minerva.json"), parse)


def load_causalvqa(path: Path, videos: Path | None, without_chains: bool = False) -> Iterator[Loaded]:
    """Load CausalVQA's CSV, with its first set of choices ("1. x|2. y").

    The public release has no rationales and is for evaluation only.

    Raises:
        SourceError: The file cannot be read.
    """

    def parse(row: dict[str, Any]) -> Sample:
        choices = _required_text(row, "choices1").split("|")
        options = tuple(_without_number(choice) for choice in choices)
        correct = _required_text(row, "correct1")
        answer: str | None
        if correct.isdecimal() and len(correct) <= 4 and 0 < int(correct) <= len(options):
            answer = options[int(correct) - 1]
        else:
            answer = choose(correct, options)
        if answer is None:
            raise _FieldError("correct1", f"{correct!r} is not one of the {len(options)} choices")
        return Sample(
            id=_required_text(row, "qid"),
            source="causalvqa",
            video=_find_video(videos, _required_text(row, "renamed_video"), "renamed_video"),
            question=_required_text(row, "question"),
            options=options,
            answer=answer,
            chain=_human_chain(row, "rationale", without_chains),
            licence=LICENCES["causalvqa"],
        )

    table = csv.DictReader(_open(path, "CausalVQA's CSV").splitlines())
    yield Problem(
        "causalvqa",
        str(path.name),
        "licence",
        f"{LICENCES['causalvqa']}: check that you may train on it",
        dropped=False,
    )
    rows = ((_name_of(row, "qid", f"line {n}"), row) for n, row in enumerate(table, start=2))
    try:
        yield from _load_rows("causalvqa", rows, parse)
    except csv.Error as e:  # a field of more than 128 KiB
        raise SourceError(f"{path}, line {table.line_num + 1} cannot be read ({e}): check its quotes") from e


def _without_number(choice: str) -> str:
    """Return the text of a choice: "it fell" of "1. it fell"."""
    return choice.partition(". ")[2].strip() or choice.strip()


def load_social_genome(path: Path, videos: Path, without_chains: bool = False) -> Iterator[Loaded]:
    """Load Social Genome's questions.

    The fields `answer` (0-3 or the text) and `chain` come from its separate release.

    Raises:
        SourceError: The file cannot be read.
    """

    def parse(row: dict[str, Any]) -> Sample:
        options = tuple(_required_text(row, f"a{i}") for i in range(4))
        given = _required_text(row, "answer")
        answer = options[int(given)] if given in ("0", "1", "2", "3") else choose(given, options)
        if answer is None:
            raise _FieldError("answer", f"{given!r} is not one of a0 to a3")
        return Sample(
            id=_required_text(row, "qid"),
            source="social-genome",
            video=_find_video(videos, _required_text(row, "vid_name"), "vid_name"),
            question=_required_text(row, "q"),
            options=options,
            answer=answer,
            chain=_human_chain(row, "chain", without_chains),
            trim=_read_trim(_required_text(row, "ts"), "ts"),
            licence=LICENCES["social-genome"],
        )

    yield from _load_rows("social-genome", _json_rows(path, "qid", "Social Genome's JSON"), parse)


def _read_trim(text: str, field: str) -> tuple[float, float]:
    """Parse a start and an end in seconds, such as `"0.00-60.019"`; `field` is named in errors."""
    start, _, stop = text.partition("-")
    try:
        trim = float(start), float(stop)
    except ValueError:
        why = f"{text!r} is not a start and an end in seconds, such as '0.00-60.02'"
        raise _FieldError(field, why) from None
    if not 0 <= trim[0] < trim[1] < float("inf"):
        raise _FieldError(field, f"{text!r} is not a start time and a later end time")
    return trim


def load_jsonl(path: Path, videos: Path, without_chains: bool = False) -> Iterator[Loaded]:
    """Load a JSON Lines file.

    Each line is an object with `video`, `question`, `answer` and `chain`. Optional fields are `options`,
    `id`, `trim` ("start-end" or [start, end], in seconds) and `licence`.

    Raises:
        SourceError: The file cannot be read.
    """

    def rows() -> Iterator[tuple[str, Any]]:
        for n, line in enumerate(_open(path, "a JSON Lines file").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as e:
                row = f"line {n} is not JSON ({e})"
            yield _name_of(row, "id", f"line {n}"), row

    def parse(row: dict[str, Any]) -> Sample:
        options = row.get("options") or []
        if not isinstance(options, list) or not all(isinstance(o, str) and o.strip() for o in options):
            raise _FieldError("options", "must be a list of non-empty strings")
        trim = row.get("trim")
        if isinstance(trim, list):
            trim = "-".join(map(str, trim))
        given = _required_text(row, "answer")
        answer = choose(given, tuple(options)) if options else given
        if answer is None:
            raise _FieldError("answer", f"{given!r} does not name an option by its letter or its words")
        question = _required_text(row, "question")
        video = _required_text(row, "video")
        return Sample(
            id=str(row.get("id") or f"{Path(video).stem}: {question}"),
            source="jsonl",
            video=_find_video(videos, video, "video"),
            question=question,
            options=tuple(options),
            answer=answer,
            chain=_human_chain(row, "chain", without_chains),
            trim=_read_trim(str(trim), "trim") if trim else None,
            licence=str(row.get("licence") or ""),
        )

    yield from _load_rows("jsonl", rows(), parse)


LOADERS: dict[str, Loader] = {
    "minerva": load_minerva,
    "causalvqa": load_causalvqa,
    "social-genome": load_social_genome,
    "jsonl": load_jsonl,
}


@dataclass(slots=True)
class Tally:
    """The number of samples and the problems of a source."""

    samples: int = 0
    problems: list[Problem] = field(default_factory=list)

    def watch(self, loaded: Iterable[Loaded]) -> Iterator[Sample]:
        """Yield and count the samples; store the problems."""
        for item in loaded:
            if isinstance(item, Problem):
                self.problems.append(item)
            else:
                self.samples += 1
                yield item

    def __str__(self) -> str:
        dropped = Counter(p.field for p in self.problems if p.dropped)
        notices = Counter(p.field for p in self.problems if not p.dropped)
        lines = [f"{self.samples} samples"]
        lines += [f"  {n} dropped: {field}" for field, n in dropped.most_common()]
        lines += [f"  {n} to check: {field}" for field, n in notices.most_common()]
        return "\n".join(lines)
