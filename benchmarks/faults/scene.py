"""The scene of every fault: a short clip of four colours, and a question whose answer is in its pixels.

Everything is real (video, library, store, index, tool, graph, saver) except the encoder, which compares mean
colours, and the reasoner. That looks at the pixels of the frames it is given, as a model does, and answers
which colours it saw; so a wrong picture gives a wrong answer. After a tool that failed it calls once more,
and then says that it cannot tell. What it writes depends on the rollout alone, so a run can be resumed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.errors import Act2SeeError
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import Parts
from act2see.tools.base import Resources
from act2see.tools.retrieve import Retrieve
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameSource, FrameStore
from act2see.trace.record import Frames
from act2see.trace.trace import Trace

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 200), "yellow": (210, 200, 50)}
"""The colours of the clip, a second each."""
OTHERS = (("yellow", "blue", "green", "red"), ("blue", "green", "red", "yellow"))
"""The colours of other clips."""
QUESTION = "In which order do the colours appear that you look up?"
UNSURE = "I cannot tell"
OPTIONS = ("green, blue", "blue, green", "red, yellow", UNSURE)
RIGHT = OPTIONS[0]
_RATE, _SIZE = 6, 64
_LOOKED_UP = ("green", "blue")
_TRIES = 2  # calls for one look before the model gives up


def write_scene(path: Path, order: Sequence[str] = tuple(COLOURS)) -> Path:
    """Write the clip: each colour for a second, with a mark that makes each picture different."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=_RATE, options={"crf": "16", "g": str(_RATE), "threads": "1"}
        )
        stream.width = stream.height = _SIZE
        stream.pix_fmt = "yuv420p"
        for n in range(len(order) * _RATE):
            pixels = np.empty((_SIZE, _SIZE, 3), np.uint8)
            pixels[:] = COLOURS[order[n // _RATE]]
            left = 8 * (n % _RATE)
            pixels[:16, left : left + 8] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, _RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def colour_of(pixels: NDArray[np.uint8]) -> str:
    """Return the name of the colour that is nearest to the median of a picture."""
    median = np.median(pixels.reshape(-1, 3).astype(float), axis=0)
    return min(COLOURS, key=lambda name: float(np.abs(median - COLOURS[name]).sum()))


class ColourEncoder:
    """Vectors are mean colours, relative to grey."""

    id, size, no_match = "colours", 48, -1.0

    def frames(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
        means = np.stack([picture.reshape(-1, 3).mean(0) for picture in pixels]) - 110.0
        unit: NDArray[np.float16] = (means / np.linalg.norm(means, axis=-1, keepdims=True)).astype(np.float16)
        return unit[:, None]

    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        means = np.array([COLOURS[text.split()[-1]] for text in texts], np.float32) - 110.0
        unit: NDArray[np.float32] = means / np.linalg.norm(means, axis=-1, keepdims=True)
        return unit


def next_line(text: str, see: Callable[[], Sequence[str]]) -> str:
    """Return what the model writes after a rollout.

    Args:
        text: The rollout as text.
        see: Returns the colours of all frames in the rollout, in order.
    """
    thought = text.split("<think>\n", 1)[1]
    seen = thought.count("<|image_pad|>")
    failed = thought.count("The tool failed")
    colours = see()[-seen:] if seen else []
    if not thought.rstrip().endswith("<answer>"):
        if seen < len(_LOOKED_UP) and failed < _TRIES:
            # A call must differ from one that failed.
            return f"I look. <retrieve>{'again ' * failed}the part that is {_LOOKED_UP[seen]}</retrieve>"
        answer = ", ".join(colours) if seen == len(_LOOKED_UP) else UNSURE
        return f"So I know.</think>\n<answer>{answer}</answer>"
    return f"{', '.join(colours) if seen == len(_LOOKED_UP) else UNSURE}</answer>"


class Looking(Reasoner):
    """Writes the next line of its script, three characters at a time."""

    name = "looking"

    def __init__(self, source: FrameSource) -> None:
        self.source = source

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        rollout = request.rollout
        line = next_line(str(rollout), lambda: [colour_of(self.source(frame)) for frame in rollout.frames])
        for at in range(0, len(line), 3):
            yield Delta(line[at : at + 3])
            if request.until(line[at : at + 3]):
                break
        yield Done(StopReason.UNTIL, decoded=len(line) // 3 + 1)


ReasonerOf = Callable[[FrameSource], Reasoner]


@lru_cache(1)
def _config() -> Config:
    view = {"guard": None, "crop": None, "frames": 3, "max_side": 64, "choose": "evenly"}
    return load_config("micro", view=view, tools={"generate": None})


def make_parts(cache: Path, reasoner: ReasonerOf = Looking) -> tuple[Config, Parts]:
    """Return new parts that share nothing but the folder of the cache with others."""
    config = _config().model_copy(update={"cache": str(cache)})
    store = FrameStore(str(cache / "frames"))
    library = VideoLibrary(cache, store, config.view.max_side)
    finder = Finder(library, ColourEncoder(), cache, fps=3.0, batch=4, keep_frames=True, save_every=0.0)
    resources = Resources(store, finder)
    tool = Retrieve("retrieve", Retrieve.Options(), resources)
    return config, Parts(reasoner(store), {"retrieve": tool}, resources)


@dataclass(frozen=True, slots=True)
class Truth:
    """What an undisturbed run gives, and what each moment of the clip shows."""

    outcome: list[Any]
    pictures: dict[float, str]
    """Times of all frames, and the digests of their pictures."""
    others: dict[str, dict[float, str]] = field(default_factory=dict)
    """The same of other clips that take the place of this one, by the digest of the video."""

    def problem(self, trace: Trace, *, same: bool) -> str:
        """Return what is wrong with a trace; empty if it is right.

        Args:
            trace: The trace.
            same: Whether it must be that of an undisturbed run; else the model may have been told of a fault.
        """
        # A run may be about another clip, if that was there from its beginning.
        pictures = self.pictures if same else self.others.get(trace.video.digest, self.pictures)
        for frame in trace.shown:
            if pictures.get(frame.seconds) != frame.digest:
                return f"the frame at {frame.seconds} s shows another moment"
        if trace.answer not in (RIGHT, UNSURE):
            return f"wrong answer {trace.answer!r}"
        if trace.answer == UNSURE and not _was_told(trace):
            return "the model could not tell, and nothing in the trace says why"
        if same and outcome(trace) != self.outcome:
            return f"the run differs: answer {trace.answer!r}, {len(trace.calls)} calls"
        return ""


def _was_told(trace: Trace) -> bool:
    notes = [segment.note for segment in trace.segments if isinstance(segment, Frames)]
    return trace.forced or any("The tool failed" in note for note in notes)


def outcome(trace: Trace) -> list[Any]:
    """Return the content that must be the same after a resume: all texts, calls and frames."""
    out: list[Any] = [[frame.digest, frame.seconds] for frame in trace.initial]
    for segment in trace.segments:
        out.append(segment.model_dump_json(include={"kind", "text", "query", "tag", "body", "note"}))
        if isinstance(segment, Frames):
            out += [[frame.digest, frame.seconds] for frame in segment.frames]
    return out


def find_truth(video: Path, cache: Path) -> Truth:
    """Ask undisturbed, and look at every frame of the clip."""
    from act2see import ask, create_act2see

    config, parts = make_parts(cache)
    trace = ask(create_act2see(config, parts=parts), video, QUESTION, OPTIONS)
    if trace.answer != RIGHT or len(trace.calls) != len(_LOOKED_UP):
        raise RuntimeError(f"the undisturbed run answers {trace.answer!r} after {len(trace.calls)} calls")
    others = {}
    for number, order in enumerate(OTHERS):
        digest, pictures = _pictures(write_scene(cache / f"other-{number}.mp4", order), cache / str(number))
        others[digest] = pictures
    return Truth(outcome(trace), _pictures(video, cache / "all")[1], others)


def _pictures(video: Path, cache: Path) -> tuple[str, dict[float, str]]:
    """Return the digest of a video, and the times and digests of its pictures."""
    library = VideoLibrary(cache, FrameStore(str(cache)), _config().view.max_side)
    info = library.probe(video).info
    return info.digest, {ref.seconds: ref.digest for ref in library.pictures(video, range(info.frames))}


def explain(error: BaseException) -> str:
    """Return what is wrong with an error; empty for one of act2see's own in one line."""
    if not isinstance(error, Act2SeeError):
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    text = str(error)
    if not text or "\n" in text or len(text) > 1000:
        return f"{type(error).__name__} is not one short line: {text[:200]!r}"
    return ""
