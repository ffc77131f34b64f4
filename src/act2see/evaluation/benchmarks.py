"""The benchmarks by name: what their files are called, how their records are read, where their videos lie.

`load_benchmark` returns a `Suite`: the samples, the problems of the file, and the samples without a video.
Whether these count as wrong or are left out moves a score, so it has no default.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from act2see.errors import BenchmarkError, SourceError
from act2see.evaluation import parsers
from act2see.evaluation.choices import check_count
from act2see.evaluation.samples import FieldError, Sample, make_sample
from act2see.evaluation.tables import Row, locate_table, read_rows
from act2see.tools.runtime.text import quote_text
from act2see.trace.options import LETTERS
from act2see.training.corpus.sources import (
    VIDEO_ENDINGS,
    Problem,
    Sample as SourceSample,
    load_causalvqa,
    load_minerva,
)

Missing = Literal["wrong", "leave out"]
"""What becomes of questions without a video."""
_LISTED = 10  # names in a list of missing videos


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How a benchmark is read and what it is called."""

    name: str
    files: tuple[str, ...]
    parse: Callable[[dict[str, Any]], Iterator[Sample]] | None
    """None for the sources of training, which have their own loaders."""
    folders: tuple[str, ...] = ("", "videos", "video", "data")
    """Where the videos are below the folder of the download."""
    records: int | None = None
    """How many questions the published file has."""


BENCHMARKS = {
    b.name: b
    for b in (
        Benchmark(
            "video-mme",
            ("video_mme*.json", "videomme*.json", "test-*.parquet", "*.parquet"),
            parsers.parse_video_mme,
            ("data", "videos", "video", ""),
            2700,
        ),
        Benchmark("video-mme-v2", ("test*.parquet", "*.parquet"), parsers.parse_video_mme_v2, records=3200),
        Benchmark("video-espresso", ("bench_hard.json",), parsers.parse_video_espresso),
        Benchmark(
            "egonormia",
            ("final_data.json", "egonormia*.json", "*norm*.parquet", "ood_robot.json"),
            parsers.parse_egonormia,
            ("video", "videos", ""),
        ),
        Benchmark("vcr-bench", ("meta_info*.json", "input.json"), parsers.parse_vcr_bench, records=1034),
        Benchmark(
            "vitib",
            ("vitcot_data.jsonl", "vitib*.jsonl"),
            parsers.parse_vitib,
            ("", "all_video", "src"),
            1382,
        ),
        Benchmark("minerva", ("minerva.json",), None),
        Benchmark("causalvqa", ("*causalvqa*.csv", "*.csv"), None),
        Benchmark("own", ("*.jsonl", "*.csv"), parsers.parse_own),
    )
}


@dataclass(frozen=True, slots=True)
class Suite:
    """The questions of a benchmark that can be asked, and those that cannot."""

    benchmark: str
    samples: tuple[Sample, ...]
    absent: tuple[Sample, ...]
    """Samples whose video is missing."""
    missing: Missing
    problems: tuple[Problem, ...]
    ids: tuple[str, ...] = ()
    """The ids of all samples, in the order of the file."""
    digest: str = ""
    """What it is known by, if not by its samples: a benchmark that is drawn has as many as are asked."""

    def __str__(self) -> str:
        lines = [f"{self.benchmark}: {len(self.samples)} questions"]
        dropped = Counter(problem.field for problem in self.problems if problem.dropped)
        lines += [f"  {n} records dropped: {field}" for field, n in dropped.most_common()]
        lines += [f"  note: {problem.why}" for problem in self.problems if not problem.dropped]
        if self.absent:
            names = sorted({sample.video for sample in self.absent})
            rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            counted = "count as wrong" if self.missing == "wrong" else "are left out"
            lines.append(f"  {len(self.absent)} questions {counted}, for want of {len(names)} videos:")
            lines.append(f"    {', '.join(names[:_LISTED])}{rest}")
        return "\n".join(lines)


def load_benchmark(
    name: str, source: str | Path, videos: str | Path | None = None, *, missing: Missing, split: str = "test"
) -> Suite:
    """Load the questions of a benchmark and look for their videos.

    Args:
        name: One of `BENCHMARKS`.
        source: A file, a folder, an fsspec URL, or `hf://datasets/owner/name`.
        videos: The folder of the download; by default that of a local source.
        missing: Whether questions without a video count as wrong or are left out.
        split: The split of a data set of the hub.

    Raises:
        BenchmarkError: There is no such benchmark or file, or no record can be used.
    """
    benchmark = BENCHMARKS.get(name)
    if benchmark is None:
        raise BenchmarkError(f"there is no benchmark {quote_text(name)!r}: one of {', '.join(BENCHMARKS)}")
    found = locate_table(str(source), benchmark.files, split)
    if isinstance(found, Path):
        rows = read_rows(found)
        if videos is None and "://" not in str(source):
            videos = source if Path(source).is_dir() else Path(source).parent
    else:
        rows = ((f"record {n}", row) for n, row in enumerate(found, start=1))
    if benchmark.parse is None:
        loaded = _load_training_source(benchmark, found)
    else:
        loaded = _parse_rows(benchmark.name, benchmark.parse, rows)
    samples, problems = _sort(loaded)
    if not samples:
        first = next((str(p) for p in problems if p.dropped), "it has no records")
        raise BenchmarkError(
            f"no record of {source} can be used as {name} ({first}): "
            "is it another benchmark, or another version?"
        )
    total = len(samples) + sum(problem.dropped for problem in problems)
    if benchmark.records is not None and total != benchmark.records:
        why = (
            f"{source} has {total:,} records, the published file {benchmark.records:,}: "
            "it is a part, or another version"
        )
        problems.append(Problem(name, "all", "records", why, dropped=False))
    root = None if videos is None else Path(videos)
    present, absent = [], []
    for sample in samples:
        path = None if root is None else find_video(root, sample.video, benchmark.folders)
        if path is None:
            absent.append(sample)
        else:
            present.append(sample.model_copy(update={"video": path}))
    ids = tuple(sample.id for sample in samples)
    return Suite(name, tuple(present), tuple(absent), missing, tuple(problems), ids)


def _sort(loaded: Iterator[Sample | Problem]) -> tuple[list[Sample], list[Problem]]:
    samples: list[Sample] = []
    problems: list[Problem] = []
    for item in loaded:
        if isinstance(item, Problem):
            problems.append(item)
        else:
            samples.append(item)
    return samples, problems


def _parse_rows(
    name: str, parse: Callable[[dict[str, Any]], Iterator[Sample]], rows: Iterator[Row]
) -> Iterator[Sample | Problem]:
    seen: dict[str, tuple[str, Sample]] = {}
    unread: dict[str, None] = {}
    for record, row in rows:
        if not isinstance(row, dict):
            why = row if isinstance(row, str) else f"is {type(row).__name__}, not an object"
            yield Problem(name, record, "record", why)
            continue
        try:
            for sample in parse(row):
                if sample.id in seen:
                    _check_double(sample, record, *seen[sample.id])
                    why = f"{quote_text(sample.id)!r} is there twice: the first record is used"
                    yield Problem(name, record, "id", why)
                else:
                    seen[sample.id] = record, sample
                    yield sample
            if parse is parsers.parse_own:
                unread |= dict.fromkeys(parsers.list_unread(row))
        except FieldError as e:
            yield Problem(name, record, e.field, e.why)
    if unread:
        why = f"{quote_text(', '.join(unread), 120)} are not read: no field of a question, and no short text"
        yield Problem(name, "all", "fields", why, dropped=False)


def _check_double(sample: Sample, record: str, first_record: str, first: Sample) -> None:
    """Raise `BenchmarkError` if two questions have one id: which of them is meant cannot be known."""
    parts = ("video", "question", "options", "kind", "answer", "then", "sensible", "trim")
    if differing := [part for part in parts if getattr(sample, part) != getattr(first, part)]:
        raise BenchmarkError(
            f"{first_record} and {record} have one id, {quote_text(sample.id)!r}, and differ "
            f"({', '.join(differing)}): give each question an id of its own"
        )


def _load_training_source(
    benchmark: Benchmark, found: Path | list[dict[str, Any]]
) -> Iterator[Sample | Problem]:
    """Read MINERVA or CausalVQA with the loaders of training, and add what scores are grouped by."""
    if not isinstance(found, Path):
        raise BenchmarkError(f"{benchmark.name} is read from its file: {', '.join(benchmark.files)}")
    load, key, fields = {
        "minerva": (load_minerva, "key", ("question type", "split", "category")),
        "causalvqa": (load_causalvqa, "qid", ("type", "difficulty")),
    }[benchmark.name]
    rows: dict[str, dict[str, Any]] = {}
    for _, row in read_rows(found):
        if isinstance(row, dict):
            rows.setdefault(str(row.get(key)), row)  # of records with one id, the first is used
    for field in fields:
        if rows and not any(row.get(field) for row in rows.values()):
            why = "is missing in all records: no scores are given by it"
            yield Problem(benchmark.name, found.name, field, why, dropped=False)
    try:
        for item in load(found, None, without_chains=True):
            if isinstance(item, Problem):
                yield item
                continue
            try:
                yield _convert(item, rows[item.id], fields)
            except FieldError as e:
                yield Problem(benchmark.name, item.id, e.field, e.why)
    except SourceError as e:
        raise BenchmarkError(str(e)) from e


def _convert(item: SourceSample, row: dict[str, Any], fields: tuple[str, ...]) -> Sample:
    check_count(item.options, "options")
    return make_sample(
        id=item.id,
        benchmark=item.source,
        video=item.video,
        question=item.question,
        options=item.options,
        answer=LETTERS[item.options.index(item.answer)],
        groups={field: str(row[field]) for field in fields if row.get(field)},
        chain=(item.chain,) if item.chain else (),
        licence=item.licence,
    )


def find_video(root: Path, name: str, folders: tuple[str, ...]) -> str | None:
    """Return the path of a video below a folder, where the data set's own download puts it; None if it is
    missing.

    A name may lack its ending, be a path on another machine, or be a folder with one video in it.
    """
    for base in (name.lstrip("/"), os.path.basename(name)):
        for folder in folders:
            place = os.path.join(root, folder, base)
            for path in (place, *(place + ending for ending in VIDEO_ENDINGS)):
                if os.path.isfile(path):
                    return path
            if os.path.isdir(place) and base:
                inside = sorted(file for file in os.listdir(place) if file.endswith(VIDEO_ENDINGS))
                inside.sort(
                    key=lambda file: "prev" not in file
                )  # EgoNormia: what was seen before the decision
                if inside:
                    return os.path.join(place, inside[0])
    return None


def keep_samples(suite: Suite, keep: Callable[[Sample], bool]) -> Suite:
    """Return a part of a suite."""
    return replace(
        suite, samples=tuple(filter(keep, suite.samples)), absent=tuple(filter(keep, suite.absent))
    )
