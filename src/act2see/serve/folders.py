"""Which videos a program may open: see `act2see.tools.folders`, where this lives, since the assistant of `graphs` needs it too."""

from __future__ import annotations

from act2see.tools.folders import FencedClips, Folders

__all__ = ["FencedClips", "Folders"]
