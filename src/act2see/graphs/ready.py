"""Before a run: is everything there that it needs? The weights, the chat model's key, the server.

Nothing is loaded. Weights are looked for in their folders and in the hub's cache, a chat model's key is found
when its graph is built and tried with one small request, a vLLM server is asked for its limits. Every run
begins with this check (the node *view*), so whoever asks, from the command line, the page or a server, hears
in one line what is missing and the command that mends it. What was found once is not looked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence

from act2see.errors import Act2SeeError, SetupError, WeightsError
from act2see.graphs.config import PRESETS, Config, load_config
from act2see.graphs.parts import Parts, cached_parts
from act2see.tools.runtime.forks import natively
from act2see.tools.runtime.weights import Wanted, is_of_hub, wanted_by, what_is_missing


async def check_ready(
    config: Config, parts: Parts | None = None, tools: Collection[str] | None = None
) -> None:
    """Whether a run of this configuration can begin, with these of its tools (default: all).

    Args:
        config: The configuration.
        parts: The parts of the graph; by default those that graphs of this configuration share.
        tools: The tags that the run may call.

    Raises:
        ConfigError: A package or a key is missing.
        WeightsError: Weights are missing; the message has the command that fetches them.
        SetupError: A server cannot be reached, or refuses the key.
    """
    chosen = await asyncio.to_thread(cached_parts, config) if parts is None else parts
    missing = await asyncio.to_thread(missing_weights, chosen, tools)
    wrong: Act2SeeError | None = missing_error(missing, config) if missing else None
    # Both are said at once: who has fetched gigabytes does not want to hear only then that the key is wrong.
    try:
        await chosen.reasoner.check()
    except SetupError as e:
        if wrong is None:
            raise
        wrong = WeightsError(f"{e}; and {wrong}")
    if wrong:
        raise wrong


@natively  # it imports the hub's library
def missing_weights(parts: Parts, tools: Collection[str] | None = None) -> list[tuple[Wanted, str]]:
    """The weights that a run would load and that are not here, each with what is wrong with it."""
    found = ((w, what_is_missing(w)) for w in dict.fromkeys(_wanted(parts, tools)))
    return [(w, wrong) for w, wrong in found if wrong]


def missing_error(missing: Sequence[tuple[Wanted, str]], config: Config) -> WeightsError:
    """All missing weights in one line, with the command that fetches those of a hub."""
    absent = [w.name for w, wrong in missing if wrong == "not downloaded"]
    lines = [f"{_listed(absent)} {'is' if len(absent) == 1 else 'are'} not downloaded"] if absent else []
    lines += [
        wrong if w.name in wrong else f"{w.name}: {wrong}" for w, wrong in missing if w.name not in absent
    ]
    hub = [w.name for w, _ in missing if is_of_hub(w.name)]
    fetch = f"; fetch {'them' if len(hub) > 1 else 'it'} with: {_download(hub, config)}" if hub else ""
    return WeightsError(f"weights are missing: {'; '.join(lines)}{fetch}")


def _wanted(parts: Parts, tools: Collection[str] | None) -> Iterator[Wanted]:
    yield from wanted_by(parts.reasoner)
    for tag, tool in parts.tools.items():
        if tools is None or tag in tools:
            yield from wanted_by(tool)


def _download(names: Sequence[str], config: Config) -> str:
    """The command that fetches these: by the preset that names them all, else by their names."""
    known = config.name if config.name in PRESETS else None
    if known and set(names) <= set(_named(load_config(known))):
        return f"act2see download --preset {known}"
    return f"act2see download {' '.join(dict.fromkeys(names))}"


def _named(config: Config) -> Iterator[str]:
    yield config.reasoner.weights
    yield config.encoder.weights
    yield from (str(t.options["weights"]) for t in config.tools.values() if "weights" in t.options)


def _listed(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
