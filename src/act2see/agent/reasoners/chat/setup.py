"""A LangChain chat model from its name and options, and what is wrong where there is none: the package, the
key, the name.

Each provider's package complains in a way of its own about a missing key (an exception of its client, several
lines of pydantic's, or nothing at all before the first request), so the key is looked for here. Nobody is
asked whether it is right: `probe.py` does.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from act2see.errors import ConfigError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

# Where LangChain's packages look for a provider's key; the first is the one to set.
KEYS: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "azure_openai": ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "OPENAI_API_KEY"),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "fireworks": ("FIREWORKS_API_KEY",),
    "google_genai": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    "groq": ("GROQ_API_KEY",),
    "mistralai": ("MISTRAL_API_KEY",),
    "nvidia": ("NVIDIA_API_KEY",),
    "openai": ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"),
    "openrouter": ("OPENROUTER_API_KEY",),
    "perplexity": ("PPLX_API_KEY", "PERPLEXITY_API_KEY"),
    "together": ("TOGETHER_API_KEY",),
    "upstage": ("UPSTAGE_API_KEY",),
    "xai": ("XAI_API_KEY",),
}
# Providers whose packages make a model without a key, and fail at the first request.
_SILENT = {"anthropic", "mistralai"}
_ADDRESSES = (
    "base_url",
    "endpoint",
    "anthropic_api_url",
    "default_headers",
)  # options that lead to a server of the user's own
_ANSWER, _CONNECT = 600.0, 5.0  # seconds: until a server says something more, and until it answers at all
_SAYS_KEY = re.compile(r"api[_ ]key|credentials", re.IGNORECASE)
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9_]*_(?:API_KEY|API_TOKEN|KEY)\b")


def chat_model(name: str, options: Mapping[str, Any], where: str) -> BaseChatModel:
    """A LangChain chat model, `provider:model`, with its own options. Raises `ConfigError`, which says
    `where` it was named."""
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as e:
        raise ConfigError(
            "a chat model needs LangChain: pip install 'act2see[chat]' and the provider's package"
        ) from e
    if not name.rpartition(":")[2].strip():
        raise ConfigError(f"{where} {name!r} names no model: name it as provider:model, as in openai:gpt-4o")
    if (variable := _spoilt_key(_named_provider(name, options), options)) is not None:
        raise ConfigError(
            f"{where} {name!r}: the key in {variable} holds a space or a character that no key has: copy it again"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # of a provider that is guessed from the model's name
            made: BaseChatModel = init_chat_model(name, **options)
    except ImportError as e:
        if found := re.search(r"`(pip install [\w.-]+)`", str(e)):
            raise ConfigError(f"{where} {name!r} needs its provider's package: {found[1]}") from e
        raise ConfigError(f"{where} {name!r}: {' '.join(str(e).split())[:300]}") from e
    except (
        Exception
    ) as e:  # each provider's package has its own errors for a missing key or an unknown option
        variable = missing_key(name, options, str(e))
        if variable is not None:
            raise ConfigError(_no_key(where, name, variable)) from e
        raise ConfigError(f"{where} {name!r} cannot be set up: {_line(e)}") from e
    provider = provider_of(made)
    if (
        provider in _SILENT
        and not any(options.get(o) for o in _ADDRESSES)
        and (variable := missing_key(f"{provider}:", options))
    ):
        raise ConfigError(_no_key(where, name, variable))
    return made


def provider_of(model: BaseChatModel) -> str:
    """The provider whose package a chat model is of, as LangChain calls it: `openai` for
    `langchain_openai.ChatOpenAI`."""
    return type(model).__module__.partition(".")[0].removeprefix("langchain_")


def _named_provider(name: str, options: Mapping[str, Any]) -> str:
    """The provider that a model's name or its options name; empty where LangChain has to guess it."""
    named = options.get("model_provider") or (name.partition(":")[0] if ":" in name else "")
    return str(named).replace("-", "_").lower()


def patient(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for a reasoner, which waits by itself and sends its requests from an event loop of its own.

    Google's package would look half a minute for a server that is not there. OpenAI's shares one HTTP client
    among all models of an address, unless their timeout cannot be hashed; ours must not meet the connections
    that other models opened on another loop.
    """
    provider = _named_provider(name, options)
    if provider == "google_genai":
        return {"max_retries": 1, **options}
    if provider == "openai":
        import httpx

        return {"timeout": httpx.Timeout(_ANSWER, connect=_CONNECT), **options}
    return dict(options)


def missing_key(name: str, options: Mapping[str, Any], said: str = "") -> str | None:
    """The variable that should hold the provider's key and does not. None where the key is there, or none is
    known to be needed.

    `said` is what the provider's package complained of: it tells of providers that are not known here.
    """
    if _given_keys(options):
        return None
    known = KEYS.get(_named_provider(name, options))
    if known is None and _SAYS_KEY.search(said):
        found = _VARIABLE.findall(said)
        known = tuple(dict.fromkeys(found))
    if not known or any(os.environ.get(variable, "").strip() for variable in known):
        return None
    return known[0]


def _given_keys(options: Mapping[str, Any]) -> list[str]:
    return [
        str(v)
        for o, v in options.items()
        if (o == "api_key" or o.endswith("_api_key")) and str(v or "").strip()
    ]


def _spoilt_key(provider: str, options: Mapping[str, Any]) -> str | None:
    """Where a key stands that cannot be sent: it is not ASCII, or has a space in it."""
    if any(not _sendable(key) for key in _given_keys(options)):
        return "the options"
    set_ = [v for v in KEYS.get(provider, ()) if os.environ.get(v, "").strip()]
    return set_[0] if not _given_keys(options) and set_ and not _sendable(os.environ[set_[0]]) else None


def _sendable(key: str) -> bool:
    return key.isascii() and key.isprintable() and " " not in key


def _no_key(where: str, name: str, variable: str) -> str:
    return f"{where} {name!r} has no key: export {variable}=... (the key of your account there), then start again"


def _line(error: Exception) -> str:
    """The first thing that is wrong, in a line: pydantic's errors are many lines, with the values that were
    given."""
    first = getattr(error, "errors", None)
    if callable(first):
        try:
            problem = first()[0]
            key = ".".join(map(str, problem["loc"]))
            return f"{key + ': ' if key else ''}{problem['msg'].removeprefix('Value error, ')}"[:300]
        except (TypeError, LookupError, AttributeError):
            pass
    if "infer model provider" in str(error):
        return "name it as provider:model, with a provider that LangChain knows (openai, google_genai, anthropic, mistralai, ollama, ...)"
    return " ".join(str(error).split())[:300]
