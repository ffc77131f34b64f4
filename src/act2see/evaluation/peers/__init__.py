"""Rival ways of working with the same reasoner, so that a comparison changes nothing else.

Each is ours, in the manner of published work: faithful in kind, small, and without its authors' training,
prompts or models. A peer is an ordinary graph with the same input, output, trace and checkpoints as that of
`create_act2see`. It differs in its configuration and in its parts, which `adapt_peer` returns.

    chain-of-thought    the initial frames alone, no tools
    uniform-frames      more initial frames for the tokens that calls would take, no tools
    inserted-frames     key frames put into the chain at a fixed point, without a tag of the model
    cited-frames        frames numbered, the chain cites their numbers, no frame comes later
    caption-search      an agent that searches captions of clips, and sees one frame

A reasoner that was fine-tuned on calls, such as micro, has not learnt these ways: then a table says what the
way is worth to this reasoner, not what its authors reach.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from act2see.errors import ConfigError
from act2see.evaluation.peers.captions import CaptionSearch
from act2see.evaluation.peers.rollouts import InsertedFrames, NumberedFrames
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.sections import ToolConfig
from act2see.tools.plugins import make_tool


@dataclass(frozen=True, slots=True)
class Peer:
    """A rival way of working."""

    name: str
    about: str
    """What it does, for tables."""
    source: str
    """The work in whose manner it is."""


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "chain-of-thought",
            "plain chain of thought over the initial frames, tools off",
            "Wei et al., Chain-of-Thought Prompting, arXiv 2201.11903",
        ),
        Peer(
            "uniform-frames",
            "no tools; the tokens of calls go into more evenly spread frames",
            "the usual baseline of video models, such as Video-MME's, arXiv 2405.21075",
        ),
        Peer(
            "inserted-frames",
            "key frames inserted after the first stage of the chain, in the manner of ViTCoT",
            "ViTCoT, github.com/BRZ911/ViTCoT, src/ViTCoT_stage1.py and ViTCoT_stage2.py",
        ),
        Peer(
            "cited-frames",
            "numbered frames that the chain cites, in the manner of Chain-of-Frames",
            "Chain-of-Frames, arXiv 2506.00318, github.com/SaraGhazanfari/CoF, eval/utils.py",
        ),
        Peer(
            "caption-search",
            "captions of clips and a text-only search, in the manner of Deep Video Discovery",
            "Deep Video Discovery, arXiv 2505.18079, github.com/microsoft/DeepVideoDiscovery, dvd/",
        ),
    )
}
"""The peers by name."""


def create_peer(
    name: str,
    config: Config | str | None = None,
    *,
    parts: Parts | None = None,
    frames: int | None = None,
    clip_seconds: float = 10.0,
    checkpointer: Any = None,
) -> Graph:
    """Return the compiled graph of a peer, which is used as that of `create_act2see` is.

    Args:
        name: The peer.
        config: The configuration of Act2See that it is compared with; by default the preset `micro`.
        parts: The parts of that configuration, to share its models; by default new ones.
        frames: What `adapt_peer` takes.
        clip_seconds: What `adapt_peer` takes.
        checkpointer: Saves runs after each node.

    Raises:
        ConfigError: There is no such peer, or the configuration cannot be used.
    """
    adapted, own = adapt_peer(name, config, parts=parts, frames=frames, clip_seconds=clip_seconds)
    return create_act2see(adapted, parts=own, checkpointer=checkpointer)


def adapt_peer(
    name: str,
    config: Config | str | None = None,
    *,
    parts: Parts | None = None,
    frames: int | None = None,
    clip_seconds: float = 10.0,
) -> tuple[Config, Parts]:
    """Return the configuration and the parts of a peer, for `create_act2see`.

    Args:
        name: The peer.
        config: The configuration of Act2See that it is compared with; by default the preset `micro`.
        parts: The parts of that configuration, to share its models; by default new ones.
        frames: How many frames the peer may show. For `uniform-frames`, the initial frames; by default twice
            those of the configuration. For `inserted-frames`, the key frames; by default 1. Other peers show
            a fixed number.
        clip_seconds: The length of the clips that `caption-search` captions; DVD's is 10.

    Raises:
        ConfigError: There is no such peer, or the configuration cannot be used.
    """
    if name not in PEERS:
        raise ConfigError(f"there is no peer {name!r} (known: {', '.join(PEERS)})")
    if frames is not None and frames < 1:
        raise ConfigError(f"a peer must show at least one frame, not {frames}")
    settings = load_config(config)
    own = parts or build_parts(settings)
    adapted = settings.model_copy(
        update={
            "name": f"{settings.name}, {name}",
            "about": f"{PEERS[name].about} (ours)",
            "tools": {},
        }
    )
    bare = replace(own, tools={})
    if name == "chain-of-thought":
        return adapted, bare
    if name == "uniform-frames":
        return _spread_frames(adapted, frames), bare
    if name == "cited-frames":
        return adapted, replace(bare, reasoner=NumberedFrames(own.reasoner, settings.reasoner.prompt_style))
    if name == "inserted-frames":
        return _insert_frames(adapted, settings, own, frames or 1)
    return _search_captions(adapted, settings, own, clip_seconds)


def _spread_frames(adapted: Config, frames: int | None) -> Config:
    view = adapted.view
    if frames is None:
        twice = {"fps": 2 * view.fps, "frames": 2 * view.frames if view.frames else None}
        changes: dict[str, Any] = {**twice, "max_frames": 2 * view.max_frames}
    else:
        changes = {"frames": frames, "max_frames": frames}
    changes["choose"] = "evenly"
    return adapted.model_copy(update={"view": view.model_copy(update=changes)})


def _insert_frames(adapted: Config, settings: Config, own: Parts, frames: int) -> tuple[Config, Parts]:
    """Give the graph one call of `retrieve`, which the rule makes, and of which the model knows nothing.

    Key frames are always inserted, so the best ones come however little they match.
    """
    tag = _retrieving_tag(settings)
    tool = settings.tools.get(tag) or ToolConfig(use="retrieve")
    tool = tool.model_copy(
        update={"options": {**tool.options, "top_k": frames, "no_match": -1.0}, "approve": False}
    )
    made = make_tool(tool.use, tag, tool.options, own.resources, settings.folder)
    reasoner = InsertedFrames(own.reasoner, tag, made.usage, settings.reasoner.prompt_style, adapted.budget)
    budget = adapted.budget.model_copy(update={"calls": 1})
    adapted = adapted.model_copy(update={"tools": {tag: tool}, "budget": budget})
    return adapted, replace(own, tools={tag: made}, reasoner=reasoner)


def _search_captions(
    adapted: Config, settings: Config, own: Parts, clip_seconds: float
) -> tuple[Config, Parts]:
    """Show one frame, since a run must show one, and give the model the search instead of its tools.

    A model that was trained on a tag calls no other, so the search has the tag of `retrieve` if there is one.
    """
    tag = _retrieving_tag(settings) if settings.tools else "search"
    search = CaptionSearch(
        tag, own.reasoner, own.resources, settings.reasoner.prompt_style, clip_seconds, settings.index.fps
    )
    view = adapted.view.model_copy(update={"frames": 1, "max_frames": 1})
    # The first call of a video waits for its captions.
    path = f"{CaptionSearch.__module__}:{CaptionSearch.__name__}"
    tool = ToolConfig(use=path, options={"clip_seconds": clip_seconds}, timeout=float("inf"))
    adapted = adapted.model_copy(update={"view": view, "tools": {tag: tool}})
    return adapted, replace(own, tools={tag: search})


def _retrieving_tag(config: Config) -> str:
    """Return the tag of the configuration's `retrieve`."""
    return next((tag for tag, tool in config.tools.items() if tool.use == "retrieve"), "retrieve")
