"""Any LangChain chat model as a reasoner: a teacher, or the model of whoever has an API key alone.

Most chat APIs cannot go on with a turn that holds an image. So what a tool returned becomes a user's turn,
the model's next turn goes on from there, and in the trace it is one thought again: a `<think>` that a model
opens anew with each turn is left out. Stop strings, which APIs cut off, are put back where a tag was left
open.

With `continuation` the server is one that goes on with an unfinished turn, as `act2see serve openai` does: it
reads the rollout itself, and the run's temperature, seed and token limit hold. Else these are the chat
model's own.

Before the first word of an answer, errors that pass (rate limits, overload, lost connections) are waited for,
as long as the server asks (`Retry-After`); one wait holds for all questions of the reasoner. After it nothing
is sent again, for what was streamed would be there twice: the run ends at its last saved step. Token counts
are taken as reported.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any

from act2see.agent.reasoners.base import Delta, Done, Sampling, Stop
from act2see.agent.reasoners.chat.turns import Blocks, chat_messages, continued_messages
from act2see.agent.reasoners.faults import (
    CutError,
    passes,
    reasoner_error,
    refuses_stops,
    retry_after,
    said,
    status_of,
)
from act2see.agent.rollout import Rollout
from act2see.errors import ConfigError, ReasonerError, RefusedError, SetupError
from act2see.tools.runtime.background import relay
from act2see.tools.video.store import FrameSource

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

log = logging.getLogger(__name__)
_OPENED = re.compile(r"\A\s*<think>\n?")
_DRAIN = 8  # chunks read after the end of a call, for the token counts that come last
_STOPS = 4  # as many as every API takes; where another tag ends, the reading ends and the connection with it
_TOO_LONG = {"length", "max_tokens"}
_REFUSED = {
    "safety",
    "content_filter",
    "refusal",
    "recitation",
    "prohibited_content",
    "blocklist",
    "spii",
    "image_safety",
}
# Those whose streams always end with a reason: without one they were cut.
_GIVE_REASONS = {"openai", "google_genai", "anthropic"}


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often a request is sent, how long is waited in between where the server does not say (doubled each
    time), and how long a silent server is listened to; seconds. `absent`: how long a server that has never
    answered is looked for."""

    requests: int = 6
    first: float = 1.0
    longest: float = 120.0
    silence: float = 300.0
    absent: float = 8.0


@dataclass(slots=True)
class ChatModelReasoner:
    """Continues rollouts with a LangChain chat model. `source` gives pixels, `(h, w, 3)` uint8, for
    frames."""

    model: BaseChatModel
    source: InitVar[FrameSource]
    name: str = "chat"
    patience: Backoff = Backoff()
    continuation: bool = False
    in_background: bool = False
    """Whether requests run on the process's background loop, whichever loop the caller is in. A client keeps connections, and they
    belong to the loop that opened them; so a model that is not shared with anybody else can serve callers from many loops."""
    _process: int = field(default=0, init=False)  # that has sent a request
    ask_first: bool = False  # before the first run the server is asked whether it is there and takes the key
    _asked: bool = field(default=False, init=False)
    _met: bool = field(default=False, init=False)  # it has answered, if only with an error
    _free: float = field(default=0.0, init=False)  # nobody sends before this time (monotonic clock)
    _stopless: bool = field(default=False, init=False)
    _told: bool = field(default=False, init=False)
    _blocks: Blocks = field(init=False)

    def __post_init__(self, source: FrameSource) -> None:
        self._blocks = Blocks(source)
        if self.continuation and not hasattr(self.model, "extra_body"):
            raise ConfigError(
                f"{self.name}: reasoner.continuation needs an OpenAI-compatible server, weights `openai:NAME` and its base_url"
            )

    async def prepare(self) -> None:
        """Before a run, until it went well once: ask the server for its models. Raises `SetupError`."""
        if self.ask_first and not self._asked:
            from act2see.agent.reasoners.chat.probe import probe

            await probe(self.model, self.name)
            self._asked = True

    async def stream(
        self,
        rollout: Rollout,
        *,
        until: Callable[[str], bool],
        stops: Sequence[str],
        max_tokens: int,
        sampling: Sampling,
    ) -> AsyncIterator[Delta | Done]:
        self._check_process()
        text, ended, chunks_read, after = "", False, 0, 0
        whole: Any = None
        opening, halves = _Opening(not self.continuation), _Halves()
        messages, settings = await asyncio.to_thread(self._request, rollout, stops, max_tokens, sampling)
        chunks = self._chunks(messages, settings, random.Random(sampling.seed))
        if self.in_background:
            chunks = relay(chunks)
        try:
            async for chunk in chunks:
                # Of what came, only counts and reasons are put together: LangChain's sum of whole texts takes
                # longer than a token.
                if chunk.usage_metadata or chunk.additional_kwargs or _finish(chunk):
                    whole = chunk if whole is None else whole + chunk
                if ended:
                    after += 1
                    if after >= _DRAIN:
                        break
                    continue
                chunks_read += bool(chunk.text)
                spoken, ended = _feed(opening.read(halves.read(str(chunk.text))), until)
                text += spoken
                if spoken:
                    yield Delta(spoken)
                if not ended and len(text) > 8 * max_tokens:
                    yield _done("length", whole, chunks_read)
                    return
        except ReasonerError as e:
            if not ended:
                raise
            log.debug("%s, when all had been said", e)
        finally:
            await chunks.aclose()
        if not ended and (held := opening.read(halves.rest()) + opening.rest()):
            spoken, ended = _feed(held, until)
            text += spoken
            yield Delta(spoken)
        self._check_model(whole)
        reason = _finish(whole)
        if not ended and reason in _REFUSED:
            raise RefusedError(f"{self.name} refused to answer ({reason})")
        if (
            not ended
            and not self.continuation
            and reason not in _TOO_LONG
            and (tag := _left_open(text, stops))
        ):
            until(tag)
            yield Delta(tag)
            ended = True
        yield _done("until" if ended else "length" if reason in _TOO_LONG else "eos", whole, chunks_read)

    def forget(self, session: str) -> None:
        pass

    def _check_process(self) -> None:
        self._process = self._process or os.getpid()
        if self._process != os.getpid():
            raise SetupError(
                f"{self.name}: the connections to it belong to the process that this one was forked from, where it has been asked: "
                'fork before the first question, or start processes by "spawn"'
            )

    def _request(
        self, rollout: Rollout, stops: Sequence[str], max_tokens: int, sampling: Sampling
    ) -> tuple[list[Any], dict[str, Any]]:
        """The messages, and what is said beside them."""
        settings: dict[str, Any] = {"stop": list(stops[: len(stops) if self.continuation else _STOPS])}
        # Servers other than OpenAI's own are not asked for their token counts unless one insists.
        if hasattr(self.model, "stream_usage") and "stream_usage" not in self.model.model_fields_set:
            settings["stream_usage"] = True
        if not self.continuation:
            return chat_messages(rollout, self._blocks), settings
        messages, plain = continued_messages(rollout, self._blocks)
        extra = {
            "continue_final_message": True,
            "add_generation_prompt": False,
            "include_stop_str_in_output": True,
            "plain_parts": plain,
        }
        settings |= {
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        return messages, settings | {
            "extra_body": {**(getattr(self.model, "extra_body", None) or {}), **extra}
        }

    async def _chunks(
        self, messages: list[Any], settings: dict[str, Any], rng: random.Random
    ) -> AsyncGenerator[Any]:
        """The model's stream; requests that fail before its first word are sent again while there is hope."""
        started = time.monotonic()
        for request in range(1, self.patience.requests + 1):
            await self._turn()
            if self._stopless:
                settings.pop("stop", None)
            stream = self.model.astream(messages, **settings)
            began = False
            last: Any = None
            try:
                while True:
                    async with asyncio.timeout(self.patience.silence):
                        try:
                            chunk = await anext(stream)
                        except StopAsyncIteration:
                            if _is_cut(last):
                                raise CutError("the stream ended without its last part") from None
                            return
                    began |= bool(chunk.text)
                    self._met = True
                    last = chunk if last is None or _finish(chunk) else last
                    yield chunk
            except Exception as e:
                if not began and not self._stopless and refuses_stops(e):
                    self._stopless = True
                    log.warning("%s takes no stop strings: its stream is ended by hanging up", self.name)
                    continue
                wait = self._wait(e, request, rng)
                self._met |= status_of(e) is not None
                # Of a server that has answered before, one takes it that it comes back.
                if (
                    wait is not None
                    and not self._met
                    and time.monotonic() + wait - started > self.patience.absent
                ):
                    wait = None
                if began or wait is None or request == self.patience.requests:
                    raise reasoner_error(e, self.name, began=began, silence=self.patience.silence) from e
                log.warning("%s: %s; request %d in %.1f s", self.name, said(e), request + 1, wait)
                self._free = max(self._free, time.monotonic() + wait)
            finally:
                if close := getattr(stream, "aclose", None):
                    await close()

    async def _turn(self) -> None:
        while True:
            wait = self._free - time.monotonic()
            if wait <= 0:
                return
            await asyncio.sleep(wait)

    def _wait(self, error: Exception, request: int, rng: random.Random) -> float | None:
        """Seconds until the next request, None where none would help."""
        if not passes(error):
            return None
        asked = retry_after(error)
        if asked is not None:
            return asked if asked <= 10 * self.patience.longest else None
        return min(self.patience.longest, self.patience.first * 2.0 ** (request - 1)) * rng.uniform(
            0.75, 1.25
        )

    def _check_model(self, whole: Any) -> None:
        """Whether the model that answered is the one that was asked: some servers answer with whichever they
        have."""
        meta = getattr(whole, "response_metadata", None) or {}
        asked = _short(getattr(self.model, "model_name", None) or getattr(self.model, "model", None))
        answered = _short(meta.get("model_name"))
        # Names grow: a version or a date is appended, a path put in front.
        if not asked or not answered or asked.startswith(answered) or answered.startswith(asked):
            return
        words = f"{self.name}: {answered!r} answered, and {asked!r} was asked"
        if self.continuation:
            raise SetupError(f"{words}: set reasoner.weights to the model that the server has")
        if not self._told:
            self._told = True
            log.warning("%s: traces name the one that was asked", words)


class _Opening:
    """Leaves out the `<think>` with which a model opens a thought that is open."""

    def __init__(self, wanted: bool) -> None:
        self._held: str | None = "" if wanted else None

    def read(self, text: str) -> str:
        """What can be said of what has come: nothing while it may still become `<think>`."""
        if self._held is None:
            return text
        self._held += text
        return "" if "<think>\n".startswith(self._held.lstrip()) else self.rest()

    def rest(self) -> str:
        held, self._held = self._held or "", None
        return _OPENED.sub("", held)


class _Halves:
    """Puts characters together that a server split between two chunks, as JSON's escapes allow. Half a one
    alone is no text: neither a checkpoint nor a trace could keep it."""

    def __init__(self) -> None:
        self._held = ""

    def read(self, text: str) -> str:
        text, self._held = self._held + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return _whole(text)

    def rest(self) -> str:
        held, self._held = self._held, ""
        return _whole(held)


def _whole(text: str) -> str:
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _feed(text: str, until: Callable[[str], bool]) -> tuple[str, bool]:
    """What was read of `text`, up to where the reading stops."""
    for n, char in enumerate(text, start=1):
        if until(char):
            return text[:n], True
    return text, False


def _left_open(text: str, stops: Sequence[str]) -> str:
    """The closing tag that an API has cut off: of the last tag of these that is open."""
    opened = [(text.rfind(s.replace("</", "<", 1)), s) for s in stops]
    at, closing = max(opened, default=(-1, ""))
    return closing if at >= 0 and closing not in text[at:] else ""


def _finish(whole: Any) -> str:
    """Why the model stopped, in the provider's words; empty where nothing was said."""
    meta = getattr(whole, "response_metadata", None) or {}
    reason = meta.get("finish_reason") or meta.get("stop_reason") or meta.get("done_reason") or ""
    if (getattr(whole, "additional_kwargs", None) or {}).get("refusal"):
        return "refusal"
    if not reason and (blocked := (meta.get("prompt_feedback") or {}).get("block_reason")):
        # Gemini, where it is the question that it will not read: whatever the reason is called.
        return "safety" if "safety" in str(blocked).lower() else "prohibited_content"
    return str(getattr(reason, "name", reason)).lower()


def _is_cut(last: Any) -> bool:
    provider = (getattr(last, "response_metadata", None) or {}).get("model_provider")
    return provider in _GIVE_REASONS and not _finish(last)


def _short(name: Any) -> str:
    return str(name or "").rpartition("/")[2].lower()


def _done(stop: Stop, whole: Any, chunks: int) -> Done:
    """The end; where the connection was left before the counts came, a chunk counts as a token."""
    usage: Any = getattr(whole, "usage_metadata", None) or {}
    read, cached = (
        usage.get("input_tokens", 0),
        (usage.get("input_token_details") or {}).get("cache_read", 0) or 0,
    )
    return Done(stop, prefilled=read - cached, cached=cached, decoded=usage.get("output_tokens", 0) or chunks)
