"""The board world as a set of tasks of `verifiers`: `vf-eval act2see-board`.

`verifiers` imports a set of tasks by its name, as a module at the top level; `act2see.evaluation.verifiers`
has all but the questions.
"""

from __future__ import annotations

from collections.abc import Iterable

from act2see.evaluation.samples import Sample
from act2see.evaluation.verifiers import FrameTaskset, LocalHarness
from act2see.micro.study.board import load_board

__all__ = ["BoardTaskset", "LocalHarness"]


class BoardTaskset(FrameTaskset):
    """The questions of `act2see eval board`."""

    def samples(self) -> Iterable[Sample]:
        """Return the questions, whose clips are written where they are not yet."""
        return load_board(self.config.questions).samples
