"""A supervisor without a model: for tests, and for the demo that works offline.

It is a LangChain chat model like any other: it is given the conversation and makes tool calls. It understands
plain English questions of one form alone, sentence by sentence ("In which clip does the triangle blink, and
what colour does the triangle turn when it blinks? What is said then?"):

- *which clip*: asks the librarian, with what follows ("the triangle blinks");
- *said, says, mentioned*: searches the transcript of the clip;
- any other sentence: asks Act2See about the clip, word by word.

Everything after the first call comes from what the tools return: the clip is the one that the librarian ranks
first, the next one where Act2See sees nothing in it, and the answer is put together from the workers' own
words.
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
_SAID_EMPTY = re.compile(
    r"\b(?:what|who|is|are|was|does|do|did|then|there|anything|about|when|where|it|in|the|clip|video)\b|[^\w\s]",
    re.IGNORECASE,
)
_FILE = re.compile(
    r"(?:\b(?:in|of|from)\s+|\s*)([\w./-]+\.(?:mp4|m4v|mov|mkv|webm|avi|mpe?g|wmv|flv|3gp))\b\s*,?\s*",
    re.IGNORECASE,
)
_RANKED = re.compile(r"^\d+\. (.+?): [\d.]+ s \(score -?[\d.]+\).*$", re.MULTILINE)
_NOTHING = re.compile(r"\AAnswer: (?:none|I cannot)|No match", re.IGNORECASE)
_TRIED = 3  # clips asked about, at most


@dataclass(frozen=True, slots=True)
class Plan:
    """What a question asks of whom. `find` is empty where it names its clip."""

    find: str
    clip: str = ""
    ask: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


@dataclass(slots=True)
class Done:
    """What has come back so far: calls with their results, in order."""

    calls: list[tuple[ToolCall, ToolMessage]] = field(default_factory=list)

    def of(self, name: str, **args: str) -> ToolMessage | None:
        return next(
            (m for c, m in self.calls if c["name"] == name and args.items() <= c["args"].items()), None
        )


class ScriptedSupervisor(BaseChatModel):
    """Plans by rules, reads what comes back. `names`: the tools that it was bound to."""

    names: tuple[str, ...] = ()

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.model_copy(update={"names": tuple(getattr(t, "name", "") for t in tools)})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=turn(messages))])


def turn(messages: Sequence[BaseMessage]) -> AIMessage:
    """The supervisor's next message: calls, or the answer where nothing is left to ask."""
    last = max((i for i, m in enumerate(messages) if isinstance(m, HumanMessage)), default=-1)
    if last < 0 or not (question := str(messages[last].text).strip()):
        return AIMessage(
            "Ask something about the videos, for instance: In which clip does the triangle blink?"
        )
    plan, done = planned(question), _done(messages[last + 1 :])
    if plan.find and not (found := done.of("find_clips")):
        return _calls(("find_clips", {"query": plan.find}))
    clips = [plan.clip] if plan.clip else _RANKED.findall(str(found.text))[:_TRIED] if found else []
    if not clips:
        return AIMessage(f"No clip can be searched. {found.text if found else ''}".strip())
    clip = _seen_in(clips, plan, done)
    wanted = [("ask_video", {"video": clip, "question": q}) for q in plan.ask]
    wanted += [("search_transcript", {"video": clip, "query": q}) for q in plan.said]
    if missing := [(name, args) for name, args in wanted if not done.of(name, **args)]:
        return _calls(*missing)
    return AIMessage(_answer(plan, clip, done))


def planned(question: str) -> Plan:
    """Who is asked what."""
    find, ask, said = "", [], []
    named = _FILE.search(question)
    # What is asked of a clip names no file: "In b.mp4, which shape moves?"
    for sentence in filter(None, map(str.strip, _SENTENCE.split(_FILE.sub("", question)))):
        if which := _WHICH.match(sentence):
            find = find or _looked_for(*which.groups())
        elif _SAID.search(sentence):
            said.append(" ".join(_SAID_EMPTY.sub(" ", _SAID.sub(" ", sentence)).split()))
        else:
            ask.append(sentence[0].upper() + sentence[1:].replace(" ?", "?"))
    if named:
        return Plan("", named[1], tuple(ask), tuple(said))
    return Plan(find or (ask[0].rstrip("?. ") if ask else question), "", tuple(ask), tuple(said))


def _looked_for(verb: str | None, rest: str) -> str:
    """ "does the triangle blink" as a caption says it: "the triangle blinks"."""
    parts = _DOES.match(rest) if (verb or "").lower() == "does" else None
    return f"{parts[1]} {parts[2]}s{parts[3]}" if parts else rest


def _done(messages: Sequence[BaseMessage]) -> Done:
    results = {m.tool_call_id: m for m in messages if isinstance(m, ToolMessage)}
    calls = [c for m in messages if isinstance(m, AIMessage) for c in m.tool_calls]
    return Done([(c, results[c["id"]]) for c in calls if c["id"] in results])


def _seen_in(clips: Sequence[str], plan: Plan, done: Done) -> str:
    """The first clip that has not disappointed: in which Act2See saw something, or has not been asked; else
    the first."""
    for clip in clips:
        answers = [m for q in plan.ask if (m := done.of("ask_video", video=clip, question=q))]
        if not any(m.status == "error" or _NOTHING.search(str(m.text)) for m in answers):
            return clip
    return clips[0]


def _calls(*wanted: tuple[str, dict[str, str]]) -> AIMessage:
    return AIMessage(
        "",
        tool_calls=[
            {"name": name, "args": args, "id": uuid4().hex[:12], "type": "tool_call"} for name, args in wanted
        ],
    )


def _answer(plan: Plan, clip: str, done: Done) -> str:
    """The workers' words, with what they rest on."""
    lines = []
    for row in str(found.text).splitlines() if (found := done.of("find_clips")) else []:
        if (ranked := _RANKED.match(row)) and ranked[1] == clip:
            lines.append(
                f"No clip clearly shows it; the closest is {clip}."
                if row.endswith("no match")
                else f"It is {clip}."
            )
            lines.append(f"Found for {plan.find!r}: {row.split('. ', 1)[1]}")
    for name, key, asked in (("ask_video", "question", plan.ask), ("search_transcript", "query", plan.said)):
        for question in asked:
            if result := done.of(name, **{"video": clip, key: question}):
                lines += [f"{question}" if name == "ask_video" else "In the subtitles:", str(result.text)]
    return "\n".join(lines)
