"""Config files from strangers: what is too large to be one is refused in a line, at little cost."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

from act2see.errors import ConfigError
from act2see.graphs.config import load_config

NESTED = "\n".join(
    ["a: &a [x,x,x,x,x,x,x,x,x]"]
    + [f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
)
MERGED = "\n".join(
    ["a: &a {x: 1}"]
    + [f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}]}}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
)
CHAIN = "\n".join(["- &a0 [x]"] + [f"- &a{n + 1} [*a{n}]" for n in range(40)])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{NESTED}\npreset: micro\n", "line 5: there are more than 10,000 values"),
        (
            f"preset: micro\ntools:\n  look: {{options: {{{NESTED.replace(chr(10), ', ')}}}}}\n",
            "more than 10,000",
        ),
        (f"{MERGED}\npreset: micro\n", "more than 10,000 values"),
        (CHAIN, "nested more than 32 deep"),
        ("x: " + "[" * 50_000, "nested more than 32 deep"),
        ("x: " + "{a: " * 20_000, "nested more than 32 deep"),
        ("- " * 30_000 + "x", "nested more than 32 deep"),
        ("a: &a [*a]", "line 1: a value cannot contain itself"),
        ("a: &a {b: {c: *a}}", "line 1: a value cannot contain itself"),
        ("preset: micro\nseed: " + "9" * 4300, "line 2: a number has more than 100 characters"),
        ("preset: micro\nseed: 1" + ":1" * 30_000, "a number has more than 100 characters"),
        ("preset: micro\nseed: 1" + ":1" * 30_000 + ".0", "a number has more than 100 characters"),
        ("preset: micro\nseed: !!int ''", "is not YAML"),
        ("preset: micro\nseed: !!bool x", "is not YAML"),
        ("preset: micro\nseed: !!timestamp x", "is not YAML"),
        ("preset: micro\nname: !!timestamp 2024-10-21", "a value of the type date cannot be saved"),
        ("preset: micro\nname: !!binary aGk=", "a value of the type bytes cannot be saved"),
        ("preset: micro\nname: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("#" * (200 << 10), "larger than 128 KiB"),
    ],
    ids=lambda value: value[:12] if "\n" not in value else "",
)
def test_what_is_too_large_is_refused_at_little_cost(tmp_path: Path, text: str, problem: str) -> None:
    (path := tmp_path / "odd.yaml").write_text(text, encoding="utf-8")
    tracemalloc.start()
    begin = time.process_time()  # of this process alone, so that a busy machine does not matter
    try:
        with pytest.raises(ConfigError, match=problem) as raised:
            load_config(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert peak < 64 << 20
    assert time.process_time() - begin < 10  # tracing the memory takes most of it


def test_a_date_is_text(tmp_path: Path) -> None:
    (path := tmp_path / "chat.yaml").write_text(
        "preset: micro\n"
        "reasoner: {use: chat, weights: azure_openai:gpt-5, options: {api_version: 2024-10-21}}\n"
    )
    config = load_config(path)
    assert config.reasoner.options == {"api_version": "2024-10-21"}
    assert config.hash == load_config(config).hash
    path.write_text(config.to_yaml())
    assert load_config(path) == config


def test_aliases_and_merge_keys_of_a_plain_file_work(tmp_path: Path) -> None:
    (path := tmp_path / "plain.yaml").write_text(
        "\ufeffpreset: micro\nbudget: {calls: &two 2}\ntools: {retrieve: {options: {<<: {top_k: *two}}}}\n",
        encoding="utf-8",
    )
    config = load_config(path)
    assert (config.budget.calls, config.tools["retrieve"].options["top_k"]) == (2, 2)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="it is not a regular file"):
        load_config(path)
