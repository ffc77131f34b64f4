"""The peers on a board clip, with the real micro models: used as our graph is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from act2see.agent.reasoners.base import Delta, Done, Request, WrappedReasoner
from act2see.errors import ConfigError
from act2see.evaluation.peers import PEERS, adapt_peer, create_peer
from act2see.evaluation.peers.captions import CaptionSearch
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.run import aask
from act2see.graphs.state import AskContext
from act2see.micro.questions import Item, make_item
from act2see.micro.world import write_clip
from act2see.trace.record import Frames, Text
from act2see.trace.trace import Trace


class Recording(WrappedReasoner):
    """Keeps what the model reads."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts.reasoner)
        self.read: list[str] = []

    def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        self.read.append(str(request.rollout))
        return self.reasoner.stream(request)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return load_config("micro", cache=str(tmp_path_factory.mktemp("cache")), budget={"seconds": 3600})


@pytest.fixture(scope="module")
def parts(config: Config) -> Parts:
    return build_parts(config)


@pytest.fixture(scope="module")
def item() -> Item:
    return make_item("blink", 0, "test")


@pytest.fixture(scope="module")
def clip(item: Item, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_clip(item.clip, path)
    return path


async def ask(
    name: str,
    config: Config,
    parts: Parts,
    clip: Path,
    item: Item,
    frames: int | None = None,
    tokens: int | None = None,
) -> tuple[Trace, list[str]]:
    """Return the trace of a peer, and what the model read at each visit. `tokens` keeps the chain short."""
    recording = Recording(parts)
    graph = create_peer(name, config, parts=replace(parts, reasoner=recording), frames=frames)
    trace = await aask(graph, clip, item.text, item.options, context=AskContext(max_tokens=tokens))
    assert trace.answer is not None
    assert not trace.refused
    assert Trace.from_json(trace.to_json(), "the trace") == trace
    return trace, recording.read


async def test_chain_of_thought_has_the_initial_frames_alone(
    config: Config, parts: Parts, clip: Path, item: Item
) -> None:
    trace, read = await ask("chain-of-thought", config, parts, clip, item, tokens=20)
    assert [frame.seconds for frame in trace.initial] == [0, 1, 2, 3, 4, 5]
    assert not trace.calls
    assert "Tools: none." in read[0]


async def test_uniform_frames_are_spread_over_the_clip(
    config: Config, parts: Parts, clip: Path, item: Item
) -> None:
    trace, _ = await ask("uniform-frames", config, parts, clip, item, frames=9, tokens=20)
    # The middles of nine equal parts of 6 s, at the 12 frames a second of the clip.
    assert [round(frame.seconds, 2) for frame in trace.initial] == [
        0.33, 1.0, 1.67, 2.33, 3.0, 3.67, 4.33, 5.0, 5.67
    ]  # fmt: skip
    assert not trace.calls


async def test_frames_are_inserted_without_a_tag_that_the_model_sees(
    config: Config, parts: Parts, clip: Path, item: Item
) -> None:
    trace, read = await ask("inserted-frames", config, parts, clip, item, frames=2)
    [call] = trace.calls
    assert call.query == item.text
    assert isinstance(first := trace.segments[0], Text)
    assert first.text.count(":") >= 6  # a description of each initial frame comes first
    assert [len(s.frames) for s in trace.segments if isinstance(s, Frames)] == [2]
    assert len(read) == 2
    assert all("Tools: none." in text and "retrieve" not in text for text in read)
    assert f"{first.text}<frame>" in read[1]


async def test_cited_frames_are_numbered(config: Config, parts: Parts, clip: Path, item: Item) -> None:
    trace, read = await ask("cited-frames", config, parts, clip, item, tokens=20)
    assert "Frame1: <0.0 seconds>" in read[0]
    assert "Frame6: <5.0 seconds>" in read[0]
    assert "Frame7" not in read[0]
    assert not trace.calls


async def test_the_searching_agent_reads_captions_and_sees_one_frame(
    config: Config, parts: Parts, clip: Path, item: Item
) -> None:
    recording = Recording(parts)
    adapted, own = adapt_peer(
        "caption-search", config, parts=replace(parts, reasoner=recording), clip_seconds=4.0
    )
    trace = await aask(create_act2see(adapted, parts=own), clip, item.text, item.options)
    assert len(trace.shown) == 1
    [reply] = [s for s in trace.segments if isinstance(s, Frames)]
    assert not reply.frames
    lines = reply.note.splitlines()
    assert [line.partition("]")[0] for line in lines] == [
        "[From 0.0 to 3.7 seconds",
        "[From 4.0 to 5.7 seconds",
    ]
    # The blink, at 0.33 s, is in the caption: the captioner sees 3 frames a second.
    assert "lit triangle glowing red" in lines[0]
    search = own.tools["retrieve"]
    assert isinstance(search, CaptionSearch)
    assert [*search.tokens] == [trace.video.digest]
    assert search.tokens[trace.video.digest] > 18 * 9  # 18 frames of nine vision tokens
    written = len(recording.read)
    assert [caption.line for caption in await search.captions(str(clip))] == lines
    assert len(recording.read) == written  # captions are written once


def test_peers_share_the_models_and_differ_in_their_hash(config: Config, parts: Parts) -> None:
    hashes = set()
    for name in PEERS:
        adapted, own = adapt_peer(name, config, parts=parts)
        inner = own.reasoner.reasoner if isinstance(own.reasoner, WrappedReasoner) else own.reasoner
        assert inner is parts.reasoner
        assert own.resources is parts.resources
        hashes.add(adapted.hash)
        assert adapted.name == f"micro, {name}"
        assert PEERS[name].source
    # Plain and cited chains have the same configuration: their reasoners' names differ.
    assert len(hashes) == len(PEERS) - 1
    assert config.hash not in hashes


def test_key_frames_are_inserted_however_little_they_match(config: Config, parts: Parts) -> None:
    adapted, _ = adapt_peer("inserted-frames", config, parts=parts, frames=3)
    assert adapted.tools["retrieve"].options == {"top_k": 3, "no_match": -1.0}  # the least cosine
    assert adapted.budget.calls == 1


def test_uniform_frames_are_twice_as_many_by_default(config: Config, parts: Parts) -> None:
    view = adapt_peer("uniform-frames", config, parts=parts)[0].view
    assert (view.fps, view.max_frames, view.choose) == (2.0, 24, "evenly")


def test_an_unknown_peer_and_no_frames_are_refused(config: Config, parts: Parts) -> None:
    with pytest.raises(ConfigError, match=r"no peer 'gemini' .known: chain-of-thought, "):
        create_peer("gemini", config, parts=parts)
    with pytest.raises(ConfigError, match="at least one frame, not 0"):
        create_peer("uniform-frames", config, parts=parts, frames=0)
