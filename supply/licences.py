"""Which licence each locked package has, and whether it may be used.

A licence is read where the package states it: `License-Expression`, else `License`, else its classifiers.
What packages that are not installed here state (they are for other platforms) and what a package states
unclearly is in `licences.toml`, which also lists the licences that are allowed. A package without a known
licence, or with another one, is a problem; so is a line of `licences.toml` that no package needs any more.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from supply.lock import FOLDER, ROOT, Locked, canonical, read_lock

PAGE = ROOT / "docs" / "licences.md"
UNKNOWN = ""
_HEAD = (
    "# Licences of the dependencies",
    "",
    "Every package that `make setup` may install, in the locked version. `.venv/bin/python -m supply page`",
    "writes this page from the packages' own metadata, and `make supply` checks it",
    "([how](security.md#dependencies)). Act2See itself is under Apache-2.0 and contains none of them.",
)
_WORD = re.compile(r"[()]|[^\s()]+")
_OPERATORS = {"AND", "OR", "WITH", "(", ")"}


@dataclass(frozen=True, slots=True)
class Rules:
    """The content of `licences.toml`."""

    allowed: frozenset[str]
    """Identifiers that may be used anywhere."""
    noted: dict[str, str]
    """Identifiers that may be used, and what to know about them."""
    names: dict[str, str]
    """The identifier for each of the other names that packages give licences."""
    stated: dict[str, str]
    """The licence of packages that state it unclearly, by name."""
    elsewhere: dict[str, str]
    """The licence of packages for other platforms, by name."""


def read_rules() -> Rules:
    """Return the rules."""
    data = tomllib.loads((FOLDER / "licences.toml").read_text(encoding="utf-8"))
    return Rules(frozenset(data["allowed"]), data["noted"], data["names"], data["stated"], data["elsewhere"])


def licence_of(name: str, rules: Rules) -> str:
    """Return the licence of a package as an SPDX expression, or `UNKNOWN`."""
    if name in rules.stated:
        return rules.stated[name]
    try:
        facts: Any = metadata(name)
    except PackageNotFoundError:
        return rules.elsewhere.get(name, UNKNOWN)
    if expression := facts.get("License-Expression"):
        return str(expression)
    # Some packages have the whole text here, which begins with the name.
    text = str(facts.get("License") or "").strip().partition("\n")[0]
    if text and (identifier := _identify(text, rules)):
        return identifier
    classifiers = [line.split(" :: ") for line in facts.get_all("Classifier") or []]
    named = [parts[-1] for parts in classifiers if parts[0] == "License" and len(parts) > 2]
    found = [_identify(one, rules) for one in named]
    return " AND ".join(sorted(set(found))) if found and all(found) else UNKNOWN


def _identify(text: str, rules: Rules) -> str:
    """Return the expression that a name of a licence means, or `UNKNOWN`."""
    known = rules.allowed | rules.noted.keys()
    if all(word in known | _OPERATORS for word in _WORD.findall(text)):
        return text
    return rules.names.get(" ".join(text.split()).lower(), UNKNOWN)


def may_use(expression: str, permitted: Iterable[str]) -> bool:
    """Return whether an SPDX expression leaves a choice in which every licence is permitted.

    An exception (`WITH`) only permits more, so it is not looked at.

    Raises:
        ValueError: The expression cannot be read.
    """
    words = _WORD.findall(expression)
    permitted = frozenset(permitted)

    def any_of() -> bool:
        good = all_of()
        while words and words[0] == "OR":
            words.pop(0)
            good = all_of() or good
        return good

    def all_of() -> bool:
        good = one()
        while words and words[0] == "AND":
            words.pop(0)
            good = one() and good
        return good

    def one() -> bool:
        if not words or words[0] in _OPERATORS - {"("}:
            raise ValueError(f"not an SPDX expression: {expression!r}")
        word = words.pop(0)
        if word == "(":
            good = any_of()
            if not words or words.pop(0) != ")":
                raise ValueError(f"not an SPDX expression: {expression!r}")
            return good
        if words[:1] == ["WITH"]:
            del words[:2]
        return word in permitted

    good = any_of()
    if words:
        raise ValueError(f"not an SPDX expression: {expression!r}")
    return good


def find_problems(packages: Iterable[Locked], rules: Rules) -> list[str]:
    """Return a line for each package that may not be used, or whose licence is unknown."""
    permitted = rules.allowed | rules.noted.keys()
    problems = []
    names = {canonical(package.name) for package in packages}
    for name in sorted(names):
        licence = licence_of(name, rules)
        if licence == UNKNOWN:
            problems.append(f"{name}: its licence is unknown; read it, and name it in supply/licences.toml")
            continue
        try:
            good = may_use(licence, permitted)
        except ValueError as e:
            problems.append(f"{name}: {e}; name its licence in supply/licences.toml")
            continue
        if not good:
            problems.append(f"{name}: {licence} is not among the licences that supply/licences.toml allows")
    for name in sorted((rules.stated | rules.elsewhere).keys() - names):
        problems.append(f"{name}: supply/licences.toml names it, but the lock does not: delete the line")
    return problems


def write_page(rules: Rules) -> str:
    """Return the page of the documentation that lists all packages and their licences."""
    lines = [*_HEAD, ""]
    for identifier, note in rules.noted.items():
        lines.append(f"- **{identifier}**: {note}")
    for file, title in (
        ("core", "Needed"),
        ("torch", "torch, and CUDA on Linux with a GPU"),
        ("more", "Extras and development tools"),
    ):
        lines += ["", f"## {title}", "", "| package | version | licence |", "|---|---|---|"]
        for one in read_lock((FOLDER / f"{file}.txt").read_text()):
            lines.append(f"| {one.name} | {one.version} | {licence_of(canonical(one.name), rules)} |")
    return "\n".join(lines) + "\n"
