"""A supervisor without a model, for tests and for the offline demo.

It is a LangChain chat model: it reads the conversation and makes tool calls. It understands plain English
questions of one form, sentence by sentence ("In which clip does the triangle blink, and what colour does the
triangle turn when it blinks? What is said then?"):

- *which clip*: asks the librarian, with the rest of the sentence as a caption ("the triangle blinks");
- *said, says, mentioned*: searches the transcript of the clip;
- any other sentence: asks Act2See about the clip in the same words.

A question may name its clip. A name may have spaces, so where it begins is tried: the longest words first
that may be a name ("in my clip 2.mp4": "my clip 2.mp4", "clip 2.mp4", "2.mp4").

After the first call it uses only the results of the tools. It takes the clip that the librarian ranks first,
or the next one if Act2See sees nothing in it. Its answer consists of the workers' own words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

_SENTENCE = re.compile(r"(?<=[.?!])\s+|,?\s+and\s+(?=(?:what|where|which|who|how|when|why)\b)", re.IGNORECASE)
_WHICH = re.compile(
    r"^\W*(?:in )?which (?:clip|video)s?\s*(?:(does|do|did|is|are|was)\s+)?(.*?)\W*$", re.IGNORECASE
)
_DOES = re.compile(r"^((?:(?:the|a|an|any)\s+)?\w+)\s+(\w+)(.*)$", re.IGNORECASE)
_SAID = re.compile(
    r"\b(?:say|says|said|saying|speaks?|spoken|mention(?:s|ed)?|talk(?:s|ed)?)\b", re.IGNORECASE
)
_FILLER = re.compile(
    r"\b(?:what|who|is|are|was|does|do|did|then|there|anything|about|when|where|it|in|the|clip|video)\b"
    r"|[^\w\s]",
    re.IGNORECASE,
)
_VIDEO = r"\.(?:mp4|m4v|mov|mkv|webm|avi|mpe?g|wmv|flv|3gp)\b"
_QUOTES = "\"'`\u2018\u2019\u201c\u201d"
_QUOTED = re.compile(
    "|".join(
        f"{opening}([^{opening}{closing}\n]+{_VIDEO}){closing}"
        for opening, closing in ('""', "''", "``", "\u2018\u2019", "\u201c\u201d")
    ),
    re.IGNORECASE,
)
_LAST_WORD = re.compile(rf"[^\s,;?!{_QUOTES}]+?{_VIDEO}", re.IGNORECASE)
"""The last word of a file's name."""
_BEFORE = re.compile(rf".*(?:[,;:.?!{_QUOTES}]\s|\b(?:in|of|from|about)\s)", re.IGNORECASE | re.DOTALL)
"""What cannot belong to a name: up to the last punctuation or preposition before it."""
_MAX_WORDS = 4  # of a name that is not in quotes, before its last
_RANKED = re.compile(r"^\d+\. (.+?): [\d.]+ s \(score -?[\d.]+\).*$", re.MULTILINE)
_NOTHING = re.compile(r"\AAnswer: (?:none|I cannot)|No match", re.IGNORECASE)
_MAX_CLIPS = 3  # clips to ask about until one shows something


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts of a question, for each worker."""

    find: str
    """The caption for the librarian; empty if the question names its clip."""
    clip: str = ""
    """The clip that the question names, or an empty text."""
    ask: tuple[str, ...] = ()
    """Questions for Act2See."""
    transcript: tuple[str, ...] = ()
    """Queries for the transcript."""


@dataclass(slots=True)
class Results:
    """The tool calls since the question, in order, with their results."""

    calls: list[tuple[ToolCall, ToolMessage]] = field(default_factory=list)

    def of(self, name: str, **args: str) -> ToolMessage | None:
        """Return the result of a tool's first call with these arguments, or None."""
        for call, result in self.calls:
            if call["name"] == name and args.items() <= call["args"].items():
                return result
        return None

    def fails(self, clip: str) -> bool:
        """Return whether a worker could not open a clip."""
        return any(c["args"].get("video") == clip and r.status == "error" for c, r in self.calls)


class ScriptedSupervisor(BaseChatModel):
    """A chat model that plans by rules and quotes the results."""

    names: tuple[str, ...] = ()
    """Names of the bound tools."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.model_copy(update={"names": tuple(getattr(tool, "name", "") for tool in tools)})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=next_message(messages))])


def next_message(messages: Sequence[BaseMessage]) -> AIMessage:
    """Return the supervisor's next message: tool calls, or the answer once all results are there."""
    last = max((i for i, message in enumerate(messages) if isinstance(message, HumanMessage)), default=-1)
    question = str(messages[last].text).strip() if last >= 0 else ""
    if not question:
        return AIMessage(
            "Ask something about the videos, for instance: In which clip does the triangle blink?"
        )
    results = _results_in(messages[last + 1 :])
    plans = [make_plan(question, name) for name in _names_in(question)] or [make_plan(question)]
    plan = next((plan for plan in plans if not (plan.clip and results.fails(plan.clip))), plans[0])
    found = results.of("find_clips")
    if plan.find and not found:
        return _call_tools([("find_clips", {"query": plan.find})])
    clips = [plan.clip] if plan.clip else []
    if found and not clips:
        clips = _RANKED.findall(str(found.text))[:_MAX_CLIPS]
    if not clips:
        return AIMessage(f"No clip can be searched. {found.text if found else ''}".strip())
    clip = _choose_clip(clips, plan, results)
    wanted = [("ask_video", {"video": clip, "question": question}) for question in plan.ask]
    wanted += [("search_transcript", {"video": clip, "query": query}) for query in plan.transcript]
    missing = [(name, args) for name, args in wanted if not results.of(name, **args)]
    if not wanted and not found:
        return AIMessage(f"Ask something about {clip}, for instance: What colour is the ring?")
    if missing:
        return _call_tools(missing)
    return AIMessage(_answer(plan, clip, results))


def _names_in(question: str) -> list[str]:
    """Return what may be the name of the question's clip, the most likely first."""
    if quoted := _QUOTED.search(question):
        return [next(name for name in quoted.groups() if name)]
    word = _LAST_WORD.search(question)
    if not word:
        return []
    before = question[: word.start()]
    words = _BEFORE.sub("", before).split()[-_MAX_WORDS:]
    last = word[0].lstrip("([{<")
    return [" ".join([*words[n:], last]) for n in range(len(words) + 1)]


def _without_name(question: str, name: str) -> str:
    """Return the question without its clip: "in my b.mp4, what moves?" becomes "what moves?"."""
    filler = "the|this|that|my|our|your|a|video|clip|file|film|movie|recording|called|named"
    words = r"\s+".join(re.escape(word) for word in name.split())
    where = (
        rf"(?:\b(?:in|of|from)\s+(?:(?:{filler})\s+)*)?[([{{<{_QUOTES}]?{words}[)\]}}>{_QUOTES}]?\s*[,:]?\s*"
    )
    return re.sub(where, "", question, flags=re.IGNORECASE)


def make_plan(question: str, name: str | None = None) -> Plan:
    """Divide a question into parts for the workers.

    Args:
        question: The question.
        name: The name of the clip in it, or an empty text; by default the most likely one.
    """
    if name is None:
        name = next(iter(_names_in(question)), "")
    find = ""
    ask: list[str] = []
    transcript: list[str] = []
    # A question about a clip must not name its file: "In b.mp4, which shape moves?"
    for part in _SENTENCE.split(_without_name(question, name) if name else question):
        sentence = str(part or "").strip()
        if not sentence:
            continue
        if which := _WHICH.match(sentence):
            find = find or _caption(*which.groups())
        elif _SAID.search(sentence):
            transcript.append(" ".join(_FILLER.sub(" ", _SAID.sub(" ", sentence)).split()))
        else:
            ask.append(sentence[0].upper() + sentence[1:].replace(" ?", "?"))
    if name:
        return Plan("", name, tuple(ask), tuple(transcript))
    if not find:
        find = ask[0].rstrip("?. ") if ask else question
    return Plan(find, "", tuple(ask), tuple(transcript))


def _caption(verb: str | None, rest: str) -> str:
    """Return a question as a caption: "does" and "the triangle blink" become "the triangle blinks"."""
    parts = _DOES.match(rest) if (verb or "").lower() == "does" else None
    return f"{parts[1]} {parts[2]}s{parts[3]}" if parts else rest


def _results_in(messages: Sequence[BaseMessage]) -> Results:
    by_id = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    results = Results()
    for message in messages:
        if not isinstance(message, AIMessage):
            continue
        for call in message.tool_calls:
            if call["id"] in by_id:
                results.calls.append((call, by_id[call["id"]]))
    return results


def _choose_clip(clips: Sequence[str], plan: Plan, results: Results) -> str:
    """Return the first clip in which Act2See saw something, or about which it was not asked yet.

    If it saw nothing in any clip, return the first.
    """
    for clip in clips:
        answers = [results.of("ask_video", video=clip, question=question) for question in plan.ask]
        if not any(answer and _is_failure(answer) for answer in answers):
            return clip
    return clips[0]


def _is_failure(answer: ToolMessage) -> bool:
    return answer.status == "error" or bool(_NOTHING.search(str(answer.text)))


def _call_tools(wanted: Sequence[tuple[str, dict[str, str]]]) -> AIMessage:
    calls = []
    for name, args in wanted:
        calls.append({"name": name, "args": args, "id": uuid4().hex[:12], "type": "tool_call"})
    return AIMessage("", tool_calls=calls)


def _answer(plan: Plan, clip: str, results: Results) -> str:
    """Return the workers' words, after the line that says which clip was found."""
    lines = []
    found = results.of("find_clips")
    for row in str(found.text).splitlines() if found else []:
        ranked = _RANKED.match(row)
        if ranked and ranked[1] == clip:
            unsure = row.endswith("no match")
            lines.append(f"No clip clearly shows it; the closest is {clip}." if unsure else f"It is {clip}.")
            lines.append(f"Found for {plan.find!r}: {row.split('. ', 1)[1]}")
    for question in plan.ask:
        if result := results.of("ask_video", video=clip, question=question):
            lines += [question, str(result.text)]
    for query in plan.transcript:
        if result := results.of("search_transcript", video=clip, query=query):
            if result.status != "error":
                lines += ["In the subtitles:", str(result.text)]
            elif str(result.text) not in lines:
                lines.append(str(result.text))
    return "\n".join(lines)
