"""OpenAI's wire format: rollouts keep their token ids, and stop strings are found in any chunking."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from act2see.agent.packing import Packer
from act2see.agent.reasoners.chat.reasoner import ChatModelReasoner
from act2see.agent.reasoners.chat.turns import Blocks, continuation_messages
from act2see.agent.rollout import ImagePiece, Rollout, TextPiece
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts
from act2see.serve.openai.rollout import RequestPictures, build_prompt
from act2see.serve.openai.wire import ProtocolError, StopStrings, read_request
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.weights import resolve_weights
from act2see.tools.video.store import frame_digest

QUESTION = (TextPiece("<|im_start|>user\n", "control"), TextPiece("<0.0 seconds>"))
BEGIN, END = TextPiece("<|vision_start|>", "control"), TextPiece("<|vision_end|>", "control")
ASSISTANT = TextPiece("<|im_end|>\n<|im_start|>assistant\n<think>\n", "control")


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer.from_pretrained(resolve_weights("micro:vlm"))


def request_body(rollout: Rollout, source: Any) -> bytes:
    """Return the request body that LangChain's OpenAI model sends for a rollout."""
    from langchain_openai import ChatOpenAI

    messages, plain = continuation_messages(rollout, Blocks(source))
    model = ChatOpenAI(model="m", api_key="none")  # type: ignore[arg-type]
    payload = model._get_request_payload(messages)
    return json.dumps({**payload, "continue_final_message": True, "plain_parts": plain}).encode()


def test_a_rollout_sent_over_the_wire_keeps_its_ids_and_pictures(packer: Packer) -> None:
    pixels = {
        frame_digest(p): p for p in np.random.default_rng(0).integers(0, 256, (3, 96, 144, 3), dtype=np.uint8)
    }
    a, b, c = (ImagePiece(FrameRef(digest=d, width=144, height=96, seconds=1.0)) for d in pixels)
    rollout = Rollout(
        (
            *QUESTION,
            BEGIN,
            a,
            END,
            TextPiece("<1.0 seconds>"),
            BEGIN,
            b,
            END,
            TextPiece("\nWhat? <|im_end|><think>\nTools: retrieve."),
            ASSISTANT,
            TextPiece("Second 0: <|im_end|> a ring. <retrieve>x</retrieve>", "model"),
            TextPiece("<frame>"),
            TextPiece("<3.7 seconds>"),
            BEGIN,
            c,
            END,
            TextPiece("It says </think><|vision_start|>.</frame>"),
            TextPiece(" So </think>\n<think>", "model"),
            TextPiece("</think>\n<answer>", "control"),
        )
    )
    pictures = RequestPictures()
    given = build_prompt(read_request(request_body(rollout, lambda ref: pixels[ref.digest])), pictures)
    ours, sent = packer.pack(rollout), packer.pack(given.rollout)
    assert sent.ids == ours.ids
    assert [f.digest for f in sent.images] == list(pixels)
    assert np.array_equal(pictures(c.frame), pixels[c.frame.digest])
    # Requests with the same beginning belong to one session. Pictures are freed with their request.
    again = build_prompt(
        read_request(request_body(Rollout(rollout.pieces[:12]), lambda ref: pixels[ref.digest])), pictures
    )
    assert again.rollout.session == given.rollout.session
    del given, again
    assert len(pictures) == 0


def test_a_chat_becomes_turns_and_control_tokens_in_text_stay_text(packer: Packer) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi <|im_end|>"},
        {"role": "assistant", "content": "<think>\nHm.</think>"},
        {"role": "user", "content": [{"type": "text", "text": "So?"}]},
    ]
    rollout = build_prompt(
        read_request(json.dumps({"model": "m", "messages": messages}).encode()), RequestPictures()
    ).rollout
    assert str(rollout) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi <|im_end|><|im_end|>\n"
        "<|im_start|>assistant\n<think>\nHm.</think><|im_end|>\n"
        "<|im_start|>user\nSo?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )
    end = packer.codec.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert packer.pack(rollout).ids.count(end) == 4


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": "m"}',
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
    ],
)
def test_an_invalid_body_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_request(body)
    assert caught.value.status == 400
    assert caught.value.body["error"]["message"]


def test_a_list_that_is_too_long_is_not_called_a_text() -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    for stop, says in (
        (["x"] * 17, "stop: List should have at most 16 items"),
        (["x", 5], "stop.1: Input should be a valid string"),
        (5, "stop: Input should be a valid"),
    ):
        with pytest.raises(ProtocolError) as caught:
            read_request(json.dumps({**chat, "stop": stop}).encode())
        assert says in str(caught.value)
        assert caught.value.param is not None


@settings(max_examples=200, deadline=None)
@given(
    st.text("ab<", max_size=24),
    st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3),
    st.integers(1, 5),
    st.booleans(),
)
def test_stop_strings_are_found_in_any_chunking(text: str, stops: list[str], size: int, keep: bool) -> None:
    reader = StopStrings(stops, keep)
    said = [reader.feed(text[i : i + size]) for i in range(0, len(text), size)]
    said.append(reader.rest())
    # The expected stop string is the first one that is complete, searched character by character.
    for end in range(1, len(text) + 1):
        if found := [s for s in stops if text[:end].endswith(s)]:
            longest = max(found, key=len)
            assert "".join(said) == text[: end if keep else end - len(longest)]
            assert reader.found == longest
            return
    assert ("".join(said), reader.found) == (text, None)


def test_the_examples_of_docs_models_md_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "none")
    text = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    chats = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.S) if "use: chat" in block]
    assert len(chats) >= 2
    for block in chats:
        (tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
        config = load_config(tmp_path / "mine.yaml", cache=str(tmp_path / "cache"))
        assert isinstance(build_parts(config).reasoner, ChatModelReasoner)
    bodies = [
        block for block in re.findall(r"```json\n(.*?)```", text, re.S) if "continue_final_message" in block
    ]
    assert [read_request(body.encode()).plain_parts for body in bodies] == [(2, 4)]


@pytest.mark.timeout(300)  # it starts a process that loads a model, which is slow on a busy machine
def test_the_command_serves_until_interrupted() -> None:
    command = [sys.executable, "-m", "act2see", "serve", "openai", "--port", "0", "--weights", "micro:vlm"]
    command += ["--allow-host", "a.example"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            name, _, rest = line.partition(" is at ")
            with urllib.request.urlopen(rest.split()[0] + "/models", timeout=10) as reply:
                models = json.load(reply)["data"]
            assert [name] == [m["id"] for m in models] == ["vlm"]
            for host, status in (("a.example", 200), ("b.example", 421)):
                request = urllib.request.Request(rest.split()[0] + "/models", headers={"host": host})
                try:
                    with urllib.request.urlopen(request, timeout=10) as reply:
                        answered = reply.status
                except urllib.error.HTTPError as e:
                    answered = e.code
                    e.close()
                assert answered == status
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
