"""One family of errors. Each message says what is wrong and what to do about it."""

from __future__ import annotations


class Act2SeeError(RuntimeError):
    """Base of every error that act2see raises on purpose; the command line prints it as one line.

    It is a RuntimeError, because the LangGraph server hides the messages of exceptions that it does not know.
    """


class ConfigError(Act2SeeError):
    """The configuration names something that does not exist or cannot work."""


class VideoError(Act2SeeError):
    """The file cannot be opened, or holds no frame that can be shown."""


class StoreError(Act2SeeError):
    """A frame, an index or a trace cannot be read from, or written to, its folder."""


class WeightsError(Act2SeeError):
    """Model weights are missing, or of another kind than expected."""


class UnreachableError(WeightsError):
    """No hub can be reached: other weights could not be fetched either."""


class TraceError(Act2SeeError):
    """A saved trace cannot be read."""


class QuestionError(Act2SeeError):
    """The question cannot be asked as it stands."""


class WaitingError(Act2SeeError):
    """The run waits for a person's decision, and is resumed with it."""


class DecisionError(Act2SeeError):
    """A person's decision cannot be carried out. The run still waits."""

    problem = ""
    """What is wrong with the decision, for callers that take decisions in another form than data."""


class ReasonerError(Act2SeeError):
    """The reasoning model cannot continue."""


class ContextError(ReasonerError):
    """The rollout is longer than the model's context."""


class RefusedError(ReasonerError):
    """The reasoning model refuses to answer this question."""


class SetupError(ReasonerError):
    """The reasoning model cannot be reached as it is set up: every other question would fail too."""


class ToolError(Act2SeeError):
    """A tool failed; the graph may retry the call, or report it to the model."""


class TranscriptError(Act2SeeError):
    """A subtitle file cannot be read."""


class SourceError(Act2SeeError):
    """A file of training questions cannot be read at all."""


class CalibrationError(Act2SeeError):
    """A threshold cannot be calibrated from these queries and videos."""


class CorpusError(Act2SeeError):
    """A corpus or a construction run cannot be read, written, or used for this purpose."""


class BenchmarkError(Act2SeeError):
    """A benchmark's files cannot be read as what they should be, or its answers cannot be scored."""
