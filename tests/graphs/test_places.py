"""Paths and caches after a change of the working folder or of `ACT2SEE_CACHE`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from act2see.errors import VideoError, WaitingError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.fork import areplay
from act2see.graphs.long_video.graph import create_long_video
from act2see.graphs.parts import build_parts, cached_parts
from act2see.graphs.run import aask, aresume
from act2see.graphs.state import AskContext
from act2see.tools.frames import FrameRef
from act2see.tools.video.store import FrameStore, default_cache
from act2see.tools.video.window import absolute_path
from act2see.trace.folder import find_video, save_folder
from act2see.trace.trace import Trace
from tests.graphs.doubles import Scripted, clip_in, parts_in


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another working folder. The test starts in `tmp_path`, and must leave no file in `elsewhere`."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    yield folder
    assert not list(folder.iterdir())


def test_paths_in_a_file_are_relative_to_its_folder(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "conf"
    (place / "tuned").mkdir(parents=True)
    (place / "mine.yaml").write_text(
        "preset: paper\ncache: kept\nstore: ../frames\nreasoner: {weights: tuned, adapter: ./sft}\n"
        "encoder: {weights: ~/encoder}\ntools: {generate: {options: {weights: ./sd}}}\n"
    )
    monkeypatch.chdir(elsewhere)
    config = load_config(os.path.relpath(place / "mine.yaml"))
    assert (config.cache, config.store) == (str(place / "kept"), str(tmp_path / "frames"))
    assert (config.reasoner.weights, config.reasoner.adapter) == (str(place / "tuned"), str(place / "sft"))
    assert config.encoder.weights == str(Path.home() / "encoder")
    assert config.tools["generate"].options["weights"] == str(place / "sd")
    assert load_config(config) == config


def test_paths_in_data_are_relative_to_the_working_folder(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("micro", cache="kept", store="file://frames", reasoner={"adapter": "./sft"})
    monkeypatch.chdir(elsewhere)
    assert (config.cache, config.store) == (str(tmp_path / "kept"), f"file://{tmp_path / 'frames'}")
    assert config.reasoner.adapter == str(tmp_path / "sft")
    assert load_config(config) == config


def test_names_that_are_not_paths_are_unchanged(tmp_path: Path) -> None:
    config = load_config(
        "micro",
        store="memory://frames",
        reasoner={"adapter": "owner/lora"},
        encoder={"weights": "owner/name"},
    )
    assert (config.store, config.reasoner.adapter, config.encoder.weights) == (
        "memory://frames",
        "owner/lora",
        "owner/name",
    )
    assert config.reasoner.weights == "micro:vlm"
    # On a server these are names: the docs call an adapter `./sft` there.
    server = load_config(
        "paper", reasoner={"use": "vllm-http", "weights": "./m", "adapter": "./sft"}
    ).reasoner
    assert (server.weights, server.adapter) == ("./m", "./sft")
    assert load_config("api", reasoner={"weights": "./m"}).reasoner.weights == "./m"


async def test_a_graph_writes_where_its_config_said_when_it_was_read(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("micro", cache="kept", store="frames", view={"guard": None})
    monkeypatch.chdir(elsewhere)
    parts = replace(build_parts(config), reasoner=Scripted("So.</think><answer>B</answer>"))
    await aask(create_act2see(config, parts=parts), clip_in(tmp_path), "What?", context=AskContext(tools=()))
    assert list((tmp_path / "kept" / "videos").iterdir())
    assert list((tmp_path / "frames").rglob("*.png"))


def test_another_cache_gives_other_parts_with_the_same_models(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("micro")
    before = cached_parts(config)
    monkeypatch.setenv("ACT2SEE_CACHE", "one")
    one = cached_parts(config)
    assert cached_parts(config) is one
    monkeypatch.chdir(elsewhere)
    other = cached_parts(config)
    places = [p.resources.finder.cache for p in (before, one, other)]
    assert places[1:] == [tmp_path / "one", elsewhere / "one"]
    assert len({*places}) == len({p.resources.store.url for p in (before, one, other)}) == 3
    assert before.resources.finder.encoder is one.resources.finder.encoder is other.resources.finder.encoder
    assert one.reasoner is not other.reasoner  # it reads pixels from its store
    monkeypatch.chdir(tmp_path)
    assert cached_parts(config) is one


def test_a_config_made_by_hand_has_parts_by_its_place(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(**{**load_config("micro").model_dump(), "cache": "kept", "store": "frames"})
    here = cached_parts(config)
    monkeypatch.chdir(elsewhere)
    assert cached_parts(config) is not here
    assert here.resources.finder.cache == tmp_path / "kept"
    assert here.resources.store.url == str(tmp_path / "frames")


def test_a_store_and_the_default_cache_are_absolute(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FrameStore("frames")
    monkeypatch.setenv("ACT2SEE_CACHE", "cache")
    assert default_cache() == tmp_path / "cache"
    monkeypatch.delenv("ACT2SEE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg")
    assert default_cache() == tmp_path / "xdg" / "act2see"
    monkeypatch.chdir(elsewhere)
    assert store.url == store.location == str(tmp_path / "frames")


LINES = "I look. <retrieve>the blink</retrieve>", "So.</think><answer>B</answer>"


async def test_a_relative_video_is_asked_again_and_resumed_elsewhere(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clip_in(tmp_path)
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    graph = create_act2see(config, checkpointer=InMemorySaver(), parts=parts)
    trace = await aask(graph, "clip.mp4#t=0,2", "What?")
    assert trace.video.path == f"{clip}#t=0,2"
    with pytest.raises(WaitingError):
        await aask(graph, "clip.mp4", "What?", context=AskContext(approve=("retrieve",)), thread_id="waits")
    monkeypatch.chdir(elsewhere)
    assert (await areplay(graph, trace)).answer == "B"
    assert (await aresume(graph, "waits", decision={"type": "accept"})).shown[-1].seconds == pytest.approx(
        4 / 12, abs=0.01
    )


async def test_a_relative_long_video(tmp_path: Path, elsewhere: Path) -> None:
    clip = clip_in(tmp_path, 6)
    config, parts = parts_in(tmp_path, Scripted("So.</think><answer>B</answer>"))
    graph = create_long_video(config, {"seconds": 3}, parts=parts)
    result = await graph.ainvoke({"video": "clip.mp4", "question": "What?"})
    paths = [Trace.model_validate(t).video.path for t in result["traces"]]
    assert len(paths) > 1
    assert {p.partition("#")[0] for p in paths} == {clip}


def test_case_and_links_do_not_lead_to_another_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a/b")
    monkeypatch.chdir(tmp_path)
    assert absolute_path("./a/../clip.mp4#t=2,8") == f"{tmp_path}/clip.mp4#t=2,8"
    assert absolute_path("link/../clip.mp4") == f"{tmp_path}/link/../clip.mp4"  # a/clip.mp4
    assert absolute_path("/x/clip.mp4") == "/x/clip.mp4"


@pytest.mark.parametrize(
    "path", ["{clip}", "{clip}#t=0,2", "clip.mp4", "clip.mp4#t=0,2", r"C:\videos\clip.mp4"]
)
@pytest.mark.parametrize("moved", ["moved", "moved/videos"])
async def test_a_trace_that_is_moved_with_its_clip(
    tmp_path: Path, path: str, moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clip_in(tmp_path)
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    graph = create_act2see(config, parts=parts)
    given = path.format(clip=clip)
    _, mark, part = given.partition("#")
    trace = await aask(graph, f"{clip}{mark}{part}", "What?")
    saved_video = trace.video.model_copy(update={"path": given})
    trace = trace.model_copy(update={"video": saved_video})

    def pixels(frame: FrameRef) -> object:
        return parts.resources.store.get(frame.digest)

    save_folder(trace, tmp_path / "run", pixels)  # type: ignore[arg-type]
    (tmp_path / moved).mkdir(parents=True)
    shutil.move(tmp_path / "run", tmp_path / moved / "run")
    shutil.move(clip, tmp_path / moved / "clip.mp4")
    monkeypatch.chdir("/")
    saved = tmp_path / moved / "run"
    found = find_video(Trace.load(saved), saved)
    assert found.video.path == f"{tmp_path}/{moved}/clip.mp4{mark}{part}"
    assert (await areplay(graph, found)).answer == "B"


async def test_another_video_of_the_same_name_is_not_taken(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    trace = Trace.model_validate(
        {
            "id": "1",
            "video": {
                "path": "clip.mp4",
                "digest": "0" * 32,
                "seconds": 1,
                "width": 1,
                "height": 1,
                "frames": 1,
                "fps": 1,
            },
            "question": {"text": "What?"},
        }
    )
    trace.save(tmp_path / "trace.json")
    clip_in(tmp_path)
    found = find_video(trace, tmp_path / "trace.json")
    assert found.video.path == "clip.mp4"
    with pytest.raises(VideoError, match="the trace's video is needed"):
        await areplay(create_act2see(config, parts=parts), found)
