"""Any LangChain chat model as a reasoner: a teacher, or the model of whoever has an API key alone.

Most chat APIs cannot go on with a turn that holds an image. So what a tool returned becomes a user's turn, the
model's next turn goes on from there, and in the trace it is one thought again: a `<think>` that a model opens anew
with each turn is left out. Stop strings, which APIs cut off, are put back where a tag was left open.

Before the first word of an answer, errors that pass (rate limits, overload, lost connections) are waited for, as
long as the server asks (`Retry-After`); one wait holds for all questions of the reasoner. Temperature, top-p and
output limits are the chat model's own; its token counts are taken as reported.
"""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from act2see.agent.packing import FrameSource
from act2see.agent.reasoners.base import Delta, Done, Sampling, Stop
from act2see.agent.rollout import ImagePiece, Rollout
from act2see.errors import ReasonerError, RefusedError, SetupError
from act2see.tools.frames import FrameRef

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

log = logging.getLogger(__name__)
_OPENED = re.compile(r"\A\s*<think>\n?")
_ANSWER_NOW = "Answer now with what you know: only <answer>your answer</answer>."
_DRAIN = 8  # chunks read after the end of a call, for the token counts that come last
_TOO_LONG = {"length", "max_tokens"}
_REFUSED = {"safety", "content_filter", "refusal", "recitation", "prohibited_content", "blocklist", "spii", "image_safety"}
_ASKED = re.compile(r"retry[- _]?(?:after|delay|in)\D{0,12}(\d+(?:\.\d+)?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is sent, how long is waited in between where the server does not say (doubled each time), and
    how long a silent server is listened to; seconds."""

    requests: int = 6
    first: float = 1.0
    longest: float = 120.0
    silence: float = 300.0


@dataclass(slots=True)
class ChatModelReasoner:
    """Continues rollouts with a LangChain chat model. `source` gives pixels, `(h, w, 3)` uint8, for frames."""

    model: BaseChatModel
    source: FrameSource
    name: str = "chat"
    patience: Patience = Patience()
    _free: float = field(default=0.0, init=False)  # nobody sends before this time (monotonic clock)

    async def stream(
        self, rollout: Rollout, *, until: Callable[[str], bool], stops: Sequence[str], max_tokens: int, sampling: Sampling
    ) -> AsyncIterator[Delta | Done]:
        messages = await asyncio.to_thread(chat_messages, rollout, self.source)
        text, ended, after = "", False, 0
        whole: Any = None
        opening = _Opening()
        chunks = self._chunks(messages, list(stops), random.Random(sampling.seed))
        try:
            async for chunk in chunks:
                whole = chunk if whole is None else whole + chunk
                if ended:
                    after += 1
                    if after >= _DRAIN:
                        break
                    continue
                said, ended = _feed(opening.read(str(chunk.text)), until)
                text += said
                if said:
                    yield Delta(said)
                if not ended and len(text) > 8 * max_tokens:
                    yield _done("length", whole)
                    return
        finally:
            await chunks.aclose()
        if not ended and (held := opening.rest()):
            said, ended = _feed(held, until)
            text += said
            yield Delta(said)
        reason = _finish(whole)
        if not ended and reason in _REFUSED:
            raise RefusedError(f"{self.name} refused to answer ({reason})")
        if not ended and reason not in _TOO_LONG and (tag := _left_open(text, stops)):
            until(tag)
            yield Delta(tag)
            ended = True
        yield _done("until" if ended else "length" if reason in _TOO_LONG else "eos", whole)

    def forget(self, session: str) -> None:
        pass

    async def _chunks(self, messages: list[BaseMessage], stops: list[str], rng: random.Random) -> AsyncGenerator[Any]:
        """The model's stream; requests that fail before its first chunk are sent again while there is hope."""
        for request in range(1, self.patience.requests + 1):
            await self._turn()
            stream = self.model.astream(messages, stop=stops)
            began = False
            try:
                while True:
                    async with asyncio.timeout(self.patience.silence):
                        try:
                            chunk = await anext(stream)
                        except StopAsyncIteration:
                            return
                    began = True
                    yield chunk
            except Exception as e:
                wait = self._wait(e, request, rng)
                if began or wait is None or request == self.patience.requests:
                    raise self._error(e, began) from e
                log.warning("%s: %s; request %d in %.1f s", self.name, _said(e), request + 1, wait)
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
        status = status_of(error)
        passes = status in (408, 409, 425, 429) or (status or 0) >= 500
        lost = status is None and (isinstance(error, OSError | TimeoutError) or re.search("Timeout|Connect|Protocol", type(error).__name__))
        if not (passes or lost):
            return None
        asked = retry_after(error)
        if asked is not None:
            return asked if asked <= 10 * self.patience.longest else None
        return min(self.patience.longest, self.patience.first * 2.0 ** (request - 1)) * rng.uniform(0.75, 1.25)

    def _error(self, error: Exception, began: bool) -> ReasonerError:
        status = status_of(error)
        if status in (401, 403, 404):
            return SetupError(f"{self.name}: {_said(error)}: check the key, its rights and the model's name")
        if isinstance(error, TimeoutError):
            return ReasonerError(f"{self.name} said nothing for {self.patience.silence:g} s")
        return ReasonerError(f"{self.name} {'broke off' if began else 'failed'}: {_said(error)}")


class _Opening:
    """Leaves out the `<think>` with which a model opens a thought that is open."""

    def __init__(self) -> None:
        self._held: str | None = ""

    def read(self, text: str) -> str:
        """What can be said of what has come: nothing while it may still become `<think>`."""
        if self._held is None:
            return text
        self._held += text
        return "" if "<think>\n".startswith(self._held.lstrip()) else self.rest()

    def rest(self) -> str:
        held, self._held = self._held or "", None
        return _OPENED.sub("", held)


def chat_messages(rollout: Rollout, source: FrameSource) -> list[BaseMessage]:
    """The rollout as turns: question, thought, what a tool returned (the user's), thought ..."""
    from langchain_core.messages import AIMessage, HumanMessage

    turns: list[tuple[str, list[Any]]] = [("user", [])]
    thinking, forced = False, False
    for piece in rollout.pieces:
        block: Any
        if isinstance(piece, ImagePiece):
            who, block = "user", image_block(piece.frame, source)
        elif piece.trust == "control" and piece.text.startswith("<|"):
            thinking |= "assistant" in piece.text
            continue
        else:
            mine = piece.trust != "plain"
            who, block = "model" if thinking and mine else "user", piece.text
            forced = thinking and piece.trust == "control"
        if turns[-1][0] != who:
            turns.append((who, []))
        turns[-1][1].append(block)
    messages: list[BaseMessage] = []
    for n, (who, blocks) in enumerate(turns):
        if who == "user":
            messages.append(HumanMessage(content=_blocks(blocks)))
        else:
            said = "".join(blocks).removesuffix("<answer>" if forced and n == len(turns) - 1 else "")
            messages.append(AIMessage(content=said if any(m.type == "ai" for m in messages) else f"<think>\n{said}"))
    if turns[-1][0] == "model":
        messages.append(HumanMessage(content=_ANSWER_NOW if forced else "Go on."))
    return messages


def image_block(frame: FrameRef, source: FrameSource) -> dict[str, str]:
    """A frame as LangChain's standard image block, JPEG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(source(frame)).save(out, "JPEG", quality=92)
    return {"type": "image", "base64": base64.b64encode(out.getvalue()).decode(), "mime_type": "image/jpeg"}


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, however its library keeps it."""
    while error is not None:
        for holder in (error, getattr(error, "response", None)):
            for name in ("status_code", "code", "status"):
                value = getattr(holder, name, None)
                if isinstance(value, int) and 100 <= value < 600:
                    return value
        error = error.__cause__
    return None


def retry_after(error: BaseException | None) -> float | None:
    """Seconds that the server asks to wait: its header, or its words."""
    while error is not None:
        headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
        try:
            return max(0.0, float(headers.get("retry-after") or headers.get("Retry-After")))
        except (TypeError, ValueError, AttributeError):
            pass
        if found := _ASKED.search(str(error)):
            return float(found[1])
        error = error.__cause__
    return None


def _blocks(blocks: list[Any]) -> Any:
    """Texts that follow one another in one block; a turn of text alone is plain text."""
    merged: list[Any] = []
    for block in blocks:
        if isinstance(block, str) and merged and isinstance(merged[-1], str):
            merged[-1] += block
        else:
            merged.append(block)
    if len(merged) == 1 and isinstance(merged[0], str):
        return merged[0]
    return [{"type": "text", "text": b} if isinstance(b, str) else b for b in merged]


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
    meta = getattr(whole, "response_metadata", None) or {}
    reason = meta.get("finish_reason") or meta.get("stop_reason") or meta.get("done_reason") or ""
    if (getattr(whole, "additional_kwargs", None) or {}).get("refusal"):
        return "refusal"
    return str(getattr(reason, "name", reason)).lower()


def _done(stop: Stop, whole: Any) -> Done:
    usage: Any = getattr(whole, "usage_metadata", None) or {}
    read, cached = usage.get("input_tokens", 0), (usage.get("input_token_details") or {}).get("cache_read", 0) or 0
    return Done(stop, prefilled=read - cached, cached=cached, decoded=usage.get("output_tokens", 0))


def _said(error: Exception) -> str:
    status = status_of(error)
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"{f'status {status}, ' if status else ''}{first[:200]}"
