"""The settings of one run: the configuration with the changes of the run's context.

A context may choose among the tools of the configuration, and override the seed, the temperature and the
budget. None of this requires building the graph again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any

from act2see.agent.reasoners.base import Sampling
from act2see.errors import ConfigError
from act2see.graphs.config import Config
from act2see.graphs.parts import Parts
from act2see.graphs.sampling import resolve_sampling
from act2see.graphs.sections import Budget
from act2see.graphs.state import AskContext
from act2see.tools.base import FrameTool


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The settings of one run."""

    parts: Parts
    config: Config
    context: AskContext

    @property
    def tools(self) -> dict[str, FrameTool]:
        """The tools that the run may call, in the order of the configuration.

        Raises:
            ConfigError: The context names a tool that the configuration does not have.
        """
        if self.context.tools is None:
            return dict(self.parts.tools)
        for tag in self.context.tools:
            self._require_tool(tag, "tools")
        return {tag: tool for tag, tool in self.parts.tools.items() if tag in self.context.tools}

    @property
    def seed(self) -> int:
        """The seed of the context, or else of the configuration."""
        return self.config.seed if self.context.seed is None else self.context.seed

    def sampling(self, seed: int = 0) -> Sampling:
        """Return how tokens are drawn, by the context, else the configuration, else the checkpoint.

        Args:
            seed: The seed of the request.
        """
        return resolve_sampling(self.config.reasoner, self.context.temperature, seed)

    @property
    def budget(self) -> Budget:
        """The budget of the configuration, with the limits that the context sets."""
        limits = {
            "calls": self.context.max_calls,
            "tokens": self.context.max_tokens,
            "seconds": self.context.max_seconds,
        }
        changed = {key: limit for key, limit in limits.items() if limit is not None}
        return self.config.budget.model_copy(update=changed)

    def tags_to_approve(self) -> list[str]:
        """Return the tags whose calls wait for a person.

        The state keeps them, so that a resumed run waits for the same calls.

        Raises:
            ConfigError: The context names a tool that the configuration does not have.
        """
        approve = {tag for tag, settings in self.config.tools.items() if settings.approve}
        for tag in self.context.approve or ():
            self._require_tool(tag, "approve")
            approve.add(tag)
        return [tag for tag in self.parts.tools if tag in approve]

    def versions(self) -> dict[str, Any]:
        """Return the versions and settings that `Trace.versions` records. This may load the encoder."""
        return {
            "act2see": version("act2see"),
            "reasoner": self.parts.reasoner.name,
            "tools": {tag: tool.version for tag, tool in self.tools.items()},
            "config": self.config.hash,
            "seed": self.seed,
            "sampling": self._recorded_sampling(),
        }

    def _recorded_sampling(self) -> dict[str, float]:
        """Return how tokens are drawn, for the trace; empty for a chat model, which uses its own settings."""
        reasoner = self.config.reasoner
        if reasoner.use == "chat" and not reasoner.continuation:
            return {}
        values = asdict(self.sampling())
        del values["seed"]
        return values

    def _require_tool(self, tag: str, setting: str) -> None:
        """Raise `ConfigError` unless the configuration has this tool."""
        if tag not in self.parts.tools:
            known = ", ".join(self.parts.tools) or "none"
            near = get_close_matches(tag, self.parts.tools, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; a run of another config needs that config"
            raise ConfigError(f"{setting}: there is no tool {tag!r} in the config (its tools: {known}){hint}")
