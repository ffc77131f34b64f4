"""Configurations: presets, merging, and errors that name the key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from act2see.errors import ConfigError, WeightsError
from act2see.graphs.config import PRESETS, Config, load_config, preset_data
from act2see.graphs.parts import build_parts
from act2see.graphs.state import AskContext, run_context

# Hub names are resolved when a model is loaded, and none is loaded here.
HUB = {"reasoner": {"weights": "owner/vlm"}, "encoder": {"weights": "owner/encoder"}}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load_and_survive_yaml(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert config.name == name
    assert set(config.tools) == {"retrieve", "generate"}
    path = tmp_path / "mine.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(path) == config
    assert load_config(str(path)).hash == config.hash
    assert load_config(config) == config
    assert load_config(preset_data(name)) == config


def test_the_default_configuration_is_the_micro_preset() -> None:
    assert load_config() == load_config("micro")


def test_a_file_starts_from_a_preset_and_changes_single_keys(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "preset: micro\nbudget: {calls: 2}\ntools: {retrieve: {options: {top_k: 3}}}\n", encoding="utf-8"
    )
    base, mine = load_config("micro"), load_config(path)
    assert mine.budget == base.budget.model_copy(update={"calls": 2})
    assert mine.tools["retrieve"].options == {"top_k": 3}
    assert mine.tools["retrieve"].use == "retrieve"
    assert mine.tools["generate"] == base.tools["generate"]
    assert mine.reasoner == base.reasoner


def test_changes_are_merged_last_and_leave_the_source_alone() -> None:
    data = {"preset": "micro", "budget": {"calls": 2, "tokens": 50}}
    config = load_config(data, budget={"calls": 1}, seed=7)
    assert (config.budget.calls, config.budget.tokens, config.seed) == (1, 50, 7)
    assert data == {"preset": "micro", "budget": {"calls": 2, "tokens": 50}}
    base = load_config("micro")
    assert load_config(base, seed=7).budget == base.budget


def test_another_tool_under_a_tag_drops_the_old_ones_options() -> None:
    config = load_config("micro", tools={"generate": {"use": "retrieve"}})
    assert config.tools["generate"].options == {}
    kept = load_config("micro", tools={"generate": {"use": "generate", "options": {"steps": 3}}})
    assert kept.tools["generate"].options == {**load_config("micro").tools["generate"].options, "steps": 3}


def test_another_engine_keeps_the_runs_settings_and_drops_the_old_engines() -> None:
    base = load_config(
        "paper", reasoner={"prompt": "short", "temperature": 0.6, "top_p": 0.9, "adapter": "owner/lora"}
    )
    chat = load_config(
        base, reasoner={"use": "chat", "weights": "openai:m", "options": {"max_retries": 0}}
    ).reasoner
    assert (chat.prompt, chat.temperature, chat.top_p, chat.rows) == ("short", 0.6, 0.9, 1)
    assert (chat.options, chat.adapter, chat.dtype) == ({"max_retries": 0}, None, "auto")
    # And back: this engine does not take the options and the `continuation` of the other.
    back = load_config({"preset": "api", "reasoner": {"options": {"max_retries": 0}, "continuation": True}})
    local = load_config(back, reasoner={"use": "transformers", "weights": "owner/vlm"}).reasoner
    assert (local.options, local.continuation, local.prompt) == ({}, False, "auto")
    assert (
        load_config("micro", reasoner={"use": "chat", "weights": "openai:micro"}).reasoner.prompt == "short"
    )
    with pytest.raises(ConfigError, match=r"reasoner\.weights"):
        load_config("micro", reasoner={"use": "chat"})


def test_another_encoder_or_tool_keeps_the_runs_settings() -> None:
    encoder = load_config(
        load_config("micro", encoder={"batch": 4}), encoder={"use": "transformers", "weights": "owner/clip"}
    ).encoder
    assert (encoder.batch, encoder.device, encoder.dtype) == (4, "auto", "auto")
    settings = {"timeout": 5, "retries": 0, "max_frames": 2, "approve": True}
    base = load_config("micro", tools={"generate": settings})
    tool = load_config(base, tools={"generate": {"use": "retrieve", "retries": 2}}).tools["generate"]
    assert tool.model_dump() == {**settings, "use": "retrieve", "options": {}, "retries": 2}


def test_the_default_engine_by_name_is_the_same_engine() -> None:
    # The micro preset does not say `use: blip2`, which is the default.
    assert load_config("micro", encoder={"use": "blip2"}) == load_config("micro")
    assert load_config(
        {"reasoner": {"weights": "a/b"}, "encoder": {"weights": "c/d"}}, reasoner={"use": "transformers"}
    ).reasoner.weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": {}}, r"unknown key 'budgets'; did you mean 'budget'\?"),
        ({"budget": {"call": 1}}, r"unknown key 'budget\.call'; did you mean 'calls'\?"),
        ({"view": {"xyz": 1}}, r"unknown key 'view\.xyz'; known keys: fps, frames"),
        (
            {"tools": {"retrieve": {"option": {}}}},
            r"unknown key 'tools\.retrieve\.option'; did you mean 'options'\?",
        ),
        ({"budget": {"calls": "many"}}, r"budget\.calls: .*\(got 'many'\)"),
        ({"budget": {"tokens": 0}}, r"budget\.tokens: .*greater than or equal to 1 \(got 0\)"),
        ({"view": {"fps": 0}}, r"view\.fps: .*greater than 0"),
        ({"reasoner": {"use": "vlm"}}, r"reasoner\.use: .*'transformers'"),
        ({"tools": {"think": {"use": "retrieve"}}}, "tool tag 'think' is reserved"),
        ({"tools": {"Look At": {"use": "retrieve"}}}, "tool tag 'Look At' is malformed: write"),
    ],
)
def test_an_invalid_key_or_value_is_named_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as e:
        load_config("micro", **changes)
    assert "\n" not in str(e.value)
    assert str(e.value).startswith("preset micro: ")


def test_a_missing_key_points_to_presets() -> None:
    with pytest.raises(ConfigError, match="the key 'reasoner' is missing; start from a preset"):
        load_config({"encoder": {"weights": "owner/encoder"}})


@pytest.mark.parametrize("text", [f"preset: mic{'9' * 3000}", f"preset: micro\nname: !!{'9' * 3000}"])
def test_a_long_value_is_quoted_in_part(tmp_path: Path, text: str) -> None:
    (tmp_path / "long.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path / "long.yaml")
    assert len(str(raised.value)) < 600
    assert "\n" not in str(raised.value)


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"there is no config file .*micr; did you mean the preset 'micro'\?"
    ):
        load_config("micr")
    with pytest.raises(ConfigError, match=r"there is no preset 'papers'; did you mean 'paper'\?"):
        load_config({"preset": "papers"})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    for text, message in (
        ("a: [", "is not YAML"),
        ("- 1\n", "must hold keys and values"),
        ("", "must hold keys and values"),
    ):
        path = tmp_path / "odd.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            load_config(path)


def test_the_hash_covers_all_that_can_change_an_answer() -> None:
    base = load_config("micro")
    assert (
        load_config("micro", cache="/elsewhere", store="memory://frames", name="mine", about="x").hash
        == base.hash
    )
    changed = [
        {"seed": 1},
        {"budget": {"calls": 1}},
        {"view": {"fps": 2}},
        {"tools": {"retrieve": {"options": {"top_k": 2}}}},
    ]
    assert len({base.hash, *(load_config("micro", **c).hash for c in changed)}) == len(changed) + 1


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config("micro").seed = 1  # type: ignore[misc]


def build(tmp_path: Path, **changes: object) -> Config:
    config = load_config({**HUB, "cache": str(tmp_path)}, **changes)
    build_parts(config)
    return config


def test_parts_are_built_without_loading_a_model(tmp_path: Path) -> None:
    build(tmp_path, tools={"retrieve": {"use": "retrieve"}, "generate": {"use": "generate"}})


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ({"use": "retreive"}, r"there is no tool 'retreive'; did you mean 'retrieve'\? \(known: "),
        ({"use": "nowhere:Tool"}, "tool 'nowhere:Tool' cannot be imported"),
        (
            {"use": "retrieve", "options": {"topk": 1}},
            r"tools\.look\.options: unknown key 'topk'; did you mean 'top_k'\?",
        ),
        ({"use": "retrieve", "options": {"top_k": "x"}}, r"tools\.look\.options: top_k: .*\(got 'x'\)"),
    ],
)
def test_a_tool_that_cannot_be_built_is_a_config_error(
    tmp_path: Path, tool: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, tools={"look": tool})


@pytest.mark.parametrize("part", ["reasoner", "encoder"])
@pytest.mark.parametrize(
    ("weights", "message"),
    [("./nowhere", "there is no weight folder"), ("micro:nowhere", "run `act2see micro train`")],
)
def test_missing_weight_folders_raise_when_the_graph_is_built(
    tmp_path: Path, part: str, weights: str, message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        build(tmp_path, **{part: {"weights": weights}})


def test_a_guard_that_cannot_be_imported_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"view\.guard 'act2see\.micro\.guard:Nobody' cannot be imported"):
        build(tmp_path, view={"guard": "act2see.micro.guard:Nobody"})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"preest": "micro"}, r"unknown key 'preest'; did you mean 'preset'"),
        (
            {"preset": "micro", "tools": {"zoom": {"us": "zoom"}}},
            "unknown key 'tools.zoom.us'; did",
        ),
        ({"preset": "micro", "tools": {"zoom": {}}}, r"the key 'tools.zoom.use' is missing$"),
        (
            {"preset": "micro", "tools": {"zoom": "zoom"}},
            "tools.zoom: must hold keys and values",
        ),
        ({"preset": "micro", "budget": 2}, r"budget: must hold keys and values \(got 2\)"),
    ],
)
def test_a_misspelled_key_is_named_before_a_missing_one(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(changes)


HUGE = 2**70


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": HUGE}, "seed: an integer of more than 64 bits"),
        ({"seed": -HUGE}, "seed: an integer of more than 64 bits"),
        ({"reasoner": {"top_k": HUGE}}, r"reasoner\.top_k: an integer of more than 64 bits"),
        (
            {"tools": {"retrieve": {"options": {"top_k": HUGE}}}},
            r"tools\.retrieve\.options\.top_k: an integer",
        ),
        ({"budget": {"tokens": HUGE}}, r"budget\.tokens: an integer"),
        ({"reasoner": {"options": {"stops": [1, HUGE]}}}, r"reasoner\.options\.stops: an integer"),
        ({"reasoner": {"options": {"temperature": math.nan}}}, r"options\.temperature: nan is not a number"),
        ({"reasoner": {"temperature": math.inf}}, r"reasoner\.temperature: .*finite"),
        ({"reasoner": {"repetition_penalty": math.inf}}, r"reasoner\.repetition_penalty: .*finite"),
        ({"view": {"fps": math.inf}}, r"view\.fps: .*finite"),
        ({"view": {"fps": 1e15}}, r"view\.fps: .*less than or equal to 1000"),
        ({"view": {"frames": 10**12}}, r"view\.frames: .*less than or equal to 100000"),
        ({"index": {"fps": math.inf}}, r"index\.fps: .*finite"),
        ({"index": {"fps": 1e15}}, r"index\.fps: .*less than or equal to 1000"),
        ({"reasoner": {"rows": 10**12}}, r"reasoner\.rows: .*less than or equal to 4096"),
    ],
)
def test_a_number_that_cannot_be_used_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config("micro", **changes)


@pytest.mark.parametrize(
    ("use", "options"),
    [("clip", {"spacing": math.inf}), ("retrieve", {"no_match": math.inf}), ("ocr", {"fps": 1e15})],
)
def test_a_number_of_a_tool_that_cannot_be_used_is_named(use: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"tools\.x\.options: {next(iter(options))}: "):
        build_parts(load_config("micro", tools={"x": {"use": use, "options": options}}))


def test_a_limit_of_time_may_be_infinite() -> None:
    config = load_config("micro", budget={"seconds": math.inf}, tools={"retrieve": {"timeout": math.inf}})
    assert (config.budget.seconds, config.tools["retrieve"].timeout) == (math.inf, math.inf)
    assert load_config(yaml.safe_load(config.to_yaml())) == config


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("seed: " + "9" * 5000, "a number has more than 100 characters"),
        ("reasoner: {temperature: .inf}", r"reasoner\.temperature: .*finite"),
        ("seed: 1180591620717411303424", "seed: an integer of more than 64 bits"),
    ],
)
def test_a_number_in_a_file_that_cannot_be_used_is_one_error(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"preset: micro\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        load_config(file)


@pytest.mark.parametrize("setting", ["seed", "max_calls", "max_tokens"])
def test_a_run_cannot_set_more_than_64_bits(setting: str) -> None:
    with pytest.raises(
        ConfigError, match=f"the run's setting '{setting}' cannot be '1180591620717411303424'"
    ):
        run_context(AskContext(**{setting: HUGE}), {})
