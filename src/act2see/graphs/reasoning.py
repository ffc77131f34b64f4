"""The node `reason`: one turn of the model, up to the end of a call or of the answer.

This is the loop of the paper's Algorithm 1, for both training data and inference. The algorithm has two
turns, before and after one call; here, turns continue until `<answer>`, within a budget. Each turn renders
the trace, lets the model continue from there, and chooses the next node by what the model wrote:

    a call                    the tool's node, or `approve` if a person decides first
    a malformed call          back to `reason`, with a note that explains the error
    a call over the budget    back to `reason`, with the answer opened
    the answer                `answer`
    none of these             back to `reason`, which opens the answer

When the budget is spent, the model still answers: the graph closes the thought and opens the answer
(`</think><answer>`), and the model writes at most `budget.answer_tokens` more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime
from langgraph.types import Command

from act2see.agent.grammar import Grammar, feedback
from act2see.agent.parser import StopReason, count_open_thoughts
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Delta, Done, Request
from act2see.agent.repetition import RepetitionDetector
from act2see.agent.rollout import render
from act2see.agent.talk import is_placeholder_answer
from act2see.graphs.config import Config
from act2see.graphs.events import emit
from act2see.graphs.parts import Parts
from act2see.graphs.run_settings import RunSettings
from act2see.graphs.sections import Budget
from act2see.graphs.state import AskContext, AskState, run_context, trace_of
from act2see.tools.base import call_seed
from act2see.trace.events import CallEvent, FramesEvent, TokenEvent
from act2see.trace.options import choose
from act2see.trace.record import Answer, Call, Frames, Loop, Segment, Text
from act2see.trace.trace import Trace

Written = tuple[Text | Call | Answer, ...]
"""The segments of a turn as the model wrote them: at most one `Text`, then a `Call` or an `Answer`."""

NO_THINKING_LEFT = "thinking"
"""Why a turn ended, in a trace: it used up the budget of hidden thinking without an answer."""


@dataclass(slots=True)
class ReasonNode:
    """The node `reason`."""

    parts: Parts
    config: Config

    async def reason(
        self, state: AskState, config: RunnableConfig, runtime: Runtime[AskContext]
    ) -> Command[str]:
        """Continue the thought to its next call, or to the answer."""
        started = time.perf_counter()
        settings = RunSettings(self.parts, self.config, run_context(runtime.context, config))
        trace = trace_of(state)
        opening: list[Segment] = []
        if must_answer(trace, settings.budget):
            opening = [open_answer(trace)]
            _emit_reply(runtime, trace.id, opening)
            trace = trace.model_copy(update={"segments": (*trace.segments, *opening)})
        loop, written = await self._continue(trace, settings, runtime)
        if written and isinstance(call := written[-1], Call):
            emit(runtime, CallEvent(run=trace.id, call=call))
        turn, goto = end_turn(written, trace, settings, state.get("approve") or ())
        _emit_reply(runtime, trace.id, turn[len(written) :])
        return Command(
            update={
                "segments": [segment.model_dump(mode="json") for segment in [*opening, *turn]],
                "loops": [loop.model_dump()],
                "node_seconds": {"reason": time.perf_counter() - started},
            },
            goto=goto,
        )

    async def _continue(
        self, trace: Trace, settings: RunSettings, runtime: Runtime[AskContext]
    ) -> tuple[Loop, Written]:
        """Let the model write one turn. Return the turn's token counts and times, and its segments."""
        tools = settings.tools
        budget = settings.budget
        answering = is_answer_open(trace)
        # A model that may call nothing is told of no tool: after a call that is refused, it has no answer.
        told = {tag: tool.usage for tag, tool in tools.items()} if budget.calls else {}
        prompt = Prompt(told, self.config.reasoner.prompt_style)
        rollout = render(trace, prompt)
        grammar = Grammar(tuple(tools), budget.query, closes_thought=prompt.style == "zero-shot")
        parser = grammar.parser(
            answering=answering,
            thinking=is_thought_open(trace),
            earlier=[(call.tag, call.query) for call in trace.calls if call.outcome == "ok"],
            told=[call.tag for call in trace.calls if call.outcome == "unknown"],
        )
        max_tokens = budget.answer_tokens if answering else max(1, budget.tokens - trace.usage.tokens)
        started = time.perf_counter()
        seed = call_seed(settings.seed, "reason", "", len(trace.segments))
        sampling = await asyncio.to_thread(settings.sampling, seed)  # it may read a file
        repetition = RepetitionDetector()

        def until(text: str) -> bool:
            return parser.feed(text) or repetition.feed(text)

        max_thinking = max(0, budget.thinking_tokens - trace.usage.thinking)
        request = Request(rollout, max_tokens, until, grammar.stops, sampling, max_thinking)
        done = Done(StopReason.EOS)
        async for item in self.parts.reasoner.stream(request):
            if isinstance(item, Delta):
                emit(runtime, TokenEvent(run=trace.id, text=item.text))
            else:
                done = item
        if parser.stopped is None:
            was_cut = repetition.found or done.stop == StopReason.LENGTH
            parser.finish(StopReason.LENGTH if was_cut else StopReason.EOS)
        stop = str(parser.stopped or done.stop)
        is_answered = any(isinstance(segment, Answer) for segment in parser.segments)
        if done.thinking and done.thinking >= max_thinking and not is_answered:
            stop = NO_THINKING_LEFT
        loop = Loop(
            prefilled=done.prefilled,
            cached=done.cached,
            decoded=done.decoded,
            seconds=round(time.perf_counter() - started, 4),
            stop=str(StopReason.LOOP) if repetition.found else stop,
            thinking=done.thinking,
        )
        return loop, parser.segments


def must_answer(trace: Trace, budget: Budget) -> bool:
    """Whether to write `<answer>` for the model: its budget is spent, or its last turn had no call or answer.

    A spent budget of calls does not count here: the model may still think about its last frame, until it
    makes another call.
    """
    if is_answer_open(trace):
        return False
    ended_turn = bool(trace.segments) and isinstance(trace.segments[-1], Text)
    seconds = sum(s for node, s in trace.usage.node_seconds.items() if node != "view")
    spent = (
        trace.usage.tokens >= budget.tokens
        or trace.usage.thinking >= budget.thinking_tokens
        or seconds >= budget.seconds
    )
    return ended_turn or spent


def is_answer_open(trace: Trace) -> bool:
    """Whether the graph has opened the answer and the model has not continued yet."""
    last = trace.segments[-1] if trace.segments else None
    return isinstance(last, Text) and last.author == "graph"


def is_thought_open(trace: Trace) -> bool:
    """Whether the model still thinks: the prompt opened the thought, and nothing has closed it."""
    is_open = True
    turn = ""  # of the model, up to the next frames
    for segment in trace.segments:
        if isinstance(segment, Frames):
            is_open = count_open_thoughts(turn, is_open) > 0
            turn = ""
        else:
            turn += segment.text
    return count_open_thoughts(turn, is_open) > 0


def open_answer(trace: Trace) -> Text:
    """Return the text that makes the model answer: it closes an open thought, and opens the answer."""
    return Text(text="</think>\n\n<answer>" if is_thought_open(trace) else "\n<answer>", author="graph")


def end_turn(
    written: Written, trace: Trace, settings: RunSettings, approve: Collection[str]
) -> tuple[list[Segment], str]:
    """Return the segments that a turn adds to the trace, and the name of the next node.

    Args:
        written: The segments that the model wrote.
        trace: The trace before this turn.
        settings: The settings of the run.
        approve: The tags whose calls wait for a person.
    """
    last = written[-1] if written else None
    if isinstance(last, Answer):
        if is_undecided(last, trace):  # the next visit opens the answer
            return [Text(text="".join(segment.text for segment in written))], "reason"
        return [*written], "answer"
    if is_answer_open(trace):  # the model wrote nothing after its `<answer>`
        return [*written, Answer(text="</answer>", body="", forced=True)], "answer"
    if last is None:  # an empty turn
        return [open_answer(trace)], "reason"
    if isinstance(last, Text):  # the next visit opens the answer
        return [*written], "reason"
    if is_refused(last, trace, settings.budget):
        # No note: the model answers from the frames that it has seen.
        refused = last.model_copy(update={"outcome": "over_budget"})
        return [*written[:-1], refused, open_answer(trace)], "reason"
    if last.outcome != "ok":
        note = feedback(last, tuple(settings.tools))
        return [*written, Frames(tag=last.tag, note=note)], "reason"
    return [*written], "approve" if last.tag in approve else last.tag


def is_undecided(answer: Answer, trace: Trace) -> bool:
    """Whether an answer names no option although there are some, and may be no answer: it is in plain words,
    or looks like a placeholder."""
    options = trace.question.options
    is_doubtful = not answer.text.startswith("<answer>") or is_placeholder_answer(answer.body)
    return bool(options) and not answer.forced and is_doubtful and choose(answer.body, options) is None


def is_refused(call: Call, trace: Trace, budget: Budget) -> bool:
    """Whether a call exceeds its limit. Unknown and malformed calls have a limit of their own.

    Once no call is left, a malformed one is refused, too: the model could not use the note on it.
    """
    run = sum(made.outcome in ("ok", "repeated") for made in trace.calls)
    if run >= budget.calls:
        return True
    return call.outcome not in ("ok", "repeated") and len(trace.calls) - run >= budget.malformed


def _emit_reply(runtime: Runtime[AskContext], run: str, segments: Iterable[Segment]) -> None:
    """Emit the events of the segments that the graph itself adds."""
    for segment in segments:
        if isinstance(segment, Text):
            emit(runtime, TokenEvent(run=run, text=segment.text, author="graph"))
        elif isinstance(segment, Frames):
            emit(runtime, FramesEvent(run=run, frames=segment))
