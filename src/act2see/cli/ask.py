"""`act2see ask`: one question, with its chain of thought printed as it is written.

With `--resume ID` it continues a run that was interrupted, or one that waits for a person to decide about a
call.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from act2see.cli.complete import run_ids, tool_tags
from act2see.cli.options import ConfigFile, Preset, chosen_config, picture_or_time
from act2see.cli.output import chain_printer, interrupted, note, print_json, program, say
from act2see.errors import ConfigError, DecisionError, QuestionError, StoreError, WaitingError

if TYPE_CHECKING:
    from act2see.cli.runs import Settings
    from act2see.graphs.ask import Graph
    from act2see.graphs.config import Config
    from act2see.trace.terminal import ChainPrinter
    from act2see.trace.trace import Trace

_DECISIONS = "--accept, --replace QUERY, --supply FILE|SECONDS or --refuse"
# The parameters of `ask` whose values a run keeps from its beginning.
_FIXED = (
    "video",
    "question",
    "option",
    "preset",
    "config",
    "max_calls",
    "max_tokens",
    "seed",
    "tools",
    "no_tools",
    "approve",
)


def _decision(flag: str, help: str, metavar: str | None = None) -> Any:
    """Declare an option that answers a waiting run."""
    panel = "With --resume, to answer a run that waits for a person"
    return typer.Option(flag, metavar=metavar, help=help, rich_help_panel=panel)


def ask(
    context: typer.Context,
    video: Annotated[str | None, typer.Argument(help="A video file.", show_default=False)] = None,
    question: Annotated[str | None, typer.Argument(help="The question about it.", show_default=False)] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="TEXT", help="A possible answer; repeat it for each."),
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    max_calls: Annotated[int | None, typer.Option(min=0, help="The largest number of tool calls.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="The largest number of tokens that the model may write.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of the run.")] = None,
    tools: Annotated[
        str | None,
        typer.Option(metavar="TAG,...", autocompletion=tool_tags, help="Allow only these configured tools."),
    ] = None,
    no_tools: Annotated[
        bool, typer.Option("--no-tools", help="Answer from the initial frames alone.")
    ] = False,
    approve: Annotated[
        str | None,
        typer.Option(
            metavar="TAG,...",
            autocompletion=tool_tags,
            help="Pause before each call of these tools, until --resume gives a decision.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print only the answer and its trace, as JSON.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the trace, its frames and its HTML page to a folder."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the trace as an HTML page.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            autocompletion=run_ids,
            help="Continue a run that was interrupted or that waits for a decision.",
        ),
    ] = None,
    accept: Annotated[bool, _decision("--accept", "Call the tool.")] = False,
    replace: Annotated[
        str | None, _decision("--replace", "Call the tool with this query instead.", "QUERY")
    ] = None,
    supply: Annotated[
        str | None,
        _decision("--supply", "Show this picture, or the frame at this time, instead.", "FILE|SECONDS"),
    ] = None,
    refuse: Annotated[bool, _decision("--refuse", "Do not call the tool.")] = False,
    reason: Annotated[
        str | None, _decision("--reason", "The reason for a refusal; the model reads it.", "TEXT")
    ] = None,
    by: Annotated[str | None, _decision("--by", "The name of who decides, for the trace.", "NAME")] = None,
    answer: Annotated[
        str | None,
        _decision("--answer", "Answer a question that a tool asks: text, or JSON for other values.", "TEXT"),
    ] = None,
) -> None:
    """Ask a question about a video and watch the chain of thought as it is written."""
    from act2see.cli.runs import Settings
    from act2see.graphs.state import AskContext

    _check_targets(save, html)
    decided = _Decided(accept, replace, supply, refuse, answer, reason, by)
    decision = _read_decision(decided)
    if resume is None:
        if decision is not None:
            raise QuestionError(f"--{decided.kinds[0]} answers a waiting run: name the run with --resume ID")
        if not video or question is None:
            raise QuestionError('name a video and ask a question: act2see ask VIDEO "QUESTION"')
        changes = AskContext(
            _allowed_tools(tools, no_tools),
            seed=seed,
            max_calls=max_calls,
            max_tokens=max_tokens,
            approve=_split_tags(approve),
        )
        run = uuid4().hex[:8]
        settings = Settings(chosen_config(preset, config), changes)
        path = os.path.abspath(video)  # the run may be resumed from another folder
        work = _begin(run, settings, path, question, option or [], show=not json)
    else:
        _forbid_changes(context)
        run = resume
        work = _continue(run, decision, show=not json)
    trace, used = _run_to_end(work, run)
    try:
        if json:
            print_json(trace.to_json(summary=True))
        else:
            _print_answer(trace)
    finally:
        # The reader of stdout may have gone. The files are written all the same.
        _write_files(trace, used, save, html)


def _check_targets(save: Path | None, html: Path | None) -> None:
    """Raise `StoreError`, before any work, if a result could not be written."""
    from act2see.tools.runtime.files import check_file, check_folder
    from act2see.trace.folder import OURS

    if save:
        check_folder(save, OURS)
    if html:
        check_file(html)


def _forbid_changes(context: typer.Context) -> None:
    """Raise `QuestionError` for an option that a resumed run cannot take."""
    for name in _FIXED:
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE":
            continue
        option = name.upper() if name in ("video", "question") else f"--{name.replace('_', '-')}"
        raise QuestionError(
            f"a resumed run keeps its question and its settings: give --resume ID without {option}"
        )


def _allowed_tools(tools: str | None, no_tools: bool) -> tuple[str, ...] | None:
    if tools is not None and no_tools:
        raise ConfigError("--tools and --no-tools exclude each other: leave one out")
    return () if no_tools else _split_tags(tools)


def _split_tags(tags: str | None) -> tuple[str, ...] | None:
    """Split a list such as `retrieve,generate`; None stays None."""
    if tags is None:
        return None
    return tuple(tag.strip() for tag in tags.split(",") if tag.strip())


def _run_to_end(work: Coroutine[Any, Any, tuple[Trace, Config]], run: str) -> tuple[Trace, Config]:
    """Run the graph. After Ctrl-C, print the command that resumes a saved run."""
    from act2see.cli.runs import run_until_done, saved_ids

    try:
        return run_until_done(work)
    except KeyboardInterrupt:
        if saved_ids(run):
            raise interrupted(f"resume with: {program()} ask --resume {run}") from None
        raise interrupted() from None


async def _begin(
    run: str, settings: Settings, video: str, question: str, options: Sequence[str], *, show: bool
) -> tuple[Trace, Config]:
    """Ask a question in a new run."""
    from act2see.cli.runs import graph_of, saved_runs
    from act2see.graphs.run import aask

    async with saved_runs() as saver:
        graph = graph_of(settings, saver)
        async with _open_chain(graph, settings.config, run) as chain:
            trace = await aask(
                graph,
                video,
                question,
                options,
                context=settings.context,
                thread_id=run,
                on_event=chain.event if show else None,
            )
    return trace, settings.config


async def _continue(run: str, decision: Any, *, show: bool) -> tuple[Trace, Config]:
    """Resume a saved run, with the decision that it waits for, if any. Print its beginning first."""
    from act2see.cli.runs import graph_of, saved_runs, settings_of
    from act2see.graphs.run import aresume
    from act2see.graphs.state import trace_of
    from act2see.trace.terminal import question_lines

    async with saved_runs() as saver:
        settings = await settings_of(run, saver)
        graph = graph_of(settings, saver)
        async with _open_chain(graph, settings.config, run) as chain:
            state = (await graph.aget_state({"configurable": {"thread_id": run}})).values
            if show and "info" in state:  # the view node has run: there is something to print
                so_far = trace_of(state)
                say(question_lines(so_far.question), prose=True)
                chain.trace(so_far)
            trace = await aresume(
                graph,
                run,
                decision=decision,
                context=settings.context,
                on_event=chain.event if show else None,
            )
    return trace, settings.config


@asynccontextmanager
async def _open_chain(graph: Graph, config: Config, run: str) -> AsyncIterator[ChainPrinter]:
    """Yield the printer of the chain of thought, and end its last line.

    Raises:
        WaitingError: The run waits for a person. The message says which options answer it.
    """
    chain = chain_printer(config)
    try:
        yield chain
    except WaitingError as e:
        raise await _waiting_error(graph, run) from e
    finally:
        chain.close()


async def _waiting_error(graph: Graph, run: str) -> WaitingError:
    """Say what a saved run waits for, and how to answer it on the command line."""
    from act2see.graphs.run import describe_interrupt, is_approval

    saved = await graph.aget_state({"configurable": {"thread_id": run}})
    waits = saved.interrupts[0]
    options = _DECISIONS if is_approval(waits) else "--answer TEXT"
    return WaitingError(f"{describe_interrupt(waits)}: act2see ask --resume {run} with {options}")


def _print_answer(trace: Trace) -> None:
    from act2see.trace.terminal import answer_lines

    say(answer_lines(trace), prose=True)


def _write_files(trace: Trace, config: Config, save: Path | None, html: Path | None) -> None:
    from act2see.graphs.parts import cached_parts
    from act2see.tools.runtime.files import write_text
    from act2see.trace.folder import save_folder
    from act2see.trace.page import trace_html

    store = cached_parts(config).resources.store
    if save:
        save_folder(trace, save, store)
        note(f"saved in {save}")
    if html:
        write_text(html, trace_html(trace, store))
        note(f"written to {html}")


@dataclass(frozen=True, slots=True)
class _Decided:
    """The options that answer a waiting run, as given. At most one of the first five is allowed."""

    accept: bool
    replace: str | None
    supply: str | None
    refuse: bool
    answer: str | None
    reason: str | None
    by: str | None

    @property
    def kinds(self) -> list[str]:
        """The names of the decisions that were given."""
        kinds = ("accept", "replace", "supply", "refuse", "answer")
        return [kind for kind in kinds if getattr(self, kind) not in (None, False)]


def _read_decision(decided: _Decided) -> Any:
    """Return the decision of the options, checked, as `aresume` takes it; None if there is none.

    Raises:
        DecisionError: The options exclude each other, or the decision cannot be used.
    """
    kinds = decided.kinds
    if len(kinds) > 1:
        named = " and ".join(f"--{kind}" for kind in kinds)
        raise DecisionError(f"{named} exclude each other: a call gets one decision")
    signed = decided.reason is not None or decided.by is not None
    if kinds == ["answer"]:
        if signed:
            raise DecisionError(
                "--reason and --by belong to a decision about a call, and --answer to a question of a tool: "
                "leave them out"
            )
        return _json_or_text(decided.answer or "")
    if not kinds:
        if signed:
            raise DecisionError(f"--reason and --by belong to a decision: add {_DECISIONS}")
        return None
    return _check_decision(kinds[0], decided)


def _check_decision(kind: str, decided: _Decided) -> dict[str, Any]:
    """Return the fields of a decision about a call. Raises `DecisionError` if it cannot be used."""
    from pydantic import ValidationError

    from act2see.graphs.approval import Decision, decision_problem, open_picture

    fields: dict[str, Any] = {
        "type": kind,
        "query": decided.replace,
        "reason": decided.reason,
        "by": decided.by,
    }
    if decided.supply is not None:
        supplied = picture_or_time(decided.supply)
        if isinstance(supplied, str):
            # Another process may carry the decision out, in another folder.
            fields["frame"] = os.path.abspath(supplied)
        else:
            fields["seconds"] = supplied
    fields = {name: value for name, value in fields.items() if value is not None}
    try:
        decision = Decision.model_validate(fields)
        if decision.frame is not None:
            open_picture(decision.frame).close()
    except (ValidationError, StoreError) as e:
        why = decision_problem(e) if isinstance(e, ValidationError) else str(e)
        raise DecisionError(f"--{kind}: this decision cannot be used ({why}); nothing was resumed") from e
    return fields


def _json_or_text(answer: str) -> Any:
    """Read `3`, `true` or `{"a": 1}` as JSON, and anything else as text."""
    try:
        return json.loads(answer)
    except ValueError:
        return answer
