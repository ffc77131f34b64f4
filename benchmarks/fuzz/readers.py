"""Mutated files for every reader. A reader gives data, or one of act2see's own errors in one line.

Each target has a few valid files. A mutation flips, cuts, repeats or moves bytes, or puts in one of the
pieces that break readers: brackets, long numbers, aliases, tags, sizes. What is read is also shown and
written, since a value that a reader lets through must not break what comes after.

The vectors of an index (`rows.faiss`) are left whole: FAISS ends the process on a damaged file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from act2see.errors import Act2SeeError
from benchmarks.fuzz.inputs import (
    CHAINS,
    CORPORA,
    DIGEST,
    SUBTITLES,
    TRACES,
    make_configs,
    make_pictures,
)

if TYPE_CHECKING:
    from act2see.trace.trace import Trace
    from benchmarks.fuzz import Check

_PIECES = [
    *(
        b"[",
        b"{",
        b"[[[[[[[[",
        b'{"a":',
        b"]",
        b"}",
        b'"',
        b",",
        b":",
        b"-",
        b"\n",
        b"\n\n",
        b"\r",
        b" ",
        b"\0",
    ),
    *(
        b"null",
        b"true",
        b"1e999",
        b"-1",
        b"0",
        b"9" * 25,
        b"9" * 5000,
        b"0.1",
        b"1:1:1",
        b"2024-10-21",
        b"NaN",
    ),
    *(b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\xef\xbb\xbf", b"\xff\xfe", "é查".encode(), b"\xe2\x80\xa8"),
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!int ",
        b"!!binary ",
        b"!!set ",
        b"? ",
        b"- ",
        b"| ",
        b"%",
        b"@",
        b"#",
        b"\t",
    ),
    *(
        b" --> ",
        b"00:01",
        b"99:99:99,999",
        b"<v ",
        b"<c>",
        b"&#99999999999;",
        b"{\\an8}",
        b"WEBVTT\n\n",
        b"../",
    ),
    *(b"\x00\x00\xff\xff", b"\x7f\xff\xff\xff", b"IDAT", b"IHDR", b"PK\x03\x04", b"RIFF", b"\xff\xda"),
]
_LONGEST = 1000  # characters of an error


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return the data with one to four changes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        size = rng.choice((1, 1, 2, 8, 64))
        match rng.randrange(6):
            case 0:
                changed[place : place + size] = rng.randbytes(len(changed[place : place + size]))
            case 1:
                del changed[place : place + size]
            case 2:
                changed[place:place] = changed[place : place + size] * rng.choice((1, 1, 2, 300))
            case 3:
                start = rng.randrange(len(changed) + 1)
                changed[place:place] = changed[start : start + size]
            case 4 if rng.random() < 0.2:
                del changed[place:]
            case _:
                changed[place : place + rng.choice((0, size))] = rng.choice(_PIECES)
    return bytes(changed)


def find_fault(read: Callable[[], object]) -> str | None:
    """Return what is wrong with a reader's error; None if it gave data or a clean error."""
    try:
        read()
    except Act2SeeError as e:
        text = str(e)
        if not text or len(text) > _LONGEST or "\n" in text:
            return f"{type(e).__name__} is not one short line: {text[:200]!r}"
    except Exception as e:
        return f"{type(e).__name__}: {str(e)[:200]}"
    return None


def readers(folder: Path) -> dict[str, Check]:
    """Return the target of each reader.

    Args:
        folder: A folder for the mutated files.
    """
    return {
        "traces": _mutating(TRACES, _read_trace),
        "configs": _mutating(make_configs(), _in_file(folder / "config.yaml", _read_config)),
        "subtitles": _mutating(SUBTITLES, _in_file(folder / "clip.srt", _read_subtitles)),
        "chains": _mutating(CHAINS, _in_file(folder / "chains.jsonl", _read_chains)),
        "corpora": _corpora(folder),
        "indexes": _indexes(folder / "index"),
        "saved runs": _saved_runs(folder / "run"),
        "pictures": _mutating(make_pictures(), _in_file(folder / "picture", _read_picture)),
    }


def _mutating(valid: Sequence[bytes], read: Callable[[bytes], object]) -> Check:
    def check(rng: random.Random) -> str | None:
        data = mutate(rng.choice(valid), rng)
        if problem := find_fault(lambda: read(data)):
            return f"{problem} for {data[:2000]!r}"
        return None

    return check


def _in_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def read_bytes(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return read_bytes


def _read_trace(data: bytes) -> None:
    from act2see.trace.trace import Trace

    _show(Trace.from_json(data))


def _show(trace: Trace) -> None:
    """Do what every program does with a trace."""
    repr(trace)
    trace.to_json(summary=True)
    _ = trace.choice, trace.looks, trace.forced_because, [frame.place() for frame in trace.shown]


def _read_config(path: Path) -> None:
    from act2see.graphs.config import load_config

    config = load_config(path)
    _ = config.hash
    config.to_yaml(ascii=True)


def _read_subtitles(path: Path) -> None:
    from act2see.tools.video.subtitles import read_transcript

    transcript = read_transcript(path)
    transcript.search("look at the triangle")
    for line in transcript.lines:
        str(line)


def _read_chains(path: Path) -> None:
    from act2see.training.corpus.records import read_chains

    for chain in read_chains(path):
        chain.model_dump_json()
        _ = chain.cost, chain.sample.clip


def _corpora(folder: Path) -> Check:
    from act2see.training.corpus.files import read_jsonl, read_marker
    from act2see.training.corpus.sources import LOADERS, Problem

    videos = folder / "videos"
    videos.mkdir()
    (videos / "clip.mp4").write_bytes(b"x")

    def read(kind: str, path: Path) -> None:
        if kind == "marker":
            read_marker(folder, path.name, "corpus_version", 1, "a corpus")
        elif kind == "rows":
            list(read_jsonl(path))
        else:
            for sample in LOADERS[kind](path, videos, True):
                if not isinstance(sample, Problem):
                    _ = sample.clip, sample.model_dump_json()

    def check(rng: random.Random) -> str | None:
        kind = rng.choice(list(CORPORA))
        data = mutate(CORPORA[kind], rng)
        path = folder / f"{kind}.txt"
        path.write_bytes(data)
        if problem := find_fault(lambda: read(kind, path)):
            return f"{kind}: {problem} for {data[:2000]!r}"
        return None

    return check


def _indexes(folder: Path) -> Check:
    import numpy as np

    from act2see.tools.search.index import IndexWriter, read_index

    writer = IndexWriter()
    features = np.eye(4, 8, dtype=np.float16).reshape(4, 1, 8)
    writer.add(np.arange(4), np.arange(4.0), features)
    writer.write(folder, "v-index", {"video": "v"})
    valid = {name: (folder / name).read_bytes() for name in ("meta.json", "frames.npz")}

    def read() -> None:
        index = read_index(folder, "v-index")
        index.curve(np.zeros(len(index.seconds), np.float32))

    def check(rng: random.Random) -> str | None:
        name = rng.choice(list(valid))
        data = mutate(valid[name], rng)
        (folder / name).write_bytes(data)
        problem = find_fault(read)
        (folder / name).write_bytes(valid[name])
        return f"{name}: {problem} for {data[:2000]!r}" if problem else None

    return check


def _saved_runs(folder: Path) -> Check:
    from act2see.trace.folder import frames_of
    from act2see.trace.trace import Trace

    frames = folder / "frames"
    frames.mkdir(parents=True)
    picture = frames / f"000-1.5s-{DIGEST}.png"
    png = make_pictures()[0]

    def read() -> None:
        trace = Trace.load(folder)
        _show(trace)
        source = frames_of(folder)
        for frame in trace.shown:
            source(frame)

    def check(rng: random.Random) -> str | None:
        in_trace = rng.random() < 0.5
        trace = mutate(TRACES[0], rng) if in_trace else TRACES[0]
        data = png if in_trace else mutate(png, rng)
        (folder / "trace.json").write_bytes(trace)
        picture.write_bytes(data)
        problem = find_fault(read)
        return f"{problem} for {(trace if in_trace else data)[:2000]!r}" if problem else None

    return check


def _read_picture(path: Path) -> None:
    from act2see.graphs.approval import open_picture, upright_picture

    with open_picture(str(path)) as image:
        upright_picture(image)
