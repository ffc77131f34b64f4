"""`act2see ask`: asks one question and prints the chain of thought as it is written.

`--resume ID` continues a run that was interrupted, or a run that waits for a person's decision about a call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from act2see.cli.complete import run_ids, tool_tags
from act2see.cli.decide import DECISIONS, DecisionOptions, decision_option, in_options, read_decision
from act2see.cli.options import ConfigFile, Force, Preset, chosen_config
from act2see.cli.output import chain_printer, interrupted, note, print_json, program, say
from act2see.errors import ConfigError, DecisionError, QuestionError, SetupError, WaitingError

if TYPE_CHECKING:
    from act2see.cli.runs import Settings
    from act2see.graphs.ask import Graph
    from act2see.graphs.config import Config
    from act2see.trace.terminal import ChainPrinter
    from act2see.trace.trace import Trace

# The parameters of `ask` that a resumed run cannot change.
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


def ask(
    context: typer.Context,
    video: Annotated[str | None, typer.Argument(help="A video file.", show_default=False)] = None,
    question: Annotated[
        str | None, typer.Argument(help="A question about the video.", show_default=False)
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="TEXT", help="A possible answer; can be repeated."),
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    max_calls: Annotated[int | None, typer.Option(min=0, help="The maximum number of tool calls.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="The maximum number of tokens that the model may write.")
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
            help="Stop before each call of these tools, until --resume gives a person's decision.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print only the trace, with the answer, as JSON.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the trace, its frames and its HTML page to a folder."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the trace as an HTML page.")
    ] = None,
    force: Force = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            autocompletion=run_ids,
            help="Continue a run that was interrupted or that waits for a decision.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="With --resume: the address of the model's server, if it has moved."
        ),
    ] = None,
    accept: Annotated[bool, decision_option("--accept", "Call the tool.")] = False,
    replace: Annotated[
        str | None, decision_option("--replace", "Call the tool with this query instead.", "QUERY")
    ] = None,
    supply: Annotated[
        str | None,
        decision_option(
            "--supply", "Show this picture, or the video's frame at this time, instead.", "FILE|SECONDS"
        ),
    ] = None,
    refuse: Annotated[bool, decision_option("--refuse", "Do not call the tool.")] = False,
    reason: Annotated[
        str | None, decision_option("--reason", "The reason for --refuse; the model reads it.", "TEXT")
    ] = None,
    by: Annotated[
        str | None, decision_option("--by", "The name of the person who decides, for the trace.", "NAME")
    ] = None,
    answer: Annotated[
        str | None,
        decision_option("--answer", "The answer to a tool's question, as text or JSON.", "TEXT"),
    ] = None,
) -> None:
    """Ask a question about a video, and print the chain of thought as it is written.

    Needs a video and a question, or --resume with the id of a saved run. The default preset, micro, works
    offline and understands only videos of the board world; for your own videos choose another preset.
    """
    from act2see.tools.video.window import absolute_path

    _check_targets(save, html, force)
    person = DecisionOptions(accept, replace, supply, refuse, answer, reason, by)
    decision = read_decision(person)
    if resume is not None:
        _forbid_changes(context)
        run = resume
        work = _continue(run, decision, url, show=not json)
    elif url is not None:
        raise QuestionError(
            "--url is for a saved run: name it with --resume ID, or set the address in a config"
        )
    elif decision is not None:
        raise QuestionError(f"--{person.kinds[0]} needs a waiting run: name it with --resume ID")
    elif not video or question is None:
        raise QuestionError('name a video and ask a question: act2see ask VIDEO "QUESTION"')
    else:
        run = uuid4().hex[:8]
        changes = _RunOptions(tools, no_tools, approve, seed, max_calls, max_tokens)
        settings = _settings(preset, config, changes)
        path = absolute_path(video)  # the run may be resumed from another folder
        work = _ask(run, settings, path, question, option or [], show=not json)
    trace, used = _run_to_end(work, run)
    try:
        if json:
            print_json(trace.to_json(summary=True))
        else:
            _print_answer(trace)
    finally:
        # Write the files even if printing fails, because stdout may be closed.
        _write_files(trace, used, save, html)


@dataclass(frozen=True, slots=True)
class _RunOptions:
    """The options that change the configuration for one run, as given on the command line."""

    tools: str | None
    no_tools: bool
    approve: str | None
    seed: int | None
    max_calls: int | None
    max_tokens: int | None


def _settings(preset: str | None, config: Path | None, changes: _RunOptions) -> Settings:
    """Return the settings of a new run.

    Raises:
        ConfigError: The options contradict each other, or the configuration is invalid.
    """
    from act2see.cli.runs import Settings
    from act2see.graphs.state import AskContext

    context = AskContext(
        _allowed_tools(changes.tools, changes.no_tools),
        seed=changes.seed,
        max_calls=changes.max_calls,
        max_tokens=changes.max_tokens,
        approve=_split_tags(changes.approve),
    )
    return Settings(chosen_config(preset, config), context)


def _check_targets(save: Path | None, html: Path | None, force: bool) -> None:
    """Raise `StoreError` before the run starts if a result could not be written, or would replace a file."""
    from act2see.tools.runtime.files import check_file, check_folder
    from act2see.trace.folder import MARKS, OTHERS, OURS

    if save:
        check_folder(save, OURS, OTHERS)
    if html:
        check_file(html, MARKS[".html"], force=force)


def _forbid_changes(context: typer.Context) -> None:
    """Raise `QuestionError` for an option that a resumed run cannot take."""
    for name in _FIXED:
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE":
            continue
        option = name.upper() if name in ("video", "question") else f"--{name.replace('_', '-')}"
        raise QuestionError(
            f"a resumed run keeps its question and its settings: use --resume ID without {option}"
        )


def _allowed_tools(tools: str | None, no_tools: bool) -> tuple[str, ...] | None:
    """Return the tags of the allowed tools; None allows all."""
    if tools is not None and no_tools:
        raise ConfigError("--tools and --no-tools cannot be combined: leave one out")
    return () if no_tools else _split_tags(tools)


def _split_tags(tags: str | None) -> tuple[str, ...] | None:
    """Split a list such as `retrieve,generate`; None stays None."""
    if tags is None:
        return None
    return tuple(tag.strip() for tag in tags.split(",") if tag.strip())


def _run_to_end(work: Coroutine[Any, Any, tuple[Trace, Config]], run: str) -> tuple[Trace, Config]:
    """Run the graph. After Ctrl-C, print the command that resumes the run if it was saved."""
    from act2see.cli.runs import run_until_done, saved_ids

    try:
        return run_until_done(work)
    except KeyboardInterrupt:
        if saved_ids(run):
            raise interrupted(f"resume with: {program()} ask --resume {run}") from None
        raise interrupted() from None


async def _ask(
    run: str, settings: Settings, video: str, question: str, options: Sequence[str], *, show: bool
) -> tuple[Trace, Config]:
    """Ask a question in a new run. The run is saved under its id."""
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


async def _continue(run: str, decision: Any, url: str | None, *, show: bool) -> tuple[Trace, Config]:
    """Resume a saved run, with a decision if it waits for one. Print the beginning of its chain first.

    Raises:
        SetupError: The model's server cannot be used. The message says how to name another address.
    """
    from act2see.cli.runs import graph_of, has_server, move_server, saved_runs, settings_of
    from act2see.graphs.run import aresume
    from act2see.graphs.state import trace_of
    from act2see.trace.terminal import question_lines

    async with saved_runs() as saver:
        settings = await settings_of(run, saver)
        if url is not None:
            settings = move_server(settings, url)
        graph = graph_of(settings, saver)
        async with _open_chain(graph, settings.config, run) as chain:
            state = (await graph.aget_state({"configurable": {"thread_id": run}})).values
            if show and "info" in state:  # the view node has run, so the state has a beginning to print
                so_far = trace_of(state)
                say(question_lines(so_far.question), prose=True)
                chain.trace(so_far)
            try:
                trace = await aresume(
                    graph,
                    run,
                    decision=decision,
                    context=settings.context,
                    on_event=chain.event if show else None,
                )
            except SetupError as e:
                if not has_server(settings):
                    raise
                moved = f"if the server has moved: act2see ask --resume {run} --url URL"
                raise SetupError(f"{str(e).rstrip('.')}; {moved}") from e
    return trace, settings.config


@asynccontextmanager
async def _open_chain(graph: Graph, config: Config, run: str) -> AsyncIterator[ChainPrinter]:
    """Yield the printer of the chain of thought, and end its last line afterwards.

    Raises:
        WaitingError: The run waits for a person. The message names the options that give the decision.
        DecisionError: The decision is invalid. The message names the options, too.
    """
    chain = chain_printer(config)
    try:
        yield chain
    except WaitingError as e:
        raise WaitingError(": ".join(await _waiting_for(graph, run))) from e
    except DecisionError as e:
        if not e.problem:
            raise
        _, command = await _waiting_for(graph, run)
        raise DecisionError(
            f"the decision cannot be used ({in_options(e.problem)}); the run still waits: {command}"
        ) from e
    finally:
        chain.close()


async def _waiting_for(graph: Graph, run: str) -> tuple[str, str]:
    """Return what a waiting run waits for, and the command that gives it."""
    from act2see.graphs.run import describe_interrupt, is_approval

    saved = await graph.aget_state({"configurable": {"thread_id": run}})
    waits = saved.interrupts[0]
    options = DECISIONS if is_approval(waits) else "--answer TEXT"
    return describe_interrupt(waits), f"act2see ask --resume {run} with {options}"


def _print_answer(trace: Trace) -> None:
    from act2see.trace.terminal import answer_lines

    say(answer_lines(trace), prose=True)


def _write_files(trace: Trace, config: Config, save: Path | None, html: Path | None) -> None:
    from act2see.graphs.parts import cached_parts
    from act2see.tools.runtime.files import write_text
    from act2see.trace.folder import OURS, save_folder
    from act2see.trace.page import trace_html

    store = cached_parts(config).resources.store
    if save:
        replaced = (save / OURS).is_file()
        save_folder(trace, save, store)
        note(f"saved in {save}{', in place of the trace that was there' if replaced else ''}")
    if html:
        write_text(html, trace_html(trace, store))
        note(f"written to {html}")
