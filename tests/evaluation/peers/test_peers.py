"""The peers on a board clip, with the real micro models: used as our graph is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from act2see.agent.reasoners.base import Delta, Done, Request, WrappedReasoner
from act2see.errors import BenchmarkError, ConfigError
from act2see.evaluation.peers import PEERS, adapt_peer, captions, create_peer
from act2see.evaluation.peers.arms import PeerArm, find_way, make_arm
from act2see.evaluation.peers.captions import CaptionSearch
from act2see.graphs.ask import AskBuilder, create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.run import aask
from act2see.micro.questions import Item, make_item
from act2see.micro.world import write_clip
from act2see.trace.record import Frames, Text


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


async def test_frames_are_inserted_without_a_tag_that_the_model_sees(
    config: Config, parts: Parts, clip: Path, item: Item
) -> None:
    recording = Recording(parts)
    graph = create_peer("inserted-frames", config, parts=replace(parts, reasoner=recording), frames=2)
    trace, read = await aask(graph, clip, item.text, item.options), recording.read
    assert trace.answer is not None
    assert [frame.seconds for frame in trace.initial] == [0, 1, 2, 3, 4, 5]
    [call] = trace.calls
    assert call.query == item.text
    assert isinstance(first := trace.segments[0], Text)
    assert first.text.count(":") >= 6  # a description of each initial frame comes first
    assert [len(s.frames) for s in trace.segments if isinstance(s, Frames)] == [2]
    assert len(read) == 2
    assert all("Tools: none." in text and "retrieve" not in text for text in read)
    assert f"{first.text}<frame>" in read[1]


async def test_the_searching_agent_reads_captions_and_sees_one_frame(
    config: Config, parts: Parts, clip: Path, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captions, "_TOKENS", 40)  # the beginning of each caption is enough
    recording = Recording(parts)
    adapted, own = adapt_peer(
        "caption-search", config, parts=replace(parts, reasoner=recording), clip_seconds=4.0
    )
    trace = await aask(create_act2see(adapted, parts=own), clip, item.text, item.options)
    assert len(trace.shown) == 1
    reply = next(s for s in trace.segments if isinstance(s, Frames))
    assert not reply.frames
    lines = reply.note.splitlines()
    assert [line.partition("]")[0] for line in lines] == [
        "[From 0.0 to 3.7 seconds",
        "[From 4.0 to 5.7 seconds",
    ]
    assert "center ring orange, east cross green" in lines[0]
    search = own.tools["retrieve"]
    assert isinstance(search, CaptionSearch)
    assert [*search.tokens] == [trace.video.digest]
    assert search.tokens[trace.video.digest] > 18 * 9  # 18 frames of nine vision tokens
    assert search.take_tokens(trace.video.digest) == search.tokens[trace.video.digest]
    assert search.take_tokens(trace.video.digest) == 0  # counted once
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


def test_an_arm_keeps_the_number_of_frames_that_a_benchmark_shows(config: Config, parts: Parts) -> None:
    def shown(way: str, frames: int | None, of_benchmark: int | None) -> tuple[int | None, int]:
        arm = PeerArm(way, config, parts=parts, frames=frames)
        builder = arm._graph(of_benchmark).builder
        assert isinstance(builder, AskBuilder)
        view = builder.config.view
        return view.frames, view.max_frames

    assert shown("chain-of-thought", None, 3) == (3, 3)
    assert shown("cited-frames", None, None) == (None, 12)
    assert shown("uniform-frames", None, 3) == (6, 6)  # twice as many
    assert shown("uniform-frames", 9, 3) == (9, 9)  # the budget of the question goes first
    assert shown("caption-search", None, 3) == (1, 1)


def test_ways_are_found_by_the_beginnings_of_their_names(config: Config) -> None:
    assert find_way("cited") == "cited-frames"
    arm = make_arm(config, "caption", "board")
    assert (arm.name, arm.config.tools["retrieve"].options) == (
        "micro-caption-search",
        {"clip_seconds": 2.0},
    )
    assert make_arm(config).config == config
    with pytest.raises(BenchmarkError, match=r"no way of working 'c' .known: chain-of-thought, "):
        find_way("c")
