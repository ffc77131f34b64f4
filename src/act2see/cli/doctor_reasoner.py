"""The part of `act2see doctor` that checks the reasoner: its name, a chat model's key, a server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from act2see.cli.doctor_table import Check

if TYPE_CHECKING:
    from act2see.graphs.config import Config
    from act2see.graphs.sections import ReasonerConfig

_SERVER_SECONDS = 5  # that doctor waits for an answer of a server


def check_reasoner(config: Config, option: str) -> Iterator[Check]:
    """Check the reasoner of a configuration, except its weights.

    Args:
        config: The configuration.
        option: The option that selects this configuration, for suggested commands.
    """
    from act2see.errors import ConfigError
    from act2see.graphs.names import check_name

    reasoner = config.reasoner
    try:
        warning = check_name(reasoner)
    except ConfigError as e:
        yield Check(
            False, "reasoner", f"{reasoner.weights}: cannot be used with `use: {reasoner.use}`", str(e)
        )
        return
    if warning:
        yield Check(True, "reasoner", warning)
    if reasoner.use == "chat":
        yield _check_chat(reasoner)
    if reasoner.use in ("llama-cpp", "vllm-http"):
        yield _check_server(config, option)


def _check_chat(reasoner: ReasonerConfig) -> Check:
    """Check that a chat model's package and key are present, and that its server has the model."""
    from act2see.agent.reasoners.chat.setup import chat_model, missing_key
    from act2see.errors import ConfigError

    name = reasoner.weights
    try:
        model = chat_model(name, reasoner.options, "reasoner.weights")
    except ConfigError as e:
        key = None
        if "pip install" not in str(e):
            key = missing_key(name, reasoner.options, str(e))
        if key:
            fix = f"export {key}=... (the key of your account there)"
            return Check(False, "reasoner", f"{name}: no key ({key})", fix)
        return Check(False, "reasoner", f"{name}: cannot be set up", str(e))
    return asyncio.run(_check_listed(reasoner, model))


async def _check_listed(reasoner: ReasonerConfig, model: Any) -> Check:
    """Check that a chat model's server can be reached, accepts the key, and has the model."""
    from act2see.agent.reasoners.chat.check import (
        address_problem,
        find_model,
        local_server,
        missing_model,
        with_start,
    )
    from act2see.errors import SetupError

    name, options = reasoner.weights, reasoner.options
    host = local_server(model)
    server = "server" if host else "provider"
    sent = f"frames are sent to {host or 'the provider'}"
    try:
        listing = await find_model(model, name)
    except SetupError as e:
        return Check(False, "reasoner", f"{name}: cannot be used", with_start(str(e), model))
    if listing.exists and host:
        return Check(True, "reasoner", f"{name}: its server has the model; {sent}")
    if listing.exists:
        return Check(True, "reasoner", f"{name}: its provider accepts the key and has the model; {sent}")
    if listing.exists is None:
        if problem := await address_problem(model, name, options):
            return Check(False, "reasoner", f"{name}: {problem.finding}", problem.fix)
        finding = f"{name}: can be set up; its {server} does not list models; {sent}"
        return Check(True, "reasoner", finding)
    return Check(False, "reasoner", *await missing_model(model, name, listing))


def _check_server(config: Config, option: str) -> Check:
    """Check that a llama.cpp or vLLM server answers, has the model, and has room for a run."""
    from act2see.errors import Act2SeeError

    try:
        return Check(True, "server", asyncio.run(_ask_server(config)))
    except Act2SeeError as e:
        if "no server answers" not in str(e):
            url = config.reasoner.options.get("url") or "the server"
            return Check(False, "server", f"{url}: cannot be used", str(e))
        return Check(False, "server", str(e), _start_server(config.reasoner, option))


async def _ask_server(config: Config) -> str:
    """Return what a server says of itself.

    Raises:
        ConfigError: An option is wrong.
        ReasonerError: The server cannot serve this configuration.
    """
    from act2see.agent.reasoners.llama_cpp.reasoner import LlamaCppReasoner
    from act2see.agent.reasoners.vllm.http import VLLMHTTPReasoner
    from act2see.graphs.parts import reasoner_needs
    from act2see.tools.video.store import FrameStore

    reasoner, needs = config.reasoner, reasoner_needs(config)
    options = {**reasoner.options, "silence": _SERVER_SECONDS}
    if reasoner.use == "llama-cpp":
        llama = LlamaCppReasoner.from_options(reasoner.weights, FrameStore(), options, needs=needs)
        await llama.check()
        return f"llama-server at {llama.url}: reads pictures, {llama.context:,} tokens a slot"
    vllm = VLLMHTTPReasoner.from_options(
        reasoner.weights, FrameStore(), options, adapter=reasoner.adapter, needs=needs
    )
    await vllm.check()
    return f"vLLM server at {vllm.url}: has the model, and room for a run"


def _start_server(reasoner: ReasonerConfig, option: str) -> str:
    """Return the commands that start a server, one per line."""
    from act2see.cli.serve_llama_cpp import INSTALL

    if reasoner.use == "vllm-http":
        return f"act2see serve vllm{option} --python VLLM_ENV/bin/python (and leave it running)"
    fix = f"act2see serve llama-cpp{option} (and leave it running)"
    if shutil.which("llama-server"):
        return fix
    return f"install llama.cpp: {INSTALL}; one that is not on the PATH is named with --server FILE\n{fix}"
