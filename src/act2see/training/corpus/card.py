"""The data set card of a corpus, with numbers that are counted while the corpus is written.

The author of a corpus gives only the facts that cannot be counted (`CorpusMeta`). The Hugging Face hub and
`datasets` read the front matter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from act2see.tools.frames import FrameRef, Generated, Record, stamp
from act2see.tools.runtime.markdown import markdown_table
from act2see.trace.options import LETTERS
from act2see.trace.record import Frames
from act2see.trace.trace import Trace
from act2see.training.corpus.filtering import drop_reason
from act2see.training.corpus.records import Chain

CORPUS_VERSION = 1
Images = Literal["embedded", "reference"]

COLUMNS = {
    "id": "the id of the sample in its source",
    "source": "the data set of the question",
    "licence": "the licence of the source's annotations; the videos have their own",
    "video": "the path of the video when the chain was made",
    "trim": "start and end, in seconds, of the part of the video that was asked about; null: all of it",
    "question": "the question",
    "options": "the choices; empty for a free answer",
    "answer": "the right answer: the text of an option if there are options",
    "human_chain": "a person's reasoning",
    "teacher": "the model that wrote the chain",
    "similarity": "similarity of the chain's text to the human chain; null: not measured",
    "chain": "the chain as text, each frame as its time",
    "trace": "JSON, used for training: the whole rollout by segment, with the provenance of each frame",
    "attempts": "JSON: the teacher's attempts, their outcomes and costs",
    "n_calls": "tool calls in the chain",
    "tools": "the tools that were called, in order of first use",
    "images": (
        "each frame once, as PNG: those in view in order of appearance, then the anchors of imagined frames"
    ),
}


class CorpusMeta(Record):
    """Facts that cannot be counted: name, licence, and how the chains were made and filtered."""

    name: str = "Act2See chains"
    licence: str = "other"
    """A licence identifier of the Hugging Face hub."""
    language: str = "en"
    threshold: float | None = None
    """The threshold of the similarity filter."""
    encoder: str = ""
    """The name of the filter's encoder."""
    retries: int | None = None
    """Maximum number of further attempts after a wrong answer."""
    ground_truth_in_prompt: bool = False
    style: str = "paper"
    """The style of the prompt in exports."""
    usages: dict[str, str] = Field(default_factory=dict)
    """Tag -> the usage line of the tool in the prompt of exports. Other tools get their own usage lines."""
    notes: str = ""
    """A paragraph for the card."""


class CorpusInfo(Record):
    """`act2see.json`: the version of the corpus, its files, and its counts."""

    corpus_version: int = CORPUS_VERSION
    act2see: str
    """The version of act2see that wrote the corpus."""
    images: Images
    files: tuple[str, ...]
    chains: int
    dropped: dict[str, int]
    """"STEP: REASON" -> number of dropped chains."""
    sources: dict[str, dict[str, int]]
    """Source -> licence -> number of chains."""
    teachers: dict[str, int]
    """Teacher -> number of chains."""
    with_frames: int
    """Number of chains in which a tool returned a frame."""
    calls: dict[str, int]
    """Tag -> number of calls."""
    retrieved: int
    """Number of retrieved frames."""
    generated: int
    """Number of generated frames."""
    pictures: int
    """Number of stored pictures."""
    compared: int
    """Number of chains whose similarity was measured."""
    similarity: tuple[float, float] | None
    """The lowest and the mean of the measured similarities."""
    meta: CorpusMeta


@dataclass(slots=True)
class CorpusCounter:
    """Counts of the chains that were written or dropped so far, and one chain as the card's example."""

    chains: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    teachers: Counter[str] = field(default_factory=Counter)
    with_frames: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    imagined: Counter[bool] = field(default_factory=Counter)
    pictures: int = 0
    compared: int = 0
    lowest: float = 1.0
    total: float = 0.0
    """The sum of the similarities."""
    example: Chain | None = None

    def drop(self, chain: Chain) -> None:
        """Count a dropped chain."""
        self.dropped[": ".join(filter(None, drop_reason(chain)))] += 1

    def keep(self, chain: Chain, trace: Trace, pictures: int) -> None:
        """Count a written chain.

        Args:
            chain: The chain.
            trace: Its trace.
            pictures: The number of pictures that were stored for it.
        """
        self.chains += 1
        self.sources.setdefault(chain.sample.source, Counter())[chain.sample.licence] += 1
        self.teachers[chain.teacher] += 1
        frames = _returned_frames(trace)
        self.with_frames += bool(frames)
        self.imagined.update(f.imagined for f in frames)
        self.calls.update(c.tag for c in trace.calls)
        self.pictures += pictures
        if chain.similarity is not None:
            self.compared += 1
            self.lowest = min(self.lowest, chain.similarity)
            self.total += chain.similarity
        # The example is the first chain with a returned frame, or the first chain if there is none.
        if self.example is None or (frames and not self._example_has_frames):
            self.example = chain

    @property
    def _example_has_frames(self) -> bool:
        return bool(self.example and self.example.trace and _returned_frames(self.example.trace))

    def info(self, act2see: str, images: Images, files: Iterable[str], meta: CorpusMeta) -> CorpusInfo:
        """Return the counts as `CorpusInfo`.

        Args:
            act2see: The version of act2see.
            images: Whether pixels are embedded or stored as files.
            files: The parquet files of the corpus.
            meta: The facts that cannot be counted.
        """
        return CorpusInfo(
            act2see=act2see,
            images=images,
            files=tuple(files),
            chains=self.chains,
            dropped=dict(self.dropped.most_common()),
            sources={name: dict(licences) for name, licences in self.sources.items()},
            teachers=dict(self.teachers.most_common()),
            with_frames=self.with_frames,
            calls=dict(self.calls.most_common()),
            retrieved=self.imagined[False],
            generated=self.imagined[True],
            pictures=self.pictures,
            compared=self.compared,
            similarity=(self.lowest, self.total / self.compared) if self.compared else None,
            meta=meta,
        )


def _returned_frames(trace: Trace) -> list[FrameRef]:
    return [f for s in trace.segments if isinstance(s, Frames) for f in s.frames]


def unique_frames(trace: Trace) -> tuple[FrameRef, ...]:
    """Return each frame of a trace once: first the frames in view in order of appearance, then the anchors.

    The model does not see an anchor, but a reader needs it to judge the frame that was imagined from it.
    """
    once = {f.digest: f for f in trace.shown}
    for frame in trace.shown:
        while isinstance(made := frame.provenance, Generated):
            frame = made.anchor
            once.setdefault(frame.digest, frame)
    return tuple(once.values())


def readable_chain(trace: Trace) -> str:
    """Return the chain as readable text, each frame as `<3.7 seconds>` or `<imagined>`."""
    parts = []
    for segment in trace.segments:
        if isinstance(segment, Frames):
            shown = "".join("<imagined>" if f.imagined else stamp(f.seconds) for f in segment.frames)
            parts.append(f"<frame>{shown}{segment.note}</frame>")
        else:
            parts.append(segment.text)
    return "".join(parts)


def corpus_card(info: CorpusInfo, example: Chain) -> str:
    """Return the README.md: front matter, counts, construction, an example, columns and limits."""
    parts = [
        f"# {info.meta.name}",
        "Chains of thought over video in which a model asks for frames while it thinks: `<retrieve>` finds "
        "a frame in the video, `<generate>` imagines one. Each chain ends with the right answer.",
    ]
    if info.meta.notes:
        parts.append(info.meta.notes)
    parts += [
        "## Contents",
        _table(("", ""), _counts(info)),
        _table(("source", "licence", "chains"), _sources(info)),
        "## Construction",
        _how_made(info),
    ]
    if info.dropped:
        parts += ["Dropped chains:", _table(("step and reason", "chains"), info.dropped.items())]
    parts += [
        "## An example",
        _fenced(_example(example)),
        "## Columns",
        _table(("column", "content"), COLUMNS.items()),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(info)),
    ]
    return f"---\n{_front_matter(info)}\n---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(info: CorpusInfo) -> str:
    from huggingface_hub import DatasetCardData

    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    files: str | list[str] = "data/train-*.parquet"
    if info.images == "reference":
        files = ["metadata.parquet", "images/**/*.png"]
    configs: list[dict[str, Any]] = [
        {"config_name": "default", "data_files": [{"split": "train", "path": files}]}
    ]
    return DatasetCardData(
        pretty_name=info.meta.name,
        license=info.meta.licence,
        language=[info.meta.language],
        task_categories=["visual-question-answering", "video-text-to-text"],
        size_categories=[next((name for bound, name in bounds if info.chains < bound), "n>1M")],
        tags=["act2see", "video", "chain-of-thought", "tool-use", "interleaved"],
        configs=configs,
    ).to_yaml()


def _counts(info: CorpusInfo) -> list[tuple[str, object]]:
    with_frames = f"{info.with_frames} ({info.with_frames / info.chains:.2%})"
    stored = "embedded" if info.images == "embedded" else "as files, each picture once"
    rows: list[tuple[str, object]] = [
        ("chains", info.chains),
        ("chains with a returned frame (call rate)", with_frames),
        ("frames retrieved", info.retrieved),
        ("frames generated", info.generated),
    ]
    rows += [(f"calls of `{tag}`", n) for tag, n in info.calls.items()]
    rows.append(("pictures", f"{info.pictures}, {stored}"))
    if info.similarity:
        lowest, mean = info.similarity
        name = f"similarity to the human chain ({info.compared} compared)"
        rows.append((name, f"lowest {lowest:.3f}, mean {mean:.3f}"))
    return rows


def _sources(info: CorpusInfo) -> list[tuple[str, str, int]]:
    rows = []
    for source, licences in info.sources.items():
        rows += [(source, licence or "not given", n) for licence, n in licences.items()]
    return rows


def _how_made(info: CorpusInfo) -> str:
    meta = info.meta
    teachers = ", ".join(f"{name or 'not named'} ({n})" for name, n in info.teachers.items())
    in_prompt = "in" if meta.ground_truth_in_prompt else "not in"
    sentences = [f"Teacher: {teachers}. The right answer was {in_prompt} its prompt."]
    if meta.retries is not None:
        sentences.append(
            f"After a wrong answer the teacher tried again, at most {meta.retries} times. "
            "A chain that stayed wrong was dropped."
        )
    if meta.threshold is not None:
        measured = f", measured by {meta.encoder}" if meta.encoder else ""
        sentences.append(f"Similarity to the human chain had to exceed {meta.threshold:g}{measured}.")
    sentences.append(f"Written by act2see {info.act2see} (corpus version {info.corpus_version}).")
    return " ".join(sentences)


def _limits(info: CorpusInfo) -> list[str]:
    limits = ["A model wrote the chains. A right answer at the end does not make every step of a chain true."]
    if info.generated:
        limits.append(
            f"{info.generated} frames are imagined: they are not evidence of what the video shows. "
            "`trace` holds the prompt, the anchor and the faithfulness score of each."
        )
    if info.compared < info.chains:
        limits.append(f"{info.chains - info.compared} chains were not compared with a human chain.")
    if unlicensed := sum(licences.get("", 0) for licences in info.sources.values()):
        limits.append(
            f"{unlicensed} chains come from sources without a stated licence: check that you may use them."
        )
    limits.append(
        "Frames are single pictures from videos. "
        "The videos are not part of the corpus and have their own licences."
    )
    return limits


def _example(chain: Chain) -> str:
    sample = chain.sample
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, sample.options, strict=False)]
    thought = readable_chain(chain.trace) if chain.trace else ""
    return "\n".join([sample.question, *options, "", f"<think>\n{thought}"])


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    cells = []
    for row in rows:
        # A cell of a Markdown table cannot contain a line break.
        cells.append([" ".join(str(cell).split()) for cell in row])
    return markdown_table(head, cells).rstrip("\n")
