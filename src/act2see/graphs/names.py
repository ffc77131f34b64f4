"""Does the name of a reasoner's weights fit its engine (`reasoner.use`)? Answered by the name alone.

A checkpoint of safetensors, a GGUF model and a chat model are named alike, and each engine takes only one of
them. Without this check, only the hub, the server or the provider would find a wrong name. What cannot work
is refused, with the keys to write. A name that may be right has a warning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from act2see.agent.reasoners.chat.setup import KEYS, missing_key
from act2see.errors import ConfigError
from act2see.graphs.sections import ReasonerConfig
from act2see.tools.runtime.catalogue import known_weights
from act2see.tools.runtime.gguf import is_gguf
from act2see.tools.runtime.revisions import name_in_address, split_revision

_OTHER_NAMES = {
    "chatgpt": "openai",
    "claude": "anthropic",
    "gemini": "google_genai",
    "google": "google_genai",
    "gpt": "openai",
    "grok": "xai",
    "lm_studio": "openai",
    "lmstudio": "openai",
    "mistral": "mistralai",
    "mlx": "openai",
}
"""What people call a provider, and LangChain's name of it."""
_EXTRAS = {
    "google_genai": ("langchain_google_genai", "chat"),
    "ollama": ("langchain_ollama", "ollama"),
    "openai": ("langchain_openai", "chat"),
}
"""By provider: its package, and the extra of this package that installs it."""
_ADDRESSES = ("base_url", "api_base", "endpoint", "anthropic_api_url", "openai_api_base")
"""Options of chat models that hold a server's address."""
_OLLAMA_TAG = re.compile(r"latest|e?\d+(\.\d+)?[bm](-.*)?")  # the part after the colon: `4b-thinking`
_SIMILAR = 0.75  # the least similarity of a misspelled provider


def check_name(reasoner: ReasonerConfig) -> str | None:
    """Check that the name of the weights fits the engine.

    Args:
        reasoner: The `reasoner` section of the configuration.

    Returns:
        A warning if the name is unusual for this engine; None if it is not.

    Raises:
        ConfigError: The engine cannot use weights of this name, or a chat model's package is missing.
    """
    if reasoner.use != "chat" and (found := name_in_address(reasoner.weights)):
        raise ConfigError(
            f"reasoner.weights {reasoner.weights!r} is the address of hub weights: write `weights: {found}`"
        )
    match reasoner.use:
        case "transformers" | "vllm" if _is_gguf(reasoner.weights):
            raise ConfigError(_not_for_gguf(reasoner))
        case "vllm-http" if _is_gguf(reasoner.weights):
            return _not_for_gguf(reasoner)
        case "llama-cpp":
            return _check_llama_cpp(reasoner.weights)
        case "chat":
            check_chat_name(reasoner.weights, reasoner.options, "reasoner.weights")
    return None


def explain_use(given: str) -> str:
    """Return what to write for a `reasoner.use` that does not exist; empty if that is not known."""
    meant = given.replace("-", "_").lower()
    if meant in ("llamacpp", "llama_cpp", "llama.cpp", "llama", "llama_server", "gguf"):
        return "did you mean 'llama-cpp'?"
    if meant in _OTHER_NAMES or meant in KEYS or meant == "ollama":
        provider = _OTHER_NAMES.get(meant, meant)
        return f"write `use: chat` and `weights: {provider}:NAME`"
    return ""


def explain_key(given: str) -> str:
    """Return where a key of the reasoner belongs that does not exist; empty if that is not known."""
    if given in ("model", "name", "model_name", "checkpoint"):
        return "did you mean 'weights'?"
    if given in (*_ADDRESSES, "url", "mmproj", "api_key", "key_env", "num_ctx"):
        return f"it belongs to options: `options: {{{given}: ...}}`"
    return ""


def _is_gguf(name: str) -> bool:
    return is_gguf(name) or split_revision(name)[0].lower().endswith(".gguf")


def _not_for_gguf(reasoner: ReasonerConfig) -> str:
    """Return the problem with a GGUF model on an engine for safetensors."""
    other = ""
    if is_gguf(reasoner.weights):
        repository = split_revision(reasoner.weights)[0].partition(":")[0]
        other = f", or `weights: {re.sub('[-_.]?gguf$', '', repository, flags=re.IGNORECASE)}`"
    return (
        f"reasoner.weights {reasoner.weights!r} is a GGUF model, and `use: {reasoner.use}` loads "
        f"safetensors: write `use: llama-cpp`{other}"
    )


def _check_llama_cpp(name: str) -> str | None:
    """Check the name of a GGUF model; return a warning if it may be another kind of name.

    A bare name is the model's name on a server that the user has started.
    """
    if _is_gguf(name):
        return None
    repository = split_revision(name)[0].partition(":")[0]
    if name.startswith("micro:") or name.startswith((".", "/", "~")):
        raise ConfigError(
            f"reasoner.weights {name!r} is no GGUF model, which `use: llama-cpp` needs: name a file "
            "(….gguf) or a repository (owner/name-GGUF:Q8_0), or write `use: transformers`"
        )
    if "/" not in repository:
        return None
    advice = f"write `weights: {repository}-GGUF:Q8_0` (a repository of GGUF files), or `use: transformers`"
    if known_weights(repository):
        raise ConfigError(
            f"reasoner.weights {name!r} holds safetensors, and `use: llama-cpp` needs GGUF files: {advice}"
        )
    return (
        f"reasoner.weights {name!r} does not look like a repository of GGUF files, which `use: llama-cpp` "
        f"needs: if it is not, {advice}"
    )


def check_chat_name(name: str, options: Mapping[str, Any], where: str) -> None:
    """Check the provider of a chat model, its package, and the address of a server.

    Args:
        name: The model as `provider:model`.
        options: The options of the provider's chat model.
        where: The config key that names the model, for messages.

    Raises:
        ConfigError: LangChain would not know the model, its package is missing, or an option is wrong.
    """
    if better := _better_chat_name(name, options):
        raise ConfigError(f"{where} {name!r} names no provider that LangChain knows: {better}")
    provider = str(options.get("model_provider") or name.partition(":")[0]).replace("-", "_").lower()
    package, extra = _EXTRAS.get(provider, ("langchain", "chat"))
    if find_spec("langchain") is None or find_spec(package) is None:
        raise ConfigError(
            f"{where} {name!r} needs packages that are not installed: pip install 'act2see[{extra}]'"
        )
    if provider == "ollama":
        return  # its client adds the scheme
    if provider == "openai" and options.get("base_url") and missing_key("openai:", options):
        raise ConfigError(
            f"{where} {name!r} has no key: add `api_key: none` to its options if your server needs none, "
            "else export OPENAI_API_KEY=..."
        )
    for option in _ADDRESSES:
        address = options.get(option)
        if isinstance(address, str) and address and "://" not in address:
            raise ConfigError(
                f"{where} {name!r}: {option} {address!r} does not begin with http:// or https://: write "
                f"http://{address}"
            )


def _better_chat_name(name: str, options: Mapping[str, Any]) -> str | None:
    """Return what to write instead of a chat model's name; None if LangChain may know it."""
    if options.get("model_provider"):
        return None
    known = _providers()
    provider, colon, model = name.partition(":")
    if colon and provider in known:
        return None
    if name.startswith("micro:"):
        return "write `use: transformers` for weights of this package"
    if colon and (meant := _meant_provider(provider, known)):
        return _advise(meant, model, options)
    if options.get("base_url"):
        return None if _inferred(name) else f"write `openai:{name}` for a server with OpenAI's protocol"
    provider, slash, model = name.partition("/")
    if slash and (meant := _meant_provider(provider, known)):
        return _advise(meant, model, options)
    if _is_gguf(name):
        return "it is a GGUF model: write `use: llama-cpp`"
    if name.startswith("gemini") and find_spec("langchain_google_vertexai") is None:
        return f"write `google_genai:{name}`"
    if _OLLAMA_TAG.fullmatch(name.partition(":")[2]):
        return f"write `ollama:{name}` for a model of Ollama"
    return None


def _inferred(name: str) -> str | None:
    """Return the provider that LangChain infers from a model's name; None if it infers none."""
    if find_spec("langchain") is None:
        return None
    from langchain.chat_models import base

    infer = getattr(base, "_attempt_infer_model_provider", lambda _: None)
    return str(found) if (found := infer(name)) else None


def _providers() -> set[str]:
    """Return LangChain's names of providers."""
    known = {*KEYS, "ollama"}
    if find_spec("langchain") is not None:
        from langchain.chat_models import base

        known |= set(getattr(base, "_BUILTIN_PROVIDERS", ()))
    return known


def _meant_provider(given: str, known: set[str]) -> str | None:
    """Return the provider that a name means; None if it is not similar to any."""
    given = given.replace("-", "_").lower()
    if given in known:
        return given
    if given in _OTHER_NAMES:
        return _OTHER_NAMES[given]
    near = get_close_matches(given, sorted(known), n=1, cutoff=_SIMILAR)
    return near[0] if near else None


def _advise(provider: str, model: str, options: Mapping[str, Any]) -> str:
    advice = f"write `{provider}:{model}`"
    if provider == "openai" and not options.get("base_url"):
        advice += " (with `base_url` in its options for a server of your own)"
    return advice
