"""One family of errors. Each message says what was wrong and what to do about it."""

from __future__ import annotations


class Act2SeeError(RuntimeError):
    """Base of every error that act2see raises on purpose; the command line prints it as one line.

    A RuntimeError, because the LangGraph server keeps to itself what exceptions say that it has never heard
    of.
    """


class ConfigError(Act2SeeError):
    """The configuration names something that does not exist or cannot work."""


class VideoError(Act2SeeError):
    """The file cannot be opened, or holds no frame that can be shown."""


class StoreError(Act2SeeError):
    """A frame, an index or a trace cannot be read from, or written to, its folder."""


class WeightsError(Act2SeeError):
    """Model weights are missing or are not of the expected kind."""


class UnreachableError(WeightsError):
    """No hub can be reached: other weights would not be had either."""


class TraceError(Act2SeeError):
    """A saved trace cannot be read."""


class QuestionError(Act2SeeError):
    """The question cannot be asked as it stands."""


class WaitingError(Act2SeeError):
    """A run has come to a call that a person must decide on; it goes on when the decision is there."""


class DecisionError(Act2SeeError):
    """What a person decided cannot be carried out as it stands. The run still waits."""


class ReasonerError(Act2SeeError):
    """The reasoning model cannot continue."""


class ContextError(ReasonerError):
    """The rollout is longer than the model can read."""


class RefusedError(ReasonerError):
    """The reasoning model will not answer this."""


class SetupError(ReasonerError):
    """The reasoning model cannot be reached as it is set up: no other question would fare better."""


class ToolError(Act2SeeError):
    """A tool failed in a way that the graph may retry or report to the model."""


class TranscriptError(Act2SeeError):
    """A subtitle file cannot be read."""


class SourceError(Act2SeeError):
    """A file of training questions cannot be read at all."""


class CorpusError(Act2SeeError):
    """A corpus or a construction run cannot be read, written, or used for what was asked."""
