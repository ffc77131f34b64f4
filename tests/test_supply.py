"""The lock and the licences of the dependencies. `make supply` checks those that are installed."""

from __future__ import annotations

import dataclasses

import pytest
from supply import check
from supply.licences import Rules, find_problems, licence_of, may_use, read_rules
from supply.lock import Locked, locked, read_lock

RULES = Rules(
    allowed=frozenset({"MIT", "Apache-2.0"}),
    noted={"Elastic-2.0": "read it"},
    names={"mit license": "MIT"},
    stated={},
    elsewhere={"nowhere-a": "MIT", "nowhere-b": "GPL-3.0-only", "nowhere-c": "MIT AND"},
)


def one(name: str) -> Locked:
    return Locked(name, "1.0", "", ("0" * 64,), "")


def test_the_lock_is_that_of_pyproject_and_constraints() -> None:
    assert check.check_lock() == []


def test_every_package_is_pinned_to_the_content_of_its_files() -> None:
    packages = locked()
    assert len(packages) > 200
    assert all(package.version and package.hashes for package in packages)
    names = {package.name for package in packages}
    assert {"torch", "transformers", "langgraph", "hatchling", "pytest", "dashscope"} <= names
    assert "pip" not in names


def test_what_differs_from_the_lock_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = [
        dataclasses.replace(package, version="0.1", hashes=()) if package.name == "av" else package
        for package in locked()
        if package.name != "rich"
    ]
    monkeypatch.setattr(check, "locked", lambda: changed)
    problems = "\n".join(check.check_lock())
    assert "av has no hash; run `make lock`" in problems
    assert "av: constraints.txt has 18.1.0, the lock 0.1" in problems
    assert "rich: pyproject.toml needs it, and the lock does not have it" in problems
    assert "av>=17.1: the lock has 0.1" in problems
    assert len(problems.splitlines()) == 4


def test_reading_a_lock() -> None:
    text = "# a comment\na==1.0 ; python_full_version < '3.15' and sys_platform == 'linux' \\\n"
    text += f"    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\nb-c==2\n"
    first, second = read_lock(text)
    assert first.pin == "a==1.0 ; python_full_version < '3.15' and sys_platform == 'linux'"
    assert first.hashes == ("a" * 64, "b" * 64)
    assert (second.pin, second.hashes) == ("b-c==2", ())
    with pytest.raises(ValueError, match="not a pinned package: a>=1"):
        read_lock("a>=1\n")


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-or-later OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND (Apache-2.0 OR GPL-3.0-only)", True),
        ("GPL-3.0-only AND MIT OR Apache-2.0", True),
        ("GPL-3.0-only AND (MIT OR Apache-2.0)", False),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
    ],
)
def test_an_expression_needs_a_permitted_choice(expression: str, good: bool) -> None:
    assert may_use(expression, RULES.allowed) is good


@pytest.mark.parametrize("expression", ["", "MIT AND", "(MIT", "MIT Apache-2.0", "OR MIT", "MIT)"])
def test_what_is_no_expression(expression: str) -> None:
    with pytest.raises(ValueError, match="not an SPDX expression"):
        may_use(expression, RULES.allowed)


def test_unknown_and_forbidden_licences_are_problems() -> None:
    packages = [one(f"nowhere-{letter}") for letter in "abcd"]
    assert find_problems(packages, RULES) == [
        "nowhere-b: GPL-3.0-only is not among the licences that supply/licences.toml allows",
        "nowhere-c: not an SPDX expression: 'MIT AND'; name its licence in supply/licences.toml",
        "nowhere-d: its licence is unknown; read it, and name it in supply/licences.toml",
    ]
    assert find_problems([], dataclasses.replace(RULES, elsewhere={}, stated={"gone": "MIT"})) == [
        "gone: supply/licences.toml names it, but the lock does not: delete the line"
    ]


def test_licences_of_installed_packages() -> None:
    """One states an expression, one a name, one a classifier, and one all of the text."""
    rules = read_rules()
    found = [
        licence_of(name, rules) for name in ("rich", "typing-extensions", "av", "defusedxml", "tiktoken")
    ]
    assert found == ["MIT", "PSF-2.0", "BSD-3-Clause", "PSF-2.0", "MIT"]
