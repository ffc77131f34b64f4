"""The board as an environment of `verifiers`, run by its own `vf-eval` with a model of OpenAI's protocol.

Skipped where `verifiers` is not installed: it pins another `mcp` than we do, so it lives in an environment of
its own (docs/evaluation.md).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from act2see.micro.questions import ToolCall, items
from tests.evaluation.seer import Policy, Seer, insist, look, serve_seer

INSTALLED = importlib.util.find_spec("verifiers") is not None
needs_verifiers = pytest.mark.skipif(not INSTALLED, reason="verifiers is not installed")
Rewards = list[tuple[dict[str, float], dict[str, float]]]


@pytest.mark.skipif(INSTALLED, reason="verifiers is installed")
def test_the_error_without_verifiers_names_the_command() -> None:
    from act2see.errors import ConfigError

    with pytest.raises(ConfigError, match="pip install verifiers"):
        importlib.import_module("act2see.evaluation.verifiers")


def run_vf_eval(policy: Policy, questions: int, folder: Path) -> tuple[Rewards, Seer]:
    """Return the rewards and metrics of each question in order, and the model with what it was sent."""
    with serve_seer(policy) as seer:
        command = [str(Path(sys.executable).with_name("vf-eval")), "act2see-board", "-n", str(questions)]
        command += ["-m", "seer", "--client.base-url", seer.url, "--client.api-key-var", "NONE", "-c", "1"]
        command += ["--env.agent.runtime.type", "subprocess", "--env.taskset.questions", str(questions)]
        command += ["--no-push", "--no-rich", "-o", str(folder), "--run.dir", "run"]
        env = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=folder, timeout=590)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    lines = [json.loads(line) for line in (folder / "run" / "traces.jsonl").read_text().splitlines()]
    traces: list[dict[str, Any]] = [trace for line in lines for trace in line.get("traces", [line])]
    assert len(traces) == questions, done.stdout[-3000:]
    assert not [trace["errors"] for trace in traces if trace.get("errors")]
    rewards = [{name: reward["score"] for name, reward in trace["rewards"].items()} for trace in traces]
    return list(zip(rewards, [trace["metrics"] for trace in traces], strict=True)), seer


@needs_verifiers
@pytest.mark.timeout(600)
def test_vf_eval_rewards_answers_form_and_calls(tmp_path: Path) -> None:
    results, seer = run_vf_eval(insist, 2, tmp_path)
    for (rewards, metrics), right in zip(results, (1, 0), strict=True):
        assert rewards == {"right": right, "form": 1, "calls": 1}
        assert (metrics["retrieved"], metrics["generated"]) == (1, 0)
    first, nothing, _, found = seer.requests  # the first video has no triangle
    assert {tool["function"]["name"] for tool in first["tools"]} == {"retrieve", "generate"}
    assert nothing["messages"][-1]["content"].startswith("No match")
    text, picture = found["messages"][-1]["content"][-2:]
    assert text["text"].startswith("A real frame at")
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")


@needs_verifiers
@pytest.mark.timeout(600)
def test_the_frames_of_both_tools_reach_a_model_that_looks(tmp_path: Path) -> None:
    asked = list(items(8, "test"))
    results, seer = run_vf_eval(look, len(asked), tmp_path)
    for item, (rewards, metrics) in zip(asked, results, strict=True):
        assert rewards == {"right": 1, "form": 1, "calls": 1}, item.text
        assert metrics["retrieved"] == item.needed.count("retrieve")
        assert metrics["generated"] == item.needed.count("generate")
    calls = [step for item in asked for step in item.chain if isinstance(step, ToolCall)]
    imagined = [board for _, board in seer.shown("NOT IN THE VIDEO: ")]
    expected = [call.expect for call in calls if call.tag == "generate"]
    assert len(expected) == 3
    assert [board.ordered() for board in imagined] == [board.ordered() for board in expected]
    assert [board.tipped for board in imagined] == [board.tipped for board in expected]
