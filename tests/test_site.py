"""The site of `make docs`: links lead to its pages, and the API reference has every public name.

MkDocs itself checks anchors and links between pages during a build.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from mkdocs.exceptions import PluginError

import act2see


@pytest.fixture(scope="module")
def hooks() -> Any:
    path = Path(__file__).parents[1] / "docs" / "hooks.py"
    spec = spec_from_file_location("docs_hooks", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "link", "on_the_site"),
    [
        ("index.md", "[Tools](docs/tools.md)", "[Tools](tools.md)"),
        ("index.md", "[Style](CONTRIBUTING.md#style)", "[Style](contributing.md#style)"),
        ("index.md", '<img src="docs/img/ui.png">', '<img src="img/ui.png">'),
        ("index.md", "[notebooks](notebooks)", "notebooks"),
        ("tools.md", "[README](../README.md)", "[README](index.md)"),
        ("results/micro.md", "![tools](tools.png)", "![tools](tools.png)"),
        ("tools.md", "[semver](https://semver.org)", "[semver](https://semver.org)"),
        ("tools.md", "```\n[a](b.md)\n```", "```\n[a](b.md)\n```"),
    ],
)
def test_a_link_is_rewritten_for_the_site(hooks: Any, page: str, link: str, on_the_site: str) -> None:
    assert hooks.with_site_links(link, page) == on_the_site


def test_a_link_to_a_missing_file_fails(hooks: Any) -> None:
    with pytest.raises(PluginError, match=r"tools\.md: link to \.\./nothing\.py"):
        hooks.with_site_links("[x](../nothing.py)", "tools.md")


def test_every_public_name_is_in_the_api_reference(hooks: Any) -> None:
    lines = hooks.api_reference().splitlines()
    assert {f"::: act2see.{name}" for name in act2see.__all__ if name != "__version__"} <= set(lines)
