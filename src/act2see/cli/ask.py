"""`act2see ask`: one question, with the chain shown as it is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from act2see.cli.complete import runs
from act2see.cli.decide import Accept, Answer, By, Reason, Refuse, Replace, Supply, decided, waiting
from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import interrupted, note, out, print_json, program, say
from act2see.errors import ConfigError, QuestionError, WaitingError

if TYPE_CHECKING:
    from act2see.cli.runs import Settings
    from act2see.tools.video.store import FrameSource
    from act2see.trace.trace import Trace


def ask(
    video: Annotated[str | None, typer.Argument(help="A video file.", show_default=False)] = None,
    question: Annotated[str | None, typer.Argument(help="What you want to know.", show_default=False)] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="TEXT", help="A possible answer; give it once for each."),
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    max_calls: Annotated[int | None, typer.Option(min=0, help="Tool calls that the model may make.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens that the model may write.")] = None,
    seed: Annotated[int | None, typer.Option(help="The run's seed.")] = None,
    tools: Annotated[
        str | None, typer.Option(metavar="TAG,...", help="Which of the configured tools to allow.")
    ] = None,
    no_tools: Annotated[bool, typer.Option("--no-tools", help="Answer from the first frames alone.")] = False,
    approve: Annotated[
        str | None,
        typer.Option(
            metavar="TAG,...", help="Tools whose calls wait for you; --resume goes on with your decision."
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print the answer and its trace as JSON, and nothing else, to stdout."),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the trace, its pictures and its page to a folder."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the trace as one HTML page.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="ID", autocompletion=runs, help="Go on with a run that was interrupted, or that waits."
        ),
    ] = None,
    accept: Accept = False,
    replace: Replace = None,
    supply: Supply = None,
    refuse: Refuse = False,
    reason: Reason = None,
    by: By = None,
    answer: Answer = None,
) -> None:
    """Ask a question about a video and watch the answer come about."""
    from act2see.cli.runs import Settings, run_until_done, saved_ids
    from act2see.graphs.parts import cached_parts
    from act2see.graphs.state import AskContext
    from act2see.tools.runtime.files import check_file, check_folder
    from act2see.trace.folder import OURS, frames_of
    from act2see.trace.terminal import answer_lines

    if save:
        check_folder(save, OURS)
    if html:
        check_file(html)
    settings: Settings | None = None
    decision = decided(accept, replace, supply, refuse, reason, by, answer)
    if resume is None:
        if decision is not None:
            given = f"--{decision['type']}" if answer is None else "--answer"
            raise QuestionError(f"{given} answers a run that waits: name it with --resume ID")
        if video is None or question is None:
            raise QuestionError('name a video and ask a question: act2see ask VIDEO "QUESTION"')
        context = AskContext(
            _tags(tools, no_tools),
            seed=seed,
            max_calls=max_calls,
            max_tokens=max_tokens,
            approve=_listed(approve),
        )
        settings = Settings(chosen_config(preset, config), context)
    else:
        changes = (
            video,
            question,
            option,
            preset,
            config,
            max_calls,
            max_tokens,
            seed,
            tools,
            no_tools or None,
            approve,
        )
        if any(c is not None and c != [] for c in changes):
            raise QuestionError(
                "a resumed run keeps the question and the settings that it began with: give --resume ID without them"
            )
    # Resumed from another folder, the path must still lead to the video.
    path = os.path.abspath(video) if video else ""
    run = resume or uuid4().hex[:8]
    try:
        trace, settings = run_until_done(
            _run(run, settings, path, question or "", tuple(option or ()), decision, show=not json)
        )
    except KeyboardInterrupt:
        raise interrupted(
            f"resume with: {program()} ask --resume {run}" if saved_ids(run) else "interrupted"
        ) from None
    frames = frames_of(Path(os.devnull), cached_parts(settings.config).resources.store)
    try:
        if json:
            print_json(trace.to_json(summary=True))
        else:
            say(answer_lines(trace), prose=True)
    finally:  # whoever reads the output may have hung up: what is to be kept is kept
        _keep(trace, frames, save, html)


def _keep(trace: Trace, frames: FrameSource, save: Path | None, html: Path | None) -> None:
    from act2see.tools.runtime.files import write_text
    from act2see.trace.folder import save_folder
    from act2see.trace.page import trace_html

    if save:
        save_folder(trace, save, frames)
        note(f"saved in {save}")
    if html:
        write_text(html, trace_html(trace, frames))
        note(f"written to {html}")


async def _run(
    run: str,
    settings: Settings | None,
    video: str,
    question: str,
    options: tuple[str, ...],
    decision: Any,
    show: bool,
) -> tuple[Trace, Settings]:
    """A new run, or with `settings` None the rest of a saved one, with the decision that it waits for."""
    from act2see.cli.runs import graph_of, saved_runs, settings_of
    from act2see.graphs.run import aask, aresume
    from act2see.graphs.state import trace_of
    from act2see.trace.terminal import ChainPrinter, question_lines

    async with saved_runs() as saver:
        new = settings is not None
        settings = settings or await settings_of(run, saver)
        chain = ChainPrinter(out(), loads=settings.config.reasoner.use == "transformers")
        on_event = chain.event if show else None
        graph = graph_of(settings, saver)
        try:
            if new:
                trace = await aask(
                    graph,
                    video,
                    question,
                    options,
                    context=settings.context,
                    thread_id=run,
                    on_event=on_event,
                )
                return trace, settings
            so_far = (await graph.aget_state({"configurable": {"thread_id": run}})).values
            if show and "info" in so_far:
                trace = trace_of(so_far)
                say(question_lines(trace.question), prose=True)
                chain.trace(trace)
            return await aresume(
                graph, run, decision=decision, context=settings.context, on_event=on_event
            ), settings
        except WaitingError as e:
            chain.close()
            raise await waiting(graph, run) from e
        finally:
            chain.close()


def _tags(tools: str | None, no_tools: bool) -> tuple[str, ...] | None:
    if tools is not None and no_tools:
        raise ConfigError("--tools and --no-tools exclude each other: leave one out")
    if no_tools:
        return ()
    return _listed(tools)


def _listed(tags: str | None) -> tuple[str, ...] | None:
    return tuple(t.strip() for t in tags.split(",") if t.strip()) if tags is not None else None
