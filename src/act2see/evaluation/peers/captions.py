"""The peer that reads captions instead of looking: a text-only search over captions of clips.

Deep Video Discovery cuts a video into clips of 10 s (`dvd/config.py`), lets a VLM caption each
(`dvd/frame_caption.py`), and gives an agent tools over that database. `clip_search_tool` returns the captions
that are nearest to an event's description, at most 16, in order of time (`dvd/build_database.py`). Each
begins with its times.

Ours has that search alone. The agent's own reasoner writes the captions, before it knows a question. The
index weighs words by their rarity (BM25) where theirs calls an embedding service, and a clip has at most the
frames of the configuration's index. Left out are `global_browse_tool` and `frame_inspect_tool`: the first
answers by another model, the second looks.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from act2see.agent.parser import StopReason
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Done, Reasoner, Request
from act2see.agent.rollout import render
from act2see.tools.base import Resources, ToolContext, ToolResult
from act2see.tools.frames import FrameRef, Video
from act2see.trace.record import Question
from act2see.trace.trace import Trace

ASK = "Describe what these frames of the clip show: objects, their places and looks, and what happens."
"""What the captioner is asked."""
ASK_SHORT = "Describe the clip."
"""What a model is asked whose prompt, of the style `short`, has no instructions. Such a model describes the
frames in its thought, so the whole chain is its caption."""
MOST = 16
"""The captions of one search; DVD's default."""
_TOKENS = 256  # of a caption
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL)
_MARK = re.compile(r"</?[a-z_]+>")
_WORD = re.compile(r"\w+")
_SATURATION, _LENGTH = 1.5, 0.75  # k1 and b of BM25, at their usual values


@dataclass(frozen=True, slots=True)
class Caption:
    """The caption of a clip, which begins and ends at these seconds."""

    begin: float
    end: float
    text: str

    @property
    def line(self) -> str:
        """The caption with its times, as the agent reads it."""
        return f"[From {self.begin:.1f} to {self.end:.1f} seconds] {self.text}"


class CaptionSearch:
    """The tool: a query in, captions out, and never a frame.

    Args:
        tag: The tag.
        reasoner: Writes the captions.
        resources: Opens the videos.
        style: The style of the reasoner's prompt.
        clip_seconds: The length of a clip.
        fps: The number of frames a second that the captioner sees.
    """

    usage = "captions of the clips of this video that match what the query describes; no frames"

    def __init__(
        self,
        tag: str,
        reasoner: Reasoner,
        resources: Resources,
        style: str,
        clip_seconds: float,
        fps: float,
    ) -> None:
        self.tag = tag
        self._reasoner = reasoner
        self._library = resources.finder.library
        self._prompt = Prompt({}, style)
        self._clip_seconds = clip_seconds
        self._fps = fps
        self._captions: dict[str, tuple[Caption, ...]] = {}
        self.tokens: dict[str, int] = {}
        """Tokens read and written for the captions of each video, by its digest. They are spent once for all
        questions about it."""
        self._untold: Counter[str] = Counter()

    @property
    def version(self) -> str:
        return f"captions by {self._reasoner.name} of {self._clip_seconds:g} s at {self._fps:g} fps"

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        captions = await self.captions(context.video)
        best = sorted(rank_captions(query, [caption.text for caption in captions])[:MOST])
        return ToolResult(note="\n".join(captions[place].line for place in best))

    async def captions(self, video: str) -> tuple[Caption, ...]:
        """Return the captions of a video, in order of time. Written once; two first calls may both write."""
        facts, clips = await asyncio.to_thread(self._cut, video)
        if facts.digest not in self._captions:
            written = [await self._caption(facts, number, clip) for number, clip in enumerate(clips)]
            self.tokens[facts.digest] = sum(tokens for _, tokens in written)
            self._untold[facts.digest] += self.tokens[facts.digest]
            self._captions[facts.digest] = tuple(caption for caption, _ in written)
        return self._captions[facts.digest]

    def take_tokens(self, video: str) -> int:
        """Return the tokens spent on the captions of a video, by its digest, since this was last called."""
        return self._untold.pop(video, 0)

    def _cut(self, video: str) -> tuple[Video, list[list[FrameRef]]]:
        """Return the facts of a video, and the frames of its clips."""
        probed = self._library.probe(video)
        clips: dict[int, list[FrameRef]] = {}
        for frame in self._library.pictures(video, probed.every(self._fps)):
            clips.setdefault(int(frame.seconds // self._clip_seconds), []).append(frame)
        return probed.info, [clips[number] for number in sorted(clips)]

    async def _caption(self, video: Video, number: int, frames: list[FrameRef]) -> tuple[Caption, int]:
        """Return the caption of a clip, and what it cost."""
        name = f"caption-{video.digest}-{number}"
        short = self._prompt.style == "short"
        trace = Trace(
            id=name, video=video, question=Question(text=ASK_SHORT if short else ASK), initial=tuple(frames)
        )
        text = ""

        def until_answered(piece: str) -> bool:
            nonlocal text
            text += piece
            return "</answer>" in text

        request = Request(render(trace, self._prompt), _TOKENS, until_answered, ("</answer>",))
        done = Done(StopReason.EOS)
        async for item in self._reasoner.stream(request):
            if isinstance(item, Done):
                done = item
        self._reasoner.forget(name)
        caption = Caption(frames[0].seconds, frames[-1].seconds, read_caption(text, whole=short))
        return caption, done.prefilled + done.decoded


def read_caption(text: str, *, whole: bool = False) -> str:
    """Return the caption in what a captioner wrote: its answer or, if it gave none, its thought.

    Args:
        text: What it wrote.
        whole: Whether the caption is the thought and the answer.
    """
    answer = None if whole else _ANSWER.search(text)
    return " ".join(_MARK.sub(" ", answer[1] if answer else text).split())


def rank_captions(query: str, captions: Sequence[str]) -> list[int]:
    """Return the places of all captions, the best match of the query first, by BM25. Ties stay in order."""
    counts = [Counter(_WORD.findall(caption.casefold())) for caption in captions]
    mean = sum(count.total() for count in counts) / max(1, len(counts)) or 1.0
    scores = [0.0] * len(captions)
    for word in set(_WORD.findall(query.casefold())):
        having = sum(word in count for count in counts)
        rarity = math.log(1 + (len(counts) - having + 0.5) / (having + 0.5))
        for place, count in enumerate(counts):
            damping = _SATURATION * (1 - _LENGTH + _LENGTH * count.total() / mean)
            scores[place] += rarity * count[word] * (_SATURATION + 1) / (count[word] + damping)
    return sorted(range(len(captions)), key=lambda place: -scores[place])
