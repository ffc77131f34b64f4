"""The checks of `make supply`: lock, environment, licences, known weaknesses, and the list of parts.

Each check returns its problems as lines. What cannot be checked here, for want of a service, is printed as
skipped and is no problem: whoever has a network runs it there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from supply.licences import PAGE, find_problems, read_rules, write_page
from supply.lock import FOLDER, ROOT, canonical, locked

SBOM = ROOT / "build" / "sbom.json"
OURS = "act2see"
_WAIT = 10, 600  # seconds for one package, which must not hold up CI, and for all
_INCOMPLETE = "dashscope "  # installed without its dependencies, for one file; it is never imported


def check_lock() -> list[str]:
    """Compare the lock with pyproject.toml and constraints.txt, and check that every file has a hash."""
    packages = locked()
    versions = {canonical(one.name): set[str]() for one in packages}
    for one in packages:
        versions[canonical(one.name)].add(one.version)
    problems = [f"{one.name} has no hash" for one in packages if not one.hashes]
    for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text()):
        if (found := versions.get(canonical(name))) and version not in found:
            problems.append(f"{name}: constraints.txt has {version}, the lock {', '.join(found)}")
    for requirement in required():
        found = versions.get(canonical(requirement.name))
        if found is None:
            problems.append(f"{requirement.name}: pyproject.toml needs it, and the lock does not have it")
        elif not any(requirement.specifier.contains(one) for one in found):
            problems.append(f"{requirement}: the lock has {', '.join(found)}")
    return [f"{problem}; run `make lock`" for problem in problems]


def required() -> list[Requirement]:
    """Return what pyproject.toml requires, with the extra `dev` and the extras that it names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    result: list[Requirement] = []
    seen: set[str] = set()
    waiting = [Requirement(line) for line in project["dependencies"]] + [Requirement(f"{OURS}[dev]")]
    while waiting:
        one = waiting.pop()
        if one.name != OURS:
            result.append(one)
            continue
        for extra in one.extras - seen:
            seen.add(extra)
            waiting += [Requirement(line) for line in project["optional-dependencies"][extra]]
    return result


def check_environment() -> list[str]:
    """Ask pip whether the installed packages fit together: they were installed without resolving."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if not run.returncode:
        return []
    return [line for line in run.stdout.splitlines() if not line.startswith(_INCOMPLETE)]


def check_licences() -> list[str]:
    """Check every licence, and that the page of the documentation lists them."""
    rules = read_rules()
    problems = find_problems(locked(), rules)
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != write_page(rules):
        problems.append(f"{PAGE.relative_to(ROOT)} is out of date; run `.venv/bin/python -m supply page`")
    return problems


def write_sbom() -> list[str]:
    """Write the list of the environment's packages, with licences and dependencies, as CycloneDX."""
    SBOM.parent.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--pyproject",
        str(ROOT / "pyproject.toml"),
    ]
    # Not validated: comparing the file with the schema takes twenty times as long as writing it.
    command += ["--no-validate", "--output-reproducible", "--output-file", str(SBOM), sys.executable]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        return [f"no list of parts: {(run.stderr.strip().splitlines() or ['no reason'])[-1]}"]
    parts = json.loads(SBOM.read_text(encoding="utf-8"))["components"]
    print(f"   {SBOM.relative_to(ROOT)} lists {len(parts)} packages")
    return []


def find_weaknesses() -> list[str]:
    """Ask for known weaknesses of the locked versions. Skipped, visibly, where no service answers."""
    files = [FOLDER / name for name in ("core.txt", "more.txt", "torch.txt")]
    # One package first: an index without this service would refuse several hundred questions one by one.
    first = _audit([_first_of()], _WAIT[0])
    if isinstance(first, str):
        print(f"   SKIPPED, no service of known weaknesses can be reached here: {first}")
        return []
    answers = _audit(files, _WAIT[1])
    if isinstance(answers, str):
        print(f"   SKIPPED, the service of known weaknesses stopped answering: {answers}")
        return []
    return [f"{one}; raise its pin in constraints.txt and run `make lock`" for one in answers]


def _first_of() -> Path:
    """Write the first package of a lock to a file of its own in build/, and return it."""
    single = ROOT / "build" / "one-package.txt"
    single.parent.mkdir(exist_ok=True)
    single.write_text(next(one.text for one in locked() if not one.marker) + "\n")
    return single


def _audit(files: list[Path], wait: int) -> list[str] | str:
    """Run pip-audit. Return a line for each weakness, or why there is no answer."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", "5"]
    command += [word for file in files for word in ("--requirement", str(file))]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=wait, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {wait} s"
    try:
        packages = json.loads(run.stdout)["dependencies"]
    except (ValueError, KeyError):
        return (run.stderr.strip().splitlines() or ["no answer"])[-1][:200]
    unanswered = [one for one in packages if "skip_reason" in one]
    if len(unanswered) == len(packages):
        return str(unanswered[0]["skip_reason"]) if unanswered else "no answer"
    for one in unanswered:
        print(f"   not asked: {one['skip_reason']}")
    return [
        f"{one['name']} {one['version']}: {weakness['id']}"
        + (f", mended in {', '.join(weakness['fix_versions'])}" if weakness["fix_versions"] else "")
        for one in packages
        for weakness in one.get("vulns", [])
    ]
