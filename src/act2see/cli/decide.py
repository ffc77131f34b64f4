"""What a person says to a run that waits: `act2see ask --resume ID --accept`, and so on, an option for each
kind of decision."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from act2see.errors import DecisionError, StoreError, WaitingError

if TYPE_CHECKING:
    from act2see.graphs.ask import Graph

_PANEL = "With --resume, where a call waits for a person"
_ANSWER = "--answer TEXT"
_OPTIONS = "--accept, --replace QUERY, --supply FILE|SECONDS or --refuse"

Accept = Annotated[bool, typer.Option("--accept", help="Call the tool.", rich_help_panel=_PANEL)]
Replace = Annotated[
    str | None,
    typer.Option(
        "--replace", metavar="QUERY", help="Call it with this query instead.", rich_help_panel=_PANEL
    ),
]
Supply = Annotated[
    str | None,
    typer.Option(
        "--supply",
        metavar="FILE|SECONDS",
        help="Show this instead: a picture, or a time in the video.",
        rich_help_panel=_PANEL,
    ),
]
Refuse = Annotated[bool, typer.Option("--refuse", help="Do not call it.", rich_help_panel=_PANEL)]
Reason = Annotated[
    str | None,
    typer.Option(
        "--reason", metavar="TEXT", help="Why it is refused; the model is told.", rich_help_panel=_PANEL
    ),
]
Answer = Annotated[
    str | None,
    typer.Option(
        "--answer",
        metavar="TEXT",
        help="Answer what a tool asks: text, or JSON for other values.",
        rich_help_panel=_PANEL,
    ),
]
By = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who decides; the trace keeps it.", rich_help_panel=_PANEL),
]


def decided(
    accept: bool,
    replace: str | None,
    supply: str | None,
    refuse: bool,
    reason: str | None,
    by: str | None,
    answer: str | None,
) -> Any:
    """The decision that the options make, checked; None where they make none. Raises `DecisionError`."""
    from pydantic import ValidationError

    from act2see.cli.fork import picture_or_time
    from act2see.graphs.approval import Decision, decision_problem, open_picture

    named = {
        "accept": accept,
        "replace": replace is not None,
        "supply": supply is not None,
        "refuse": refuse,
        "answer": answer is not None,
    }
    kinds = [kind for kind, given in named.items() if given]
    if len(kinds) > 1:
        raise DecisionError(
            f"{' and '.join(f'--{k}' for k in kinds)} exclude each other: a call gets one decision"
        )
    if answer is not None:
        if reason is not None or by is not None:
            raise DecisionError(
                "--reason and --by belong to a decision about a call, and --answer is for a tool that asks: leave them out"
            )
        return _json_or_text(answer)
    if not kinds:
        if reason is not None or by is not None:
            raise DecisionError(f"--reason and --by belong to a decision: add {_OPTIONS}")
        return None
    given: dict[str, Any] = {"type": kinds[0], "query": replace, "reason": reason, "by": by}
    if supply is not None:
        shown = picture_or_time(supply)
        # Carried out later, perhaps by a process in another folder.
        given |= {"frame": os.path.abspath(shown)} if isinstance(shown, str) else {"seconds": shown}
    given = {k: v for k, v in given.items() if v is not None}
    try:
        decision = Decision.model_validate(given)
        if decision.frame is not None:
            open_picture(decision.frame).close()
    except (ValidationError, StoreError) as e:
        why = decision_problem(e) if isinstance(e, ValidationError) else str(e)
        raise DecisionError(f"--{kinds[0]}: this decision cannot be used ({why}); nothing was resumed") from e
    return given


async def waiting(graph: Graph, run: str) -> WaitingError:
    """What a saved run waits for, and how to go on from here."""
    from act2see.graphs.run import is_approval, waiting_for

    saved = await graph.aget_state({"configurable": {"thread_id": run}})
    waits = saved.interrupts[0]
    options = _OPTIONS if is_approval(waits) else _ANSWER
    return WaitingError(f"{waiting_for(waits)}: act2see ask --resume {run} with {options}")


def _json_or_text(answer: str) -> Any:
    """`3`, `true`, `{"a": 1}` as JSON; all else as it is."""
    try:
        return json.loads(answer)
    except ValueError:
        return answer
