"""Ways of working as arms of the harness, so that all are asked, scored, counted and continued alike.

`act2see eval BENCHMARK --way cited-frames` compares a peer with the same command without `--way`: the same
questions, seeds, models and files. A benchmark that shows a number of frames of its own shows it to peers,
too: `uniform-frames` has twice that number, and `caption-search` still sees one.
"""

from __future__ import annotations

from act2see.errors import BenchmarkError
from act2see.evaluation.asking import Arm, GraphArm
from act2see.evaluation.peers import PEERS, adapt_peer
from act2see.evaluation.peers.captions import CaptionSearch
from act2see.evaluation.peers.gemini import GeminiArm
from act2see.graphs.ask import Graph
from act2see.graphs.config import Config
from act2see.graphs.parts import Parts, build_parts

GEMINI = "gemini-agentic"
"""The agentic video mode of a provider, which is no peer: other weights, its own frames, its own budget."""
WAYS = (*PEERS, GEMINI)
"""The ways of working by name, beside that of the preset itself."""
CLIP_SECONDS = 10.0
"""The clips that `caption-search` captions, as in Deep Video Discovery."""
SHORT_CLIP_SECONDS = 2.0
"""Those of the board world, whose clips have 6 to 10 s: 10 s would give one caption."""


class PeerArm(GraphArm):
    """A peer, with the models of a configuration.

    Args:
        way: The name of the peer.
        config: The configuration of Act2See that it is compared with.
        name: The name in tables; by default that of the configuration and of the peer.
        parts: The parts of that configuration, to share its models; by default new ones.
        frames: What `adapt_peer` takes.
        clip_seconds: What `adapt_peer` takes.
    """

    def __init__(
        self,
        way: str,
        config: Config,
        name: str | None = None,
        *,
        parts: Parts | None = None,
        frames: int | None = None,
        clip_seconds: float = CLIP_SECONDS,
    ) -> None:
        base = build_parts(config) if parts is None else parts
        adapted, own = adapt_peer(way, config, parts=base, frames=frames, clip_seconds=clip_seconds)
        super().__init__(adapted, name or name_arm(config, way), parts=own)
        self._own = parts is None
        self._way = way
        self._has_frames = frames is not None

    def caption_tokens(self, digest: str) -> int | None:
        """Return what the captions of a video cost; None if this arm wrote none."""
        for tool in self.parts.tools.values():
            if isinstance(tool, CaptionSearch):
                return tool.tokens.get(digest)
        return None

    def take_aside(self, video: str) -> int:
        """Return the tokens spent on the captions of a video since this was last called."""
        tools = self.parts.tools.values()
        return sum(tool.take_tokens(video) for tool in tools if isinstance(tool, CaptionSearch))

    def _graph(self, frames: int | None) -> Graph:
        if self._way == "caption-search":
            frames = None
        elif self._way == "uniform-frames" and frames is not None:
            frames = None if self._has_frames else 2 * frames
        return super()._graph(frames)


def make_arm(config: Config, way: str | None = None, benchmark: str = "") -> Arm:
    """Return the arm of a configuration, or of a way of working with its models.

    Args:
        config: The configuration.
        way: The way of working, or the beginning of its name; None for the configuration's own.
        benchmark: The benchmark, whose videos say how long a captioned clip is.

    Raises:
        BenchmarkError: There is no such way.
        ConfigError: The configuration cannot be used.
    """
    if way is None:
        return GraphArm(config)
    way = find_way(way)
    if way == GEMINI:
        return GeminiArm(config, name_arm(config, way))
    seconds = SHORT_CLIP_SECONDS if benchmark == "board" else CLIP_SECONDS
    return PeerArm(way, config, clip_seconds=seconds)


def find_way(way: str) -> str:
    """Return the name of a way from its beginning.

    Raises:
        BenchmarkError: No way, or several, begin so.
    """
    found = [name for name in WAYS if name == way] or [name for name in WAYS if name.startswith(way)]
    if len(found) != 1:
        raise BenchmarkError(f"there is no way of working {way!r} (known: {', '.join(WAYS)})")
    return found[0]


def name_arm(config: Config, way: str | None) -> str:
    """Return the name of an arm in tables and folders."""
    return config.name if way is None else f"{config.name}-{find_way(way)}"
