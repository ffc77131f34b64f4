"""Pages of the site (`make docs`) whose source is not in docs/: README, CONTRIBUTING, CHANGELOG, the API.

MkDocs checks links between pages. Links to other files of the repository are checked here, and become plain
text, since the site does not hold these files.
"""

from __future__ import annotations

import os
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import act2see

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
SOURCES = {page: source for source, page in PAGES.items()}

CODE_BLOCK = re.compile(r"(^```.*?^```$)", re.S | re.M)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^]]*)\]\((?P<target>[^)\s]+)\)")
IMAGE_SOURCE = re.compile(r'(?<=src=")[^"]+(?=")')


def on_files(files: Files, config: Any) -> Files:
    """Add the pages whose source is not in docs/."""
    for source, page in PAGES.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    files.append(File.generated(config, "api.md", content=api_reference()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page from the repository's layout to the site's."""
    return with_site_links(markdown, page.file.src_uri)


def api_reference() -> str:
    """The Markdown of a page with every public name of `act2see`, grouped by the package that defines it."""
    lines = [
        "# API reference",
        "",
        "All names are imported from `act2see`, as in `from act2see import ask`.",
        "",
    ]
    homes = sorted((home.split(".")[1], name) for name, home in act2see._HOMES.items())
    for package, names in groupby(homes, key=lambda home: home[0]):
        lines += [f"## act2see.{package}", ""]
        for _, name in names:
            lines += [f"::: act2see.{name}", ""]
    return "\n".join(lines)


def with_site_links(markdown: str, page: str) -> str:
    """Rewrite the links outside code blocks.

    Raises:
        PluginError: If a link names a file that the repository does not have.
    """

    def rewrite_link(match: re.Match[str]) -> str:
        target = _site_target(match["target"], page)
        if target is None:
            return match["text"]
        return f"{match['image']}[{match['text']}]({target})"

    def rewrite_source(match: re.Match[str]) -> str:
        return _site_target(match[0], page) or match[0]

    parts = CODE_BLOCK.split(markdown)  # text at even places, code at odd ones
    parts[::2] = [IMAGE_SOURCE.sub(rewrite_source, LINK.sub(rewrite_link, text)) for text in parts[::2]]
    return "".join(parts)


def _site_target(target: str, page: str) -> str | None:
    """The target relative to the page; None for a file that the site does not hold."""
    path, _, anchor = target.partition("#")
    if "://" in target or not path:
        return target
    folder = ROOT if page in SOURCES else (DOCS / page).parent
    file = (folder / path).resolve()
    if not file.exists():
        raise PluginError(f"{page}: link to {target}, which does not exist")
    if file.parent == ROOT and file.name in PAGES:
        file = DOCS / PAGES[file.name]
    elif not file.is_relative_to(DOCS) or file.suffix == ".py":
        return None
    relative = Path(os.path.relpath(file, (DOCS / page).parent)).as_posix()
    return f"{relative}#{anchor}" if anchor else relative
