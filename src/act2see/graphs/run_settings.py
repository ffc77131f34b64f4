"""The settings of one run: the configuration, with what the run's context changes.

A context picks among the tools that the configuration declares, and overrides the seed, the temperature and
the budget. Nothing here needs a rebuild of the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from act2see.errors import ConfigError
from act2see.graphs.config import Budget, Config
from act2see.graphs.parts import Parts
from act2see.graphs.state import AskContext
from act2see.tools.base import FrameTool


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What holds in one run."""

    parts: Parts
    config: Config
    context: AskContext

    @property
    def tools(self) -> dict[str, FrameTool]:
        """The tools that the run may call, in the configuration's order.

        Raises:
            ConfigError: The context names a tool that the configuration does not declare.
        """
        if self.context.tools is None:
            return dict(self.parts.tools)
        for tag in self.context.tools:
            if tag not in self.parts.tools:
                raise ConfigError(
                    f"this run asks for the tool {tag!r}, and the config declares {self._declared('none')}"
                )
        return {tag: tool for tag, tool in self.parts.tools.items() if tag in self.context.tools}

    @property
    def seed(self) -> int:
        return self.config.seed if self.context.seed is None else self.context.seed

    @property
    def temperature(self) -> float:
        given = self.context.temperature
        return self.config.reasoner.temperature if given is None else given

    @property
    def budget(self) -> Budget:
        given = {
            "calls": self.context.max_calls,
            "tokens": self.context.max_tokens,
            "seconds": self.context.max_seconds,
        }
        changed = {key: value for key, value in given.items() if value is not None}
        return self.config.budget.model_copy(update=changed)

    def tags_to_approve(self) -> list[str]:
        """The tags whose calls wait for a person. They are kept in the state: a resumed run asks for the
        same.

        Raises:
            ConfigError: The context names a tool that the configuration does not declare.
        """
        asked = self.context.approve or ()
        for tag in asked:
            if tag not in self.parts.tools:
                raise ConfigError(
                    f"this run would approve <{tag}>, and the config declares {self._declared('no tools')}"
                )
        always = {tag for tag, settings in self.config.tools.items() if settings.approve}
        return [tag for tag in self.parts.tools if tag in always or tag in asked]

    def versions(self) -> dict[str, Any]:
        """What answers in this run, as `Trace.versions` keeps it. May load the encoder."""
        return {
            "act2see": version("act2see"),
            "reasoner": self.parts.reasoner.name,
            "tools": {tag: tool.version for tag, tool in self.tools.items()},
            "config": self.config.hash,
            "seed": self.seed,
        }

    def _declared(self, nothing: str) -> str:
        return ", ".join(self.parts.tools) or nothing
