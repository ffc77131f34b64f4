"""The options of `act2see ask` that give a person's decision about a call of a waiting run."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

import typer

from act2see.cli.options import picture_or_time
from act2see.errors import DecisionError, StoreError

DECISIONS = "--accept, --replace QUERY, --supply FILE|SECONDS or --refuse"
_METAVARS = {"query": "QUERY", "frame": "FILE", "seconds": "SECONDS"}
"""The fields of a decision that are values of its option, as DECISIONS and the help call them."""
_NAMES = "accept|replace|supply|refuse|query|frame|seconds|reason|by"
_FIELD = re.compile(rf"'({_NAMES})'|\A({_NAMES})(?=: )")
"""A field or a type of a decision in an error: in quotes, or before the problem."""


def decision_option(flag: str, help: str, metavar: str | None = None) -> Any:
    """Declare an option that answers a waiting run."""
    panel = "With --resume: the decision that a run waits for"
    return typer.Option(flag, metavar=metavar, help=help, rich_help_panel=panel)


@dataclass(frozen=True, slots=True)
class DecisionOptions:
    """The options that answer a waiting run, as given. At most one of the first five may be used."""

    accept: bool
    replace: str | None
    supply: str | None
    refuse: bool
    answer: str | None
    reason: str | None
    by: str | None

    @property
    def kinds(self) -> list[str]:
        """The names of the decisions among the options."""
        kinds = ("accept", "replace", "supply", "refuse", "answer")
        return [kind for kind in kinds if getattr(self, kind) not in (None, False)]


def read_decision(options: DecisionOptions) -> Any:
    """Return the decision in the form that `aresume` takes; None if the options contain no decision.

    Raises:
        DecisionError: The options cannot be combined, or the decision is invalid.
    """
    kinds = options.kinds
    if len(kinds) > 1:
        names = " and ".join(f"--{kind}" for kind in kinds)
        raise DecisionError(f"{names} cannot be combined: a call gets one decision")
    signed = options.reason is not None or options.by is not None
    if kinds == ["answer"]:
        if signed:
            raise DecisionError(
                "--reason and --by cannot be combined with --answer, which answers a tool's question: "
                "leave them out"
            )
        answer = _json_or_text(options.answer or "")
        if answer is None:  # LangGraph would take this as no answer at all
            raise DecisionError(
                "--answer null is no answer to a run; give a value, or the word itself as --answer '\"null\"'"
            )
        return answer
    if not kinds:
        if signed:
            raise DecisionError(f"--reason and --by belong to a decision: add {DECISIONS}")
        return None
    return _check_decision(kinds[0], options)


def _check_decision(kind: str, options: DecisionOptions) -> dict[str, Any]:
    """Return the fields of a decision about a call. Raises `DecisionError` if it is invalid."""
    from pydantic import ValidationError

    from act2see.graphs.approval import Decision, decision_problem, open_picture

    fields: dict[str, Any] = {
        "type": kind,
        "query": options.replace,
        "reason": options.reason,
        "by": options.by,
    }
    if options.supply is not None:
        supplied = picture_or_time(options.supply)
        if isinstance(supplied, str):
            # Another process, in another folder, may use the path.
            fields["frame"] = os.path.abspath(supplied)
        else:
            fields["seconds"] = supplied
    fields = {name: value for name, value in fields.items() if value is not None}
    try:
        decision = Decision.model_validate(fields)
        if decision.frame is not None:
            open_picture(decision.frame).close()
    except (ValidationError, StoreError) as e:
        why = in_options(decision_problem(e)) if isinstance(e, ValidationError) else str(e)
        raise DecisionError(f"--{kind} is not valid ({why}); the run was not resumed") from e
    return fields


def in_options(problem: str) -> str:
    """Return the problem of a decision with the names of the command line in place of those of fields."""

    def name(found: re.Match[str]) -> str:
        field = found[1] or found[2]
        return _METAVARS.get(field, f"--{field}")

    return _FIELD.sub(name, problem)


def _json_or_text(answer: str) -> Any:
    """Read `3`, `true` or `{"a": 1}` as JSON, and anything else as text."""
    try:
        return json.loads(answer)
    except ValueError:
        return answer
