"""What a run of a benchmark leaves in its folder: `questions.jsonl` and `run.json`.

These files are the interface: reports, comparisons and other programs read them and nothing else of a run.
Both can be read with any JSON reader; `read_run` checks them, too. A line is written as soon as its question
is answered, and never changed, so a run that is killed loses at most the questions that were being asked.

    RUN/run.json          what was run, on what, with what; the score and all that stands beside it
    RUN/questions.jsonl   a line for each question and seed
    RUN/traces/           the traces that `trace` names
    RUN/logs/             the logs of inspect_ai, for `inspect view`
    RUN/diagnosis/NAME/   the same questions with another return of the calls, each a run of its own
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from act2see.errors import BenchmarkError, TraceError
from act2see.evaluation.reading import AnswerKind
from act2see.evaluation.replies import Order, Reply
from act2see.evaluation.scoring import Outcome, Score, Scored
from act2see.tools.frames import Record
from act2see.tools.runtime.files import read_file
from act2see.tools.runtime.plain_json import parse_json
from act2see.tools.runtime.text import first_problem, quote_text
from act2see.trace.trace import Trace

SCHEMA_VERSION = 1
"""Version of both files. Raise it when a field changes its meaning."""
QUESTIONS, RUN, DIAGNOSIS = "questions.jsonl", "run.json", "diagnosis"
LARGEST = 1 << 30
"""Bytes of a file of questions."""
Status = Literal["answered", "unanswered", "malformed", "refused", "missing", "failed"]
"""What became of a question.

- answered: with an answer that can be read, right or wrong
- unanswered: the model gave none
- malformed: the answer cannot be read, names several options, or the judge could not judge it
- refused: the video or the question was refused
- missing: the video is not there
- failed: the video or the model failed, time and again
"""
_STATUS: dict[Outcome, Status] = {
    "right": "answered",
    "partly": "answered",
    "wrong": "answered",
    "unanswered": "unanswered",
    "several": "malformed",
    "unreadable": "malformed",
    "unjudged": "malformed",
    "refused": "refused",
    "no video": "missing",
}
_R = TypeVar("_R", bound=Record)


class Calls(Record):
    """How many calls of the tools were run. Other tools are in `other`."""

    retrieve: int = 0
    generate: int = 0
    other: int = 0

    @property
    def all(self) -> int:
        """The number of all calls."""
        return self.retrieve + self.generate + self.other


class QuestionRecord(Record):
    """One question, asked once with one seed: a line of `questions.jsonl`."""

    schema_version: int = SCHEMA_VERSION
    id: str
    benchmark: str
    arm: str
    """The name of the way of working: that of the preset, or of a peer."""
    seed: int
    task: str = ""
    """The type of the question in the benchmark; empty if it has none."""
    groups: dict[str, str] = Field(default_factory=dict)
    """All that scores are also given by: duration, domain, task."""
    kind: AnswerKind = "choice"
    video: str
    question: str
    options: tuple[str, ...] = ()
    """As they were shown, without letters."""
    order: Order = ()
    """`order[shown]` is the place of an option in the benchmark's file; empty if they were not shuffled."""
    truth: str
    """The letter of the right option as it was shown, letters, or the right answer as text."""
    answer: str | None = None
    """The body of `<answer>` as the model wrote it."""
    correct: bool
    """Whether the score is 1."""
    score: float = Field(ge=0, le=1)
    status: Status
    outcome: Outcome | Literal["failed"]
    """What the scorer says: the status, and more exactly."""
    measures: dict[str, float] = Field(default_factory=dict)
    """Parts of the score: action and justification, recall and precision."""
    reply: Reply = Reply()
    """All answers, from which the score can be made again. Its chain is empty: it is in the trace."""
    needed: tuple[str, ...] | None = None
    """The tags of the calls that the answer needs, in order; None where that is not known."""
    tokens: int = 0
    """Tokens that the model wrote."""
    read: int = 0
    """Tokens that it read, those in the cache not counted again."""
    thinking: int = 0
    """Tokens that a chat model thought without showing them."""
    aside: int = 0
    """Tokens read and written for all questions about the video, such as those of its captions. They stand
    with the question for which they were spent."""
    seconds: float = 0.0
    calls: Calls = Calls()
    refused_calls: int = 0
    """Calls that were not run: malformed tags, unknown tools, no calls left."""
    frames: int = 0
    """Frames in the model's view at the end."""
    initial_frames: int = 0
    forced: bool = False
    """Whether the model was made to answer."""
    judge_malformed: int = 0
    """Replies of the judge that were no valid JSON."""
    trace: str | None = None
    """The path of the trace, relative to the folder of the run."""
    more_traces: tuple[str, ...] = ()
    """The traces of the second and third question."""
    error: str = ""
    """What failed."""

    @property
    def key(self) -> tuple[str, int]:
        """What makes a line unique in a run."""
        return self.id, self.seed

    @property
    def scored(self) -> Scored:
        """The score, as the tables of `scoring` take it. What failed counts as unanswered."""
        outcome: Outcome = "unanswered" if self.outcome == "failed" else self.outcome
        return Scored(
            id=self.id, score=self.score, outcome=outcome, groups=self.groups, measures=self.measures
        )


class Baseline(Record):
    """What one scores without the video."""

    name: str
    headline: float
    """In percent, by the benchmark's own rule."""
    accuracy: float
    n: int


class MissingVideos(Record):
    """Questions whose video is not there."""

    choice: Literal["wrong", "skip"]
    """Whether they count as wrong, or are left out."""
    questions: int = 0
    videos: tuple[str, ...] = ()


class Budgets(Record):
    """What a question may cost. A score moves with each of them."""

    fps: float
    frames: int | None = None
    """Frames at the start, if their number is fixed; a benchmark's own rule goes first."""
    max_frames: int
    max_side: int
    calls: int
    tokens: int
    answer_tokens: int
    seconds: float


class Totals(Record):
    """Sums over the questions of a run."""

    questions: int = 0
    statuses: dict[Status, int] = Field(default_factory=dict)
    tokens: int = 0
    read: int = 0
    thinking: int = 0
    aside: int = 0
    seconds: float = 0.0
    calls: Calls = Calls()
    refused_calls: int = 0
    frames: int = 0
    forced: int = 0
    judge_malformed: int = 0


class Setting(Record):
    """What makes two runs the same run: a folder holds the questions of one setting alone."""

    benchmark: str
    source: str
    """The file or URL; empty for the board benchmark."""
    digest: str
    """A hash of the questions and their right answers, whatever part of them is asked."""
    arm: str
    config: str
    """The hash of the configuration, with its budgets."""
    seed: int
    epochs: int = Field(default=1, ge=1)
    """How often each question is asked, with a seed of its own."""
    shuffled: bool = False
    """Whether options are shown in an order drawn from the seed."""
    missing: Literal["wrong", "skip"]
    judge: str | None = None


class RunRecord(Record):
    """`run.json`: what was run, and the score with all that a reader needs in order to believe it."""

    schema_version: int = SCHEMA_VERSION
    setting: Setting
    state: Literal["running", "finished"] = "running"
    limit: int | None = None
    """How many questions were asked at most."""
    of: int = 0
    """How many questions the benchmark's file has."""
    started: str
    """UTC, ISO 8601."""
    finished: str | None = None
    act2see: str
    commit: str | None = None
    """The commit of the source, `-dirty` if it was changed; None for an installed package."""
    reasoner: str
    weights: dict[str, str] = Field(default_factory=dict)
    """Part -> name of its weights with the revision that was used."""
    tools: dict[str, str] = Field(default_factory=dict)
    """Tag -> version."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The configuration, whole."""
    budgets: Budgets
    machine: str = ""
    missing: MissingVideos
    problems: tuple[str, ...] = ()
    """What is wrong with the benchmark's file, one line each."""
    totals: Totals = Totals()
    score: Score | None = None
    """None while it runs. Its `items` are empty: they are the lines of `questions.jsonl`."""
    baselines: tuple[Baseline, ...] = ()
    notes: tuple[str, ...] = ()


def status_of(outcome: Outcome) -> Status:
    """Return the status of a question with this outcome."""
    return _STATUS[outcome]


def read_run(folder: Path) -> RunRecord:
    """Read `run.json`.

    Raises:
        BenchmarkError: There is none, or it is of another version.
    """
    path = folder / RUN
    if not path.is_file():
        raise BenchmarkError(f"{folder} holds no run: name a folder that `act2see eval --out` wrote")
    try:
        return parse_record(RunRecord, read_file(path, LARGEST).decode(), str(path))
    except (OSError, UnicodeDecodeError) as e:
        raise BenchmarkError(f"cannot read {path}: {e}") from e


def read_questions(folder: Path, setting: Setting | None = None) -> Iterator[QuestionRecord]:
    """Yield the lines of `questions.jsonl`. A last line that a kill cut short is left out.

    Args:
        folder: The folder of the run.
        setting: That of the run, by which lines of another run are found; None does not look for them.

    Raises:
        BenchmarkError: A line cannot be read or is of another run, or a question is there twice.
    """
    path = folder / QUESTIONS
    if not path.exists():
        return
    seen: set[tuple[str, int]] = set()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                record = parse_record(QuestionRecord, line.decode(), f"{path}, line {number}")
                if setting is not None:
                    check_line(record, setting, f"{path}, line {number}")
                if record.key in seen:
                    raise BenchmarkError(f"{path}, line {number}: {quote_text(record.id)!r} is there twice")
                seen.add(record.key)
                yield record
    except (OSError, UnicodeDecodeError) as e:
        raise BenchmarkError(f"cannot read {path}: {e}") from e


def load_trace(folder: Path, name: str | None) -> Trace | None:
    """Return a trace that a line names; None if it names none, or it is gone.

    A run may come from someone else: a name that leads out of its folder is none.
    """
    if name is None or Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    try:
        return Trace.load(folder / name)
    except TraceError:
        return None


def check_line(record: QuestionRecord, setting: Setting, where: str) -> None:
    """Raise `BenchmarkError` if a line is not of this run: the numbers of two runs must not be mixed."""
    facts = {"benchmark": setting.benchmark, "arm": setting.arm}
    for field, wanted in facts.items():
        if (had := getattr(record, field)) != wanted:
            raise BenchmarkError(
                f"{where} is of another run ({field} {quote_text(had)!r}, not {quote_text(wanted)!r}): "
                "runs are not mixed; take its lines out"
            )
    if not setting.seed <= record.seed < setting.seed + setting.epochs:
        raise BenchmarkError(
            f"{where} is of another run (seed {record.seed}, not {setting.seed}): "
            "runs are not mixed; take its lines out"
        )


def parse_record(kind: type[_R], text: str, where: str) -> _R:
    """Return a record from its JSON. Raises `BenchmarkError` if it is none, or of another version."""
    try:
        data = parse_json(text, LARGEST)
    except ValueError as e:
        raise BenchmarkError(f"{where} is not JSON ({e})") from e
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise BenchmarkError(
            f"{where} has schema version {quote_text(repr(version))} and this act2see reads "
            f"{SCHEMA_VERSION} (field schema_version): read it with the version that wrote it"
        )
    try:
        return kind.model_validate(data)
    except ValidationError as e:
        field, problem = first_problem(e)
        raise BenchmarkError(f"{where}: {field}: {problem}") from e
