"""Gemini's agentic video mode over HTTP, with a server that has the protocol of Google's page."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from act2see.errors import ConfigError, QuestionError, ReasonerError, SetupError, VideoError
from act2see.evaluation.asking import Question
from act2see.evaluation.peers.arms import make_arm
from act2see.evaluation.peers.gemini import GeminiArm
from act2see.graphs.config import Config, load_config
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.trace.record import Frames, Text
from act2see.trace.trace import Trace
from tests.evaluation.peers.interactions_server import InteractionsServer, completed, interactions_server


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_clip(make_item("blink", 0, "test").clip, path)
    return path


def config_of(server: InteractionsServer, tmp_path: Path) -> Config:
    options = {"base_url": server.url, "google_api_key": "mine"}
    reasoner = {"use": "chat", "weights": "google_genai:gemini-x", "options": options, "prompt": "zero-shot"}
    return load_config({"preset": "micro", "reasoner": reasoner, "cache": str(tmp_path / "cache")})


async def test_a_small_file_goes_with_the_question(clip: Path, tmp_path: Path) -> None:
    with interactions_server(completed("It glows. <answer>B</answer>")) as server:
        arm = make_arm(config_of(server, tmp_path), "gemini")
        trace = await arm.ask(Question(str(clip), "Which?", ("ring", "cross"), name="q"))
        await arm.close()
    [asked] = server.asked
    video, text = asked.pop("input")
    assert asked == {"model": "gemini-x", "store": False}
    data = base64.b64encode(clip.read_bytes()).decode()
    assert video == {"type": "video", "data": data, "mime_type": "video/mp4", "processing": "agentic"}
    assert text["text"].startswith("Which?\nA. ring\nB. cross\nThink step by step.")
    assert (server.calls, server.keys) == (["POST /v1beta/interactions"], ["mine"])
    assert (trace.id, trace.answer, trace.shown) == ("q", "B", ())
    assert [call.tag for call in trace.calls] == ["processing"]
    first, _, looked, *_ = trace.segments
    assert isinstance(first, Text)
    assert first.text.startswith("Loading visual frames")
    assert isinstance(looked, Frames)
    assert "does not say which" in looked.note
    [loop] = trace.usage.loops
    assert (loop.prefilled, loop.cached, loop.decoded, loop.thinking) == (2100, 20, 9, 300)
    assert arm.name == "micro-gemini-agentic"
    assert Trace.from_json(trace.to_json(), "the trace") == trace


async def test_a_large_file_is_uploaded_once_and_deleted(clip: Path, tmp_path: Path) -> None:
    with interactions_server(completed("<answer>A</answer>")) as server:
        arm = GeminiArm(config_of(server, tmp_path), "gemini", inline=100, poll=0.0)
        for _ in range(2):
            await arm.ask(Question(str(clip), "Which?"))
        assert server.files == {"files/1": clip.read_bytes()}
        video = {"type": "video", "uri": "https://at/1", "mime_type": "video/mp4", "processing": "agentic"}
        assert [asked["input"][0] for asked in server.asked] == [video, video]
        await arm.close()
        assert server.files == {}
    assert server.calls == [
        "POST /upload/v1beta/files",
        "POST /to?upload_id=1",
        "GET /v1beta/files/1",
        "POST /v1beta/interactions",
        "POST /v1beta/interactions",
        "DELETE /v1beta/files/1",
    ]
    assert server.keys == ["mine", None, *["mine"] * 4]  # the named address does not get the key


async def test_what_fails_says_what_to_do(clip: Path, tmp_path: Path) -> None:
    question = Question(str(clip), "Which?")
    refused = 403, {"error": {"code": 403, "message": "no access", "status": "PERMISSION_DENIED"}}
    failed = completed("", status="failed", steps=[])
    broken = completed("", steps=[{"type": "model_output", "error": {"code": 13, "message": "internal"}}])
    with interactions_server(refused, failed, broken) as server:
        arm = GeminiArm(config_of(server, tmp_path), "gemini", inline=100, poll=0.0)
        small = GeminiArm(arm_config := config_of(server, tmp_path), "gemini")
        for kind, words in (
            (SetupError, "no access: check the key and its rights"),
            (ReasonerError, "the interaction ended as 'failed'"),
            (ReasonerError, "gemini-x: internal"),
        ):
            with pytest.raises(kind, match=words):
                await small.ask(question)
        with pytest.raises(QuestionError, match="takes whole files only"):
            await small.ask(Question(f"{clip}#t=1,2", "Which?"))
        server.state = "FAILED"
        with pytest.raises(VideoError, match=r"could not be prepared by Gemini .FAILED."):
            await arm.ask(question)
        server.files.clear()
    with pytest.raises(ConfigError, match="needs a Gemini as the reasoner, not 'micro:vlm'"):
        make_arm(load_config("micro"), "gemini")
    assert arm_config.hash != small.config.hash


def test_a_missing_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    reasoner = {"use": "chat", "weights": "google_genai:gemini-x"}
    config = load_config({"preset": "micro", "reasoner": reasoner, "cache": str(tmp_path)})
    with pytest.raises(ConfigError, match="no key: export GOOGLE_API_KEY="):
        GeminiArm(config, "gemini")
    monkeypatch.setenv("GEMINI_API_KEY", "other")
    assert GeminiArm(config, "gemini").model == "gemini-x"
