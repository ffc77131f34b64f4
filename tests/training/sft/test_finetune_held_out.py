"""Evaluation during training: held-out questions through the real graph, and the model card."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.training.rollouts import QUICK, draw_trace

from act2see.errors import ConfigError
from act2see.graphs.config import load_config
from act2see.micro.questions import FAMILIES
from act2see.micro.source import load_world
from act2see.micro.study.evaluate import micro_config
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Answer
from act2see.trace.trace import Trace
from act2see.training.sft.finetune import finetune
from act2see.training.sft.held_out import GraphEvaluation, Scores, add_scores, questions_of
from act2see.training.sft.result import SftResult, model_card
from act2see.training.sft.settings import SftSettings


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return FrameStore(tmp_path_factory.mktemp("frames"))


def test_held_out_questions_are_asked_through_the_graph(store: FrameStore, tmp_path: Path) -> None:
    """One small step hardly changes the shipped model, so it answers and calls before and after training."""
    questions = list(load_world(4, tmp_path, seed=7))
    settings = QUICK.model_copy(
        update={
            "base": "micro:vlm",
            "max_steps": 1,
            "learning_rate": 1e-6,
            "eval_samples": 1,
            "eval_steps": 1,
        }
    )
    traces = [draw_trace(f, store) for f in FAMILIES]
    config = micro_config(None, tmp_path / "cache")
    result = finetune(
        traces, store, tmp_path / "out", settings, graph=config, questions=questions, corpus="boards"
    )
    assert (result.samples, result.held_out) == (3, 1)
    accuracy, calls = result.series("eval_accuracy"), result.series("eval_call_rate")
    assert [step for step, _ in accuracy] == [0, 1]
    assert all(0.5 <= rate <= 1 for _, rate in accuracy)
    assert all(0 < rate < 1 for _, rate in calls)
    assert result.series("eval_questions") == [(0, 4.0), (1, 4.0)]
    assert [step for step, _ in result.series("eval_loss")] == [0, 1]
    assert result.graph == "micro"

    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "peft"
    assert "The graph `micro` answered 4 questions" in card
    assert "| step | accuracy | call rate | calls | loss |" in card
    config_yaml = card.split("```yaml\n")[2].split("```")[0]
    loaded = load_config(yaml.safe_load(config_yaml))
    assert (loaded.reasoner.weights, loaded.reasoner.adapter) == ("micro:vlm", str(tmp_path / "out"))
    assert SftSettings.read(yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])) == settings


def test_missing_videos_are_reported_before_training(store: FrameStore, tmp_path: Path) -> None:
    questions = questions_of([draw_trace("observe", store)])
    with pytest.raises(
        ConfigError, match=r"1 of 1 held-out questions have no video \(observe-0: observe-0.mp4\)"
    ):
        GraphEvaluation(questions, micro_config(None, tmp_path), "micro:vlm")


def test_right_answers_of_held_out_questions(store: FrameStore) -> None:
    trace = draw_trace("observe", store)
    question = questions_of([trace])[0]
    assert question.answer == trace.choice

    def answer(body: str) -> str | None:
        segments = (Answer(text=f"<answer>{body}</answer>", body=body),)
        return trace.model_copy(update={"segments": segments}).answer

    wrong = next(o for o in question.options if o != question.answer)
    assert question.is_right(answer(question.answer))
    assert question.is_right(answer("ABCD"[question.options.index(question.answer)]))
    assert not question.is_right(answer(wrong))
    assert not question.is_right(answer(""))
    free = question.model_copy(update={"options": (), "answer": "The ring"})
    assert free.is_right(answer("the ring."))
    assert not free.is_right(answer("a ring"))


def test_scores_of_processes_add_up() -> None:
    total = add_scores([Scores(1, 1, 1, 2), Scores(1, 0, 0, 0), Scores(1, failed=1), Scores(1, 1, 1, 1)])
    metrics = total.metrics(1.0)
    assert (metrics["eval_accuracy"], metrics["eval_call_rate"], metrics["eval_calls"]) == (0.5, 0.5, 0.75)
    assert (metrics["eval_questions"], metrics["eval_failed"]) == (4.0, 1.0)


def test_whole_videos_are_held_out(store: FrameStore) -> None:
    from act2see.agent.packing import Packer
    from act2see.tools.runtime.weights import resolve_weights
    from act2see.training.sft.samples import Reader, read_samples

    traces = [draw_trace(f, store, n) for f in FAMILIES for n in range(2)]
    same = [t.model_copy(update={"id": f"{t.id}-again"}) for t in traces]
    reader = Reader(Packer.from_pretrained(resolve_weights("micro:base")), "short")
    found = read_samples([*traces, *same], reader, QUICK.model_copy(update={"eval_samples": 3}), 4096)
    assert len(found.held_out) == 4
    held = {t.video.digest for t in found.held_out}
    assert len(held) == 2
    assert not held & {Trace.from_json(line).video.digest for line in found.lines}
    again = read_samples([*traces, *same], reader, QUICK.model_copy(update={"eval_samples": 3}), 4096)
    assert [t.id for t in again.held_out] == [t.id for t in found.held_out]


def test_a_long_history_is_thinned_in_the_card() -> None:
    history = tuple({"loss": 1.0 / (n + 1), "step": float(n)} for n in range(1000))
    result = SftResult(base={"name": "Qwen/Qwen3-VL-8B-Thinking"}, settings=SftSettings(), history=history)  # type: ignore[arg-type]
    card = model_card(result)
    rows = [line for line in card.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert len(rows) <= 26
    assert rows[0].startswith("| 0 |")
    assert rows[-1].startswith("| 999 |")
    assert "base_model: Qwen/Qwen3-VL-8B-Thinking" in card
