"""What Tab offers: presets, and the runs that can be gone on with. A completion never fails, and opens
nothing that it could change."""

from __future__ import annotations

from collections.abc import Iterator


def presets() -> list[str]:
    from act2see.graphs.config import PRESETS

    return list(PRESETS)


def sources(incomplete: str) -> Iterator[str]:
    """Presets and YAML files."""
    from glob import escape, glob

    yield from (name for name in presets() if name.startswith(incomplete))
    yield from sorted(f for f in glob(f"{escape(incomplete)}*") if f.endswith((".yaml", ".yml")))


def runs() -> list[str]:
    """The latest saved runs."""
    from act2see.cli.runs import saved_ids

    return saved_ids()
