"""Download a video: see `act2see.tools.download`, where this lives."""

from __future__ import annotations

from act2see.tools.download import download

__all__ = ["download"]
