"""Make a LangChain chat model from its name and options, or report the missing package, key or name.

Each provider's package reports a missing key in its own way (an exception of its client, several lines from
pydantic, or nothing before the first request), so the key is checked here. `probe.py` checks that the server
accepts it. An option of another provider is passed on to the first request or ignored, each by some package,
so unknown options are an error here too.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import AliasChoices, ValidationError

from act2see.errors import ConfigError
from act2see.tools.runtime.text import first_problem

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

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
"""The variables in which LangChain's packages look for a provider's key; the first is the one to set."""
# Providers whose packages make a model without a key, and fail at the first request.
_LATE_KEY_CHECK = {"anthropic", "mistralai"}
# Options that name the user's own server, which may need no key.
_ADDRESSES = ("base_url", "endpoint", "anthropic_api_url", "default_headers")
_ANSWER_TIMEOUT = 600.0  # seconds that a server may send nothing
_CONNECT_TIMEOUT = 5.0  # seconds that connecting may take
_SIMILAR = 0.85  # the least similarity of a misspelled option
_MENTIONS_KEY = re.compile(r"api[_ ]key|credentials", re.IGNORECASE)
_KEY_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9_]*_(?:API_KEY|API_TOKEN|KEY)\b")


def chat_model(name: str, options: Mapping[str, Any], where: str) -> BaseChatModel:
    """Make a LangChain chat model.

    Args:
        name: The model as `provider:model`.
        options: The options of the provider's chat model.
        where: The config key that names the model, for messages.

    Raises:
        ConfigError: A package or the key is missing, or the model or an option does not exist.
    """
    if not name.rpartition(":")[2].strip():
        raise ConfigError(f"{where} {name!r} names no model: name it as provider:model, as in openai:gpt-4o")
    if (variable := _malformed_key(_named_provider(name, options), options)) is not None:
        raise ConfigError(
            f"{where} {name!r}: the key in {variable} holds a space or an invalid character: copy it again"
        )
    model = _init_model(name, options, where)
    provider = provider_of(model)
    if provider in _LATE_KEY_CHECK and not any(options.get(o) for o in _ADDRESSES):
        variable = missing_key(f"{provider}:", options)
        if variable is not None:
            raise ConfigError(_missing_key_message(where, name, variable))
    if unknown := sorted(_unknown_options(model, options)):
        raise ConfigError(f"{where} {name!r}: {_unknown_options_message(model, unknown)}")
    return model


def _unknown_options(model: BaseChatModel, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options that a chat model ignores, or with which its requests would fail.

    Packages keep options that are no field of the model in its `model_kwargs`, or drop them.
    """
    known = {"model_provider", *_fields(model)}
    kept: Mapping[str, Any] = getattr(model, "model_kwargs", None) or {}
    sent = _request_parameters(model)
    for option in options:
        is_sent = option in kept and (sent is None or option in sent)
        if option not in known and not is_sent and option not in (model.model_extra or {}):
            yield option


def _unknown_options_message(model: BaseChatModel, unknown: list[str]) -> str:
    """Return what is wrong with these options, and what to write."""
    provider = provider_of(model)
    named = []
    for option in unknown:
        near = get_close_matches(option, sorted(_fields(model)), n=1, cutoff=_SIMILAR)
        named.append(f"{option} (did you mean {near[0]}?)" if near else option)
    advice = "remove them"
    if provider == "openai":
        advice += ", or put those that your server knows into extra_body"
    return f"{provider} does not know the options {', '.join(named)}: {advice}"


def _fields(model: BaseChatModel) -> set[str]:
    """Return the options that a chat model's class declares, under all of their names."""
    names: set[str | None] = set()
    for name, field in type(model).model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        names |= {name, field.alias, *(choice for choice in choices if isinstance(choice, str))}
    return {name for name in names if name is not None}


def _request_parameters(model: Any) -> frozenset[str] | None:
    """Return the parameters of a provider's requests; None if they are not known."""
    if provider_of(model) == "google_genai":
        return frozenset()  # its package sends none of `model_kwargs`
    client = getattr(model, "root_async_client", None)  # OpenAI's
    if client is None:
        return None
    requests = (client.chat.completions.create, client.responses.create)
    return frozenset(name for request in requests for name in inspect.signature(request).parameters)


@contextmanager
def _without_option_lines() -> Iterator[None]:
    """Drop the lines that Google's package logs for unknown options, for which there is an error."""

    def is_other(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Unexpected argument")

    logger = logging.getLogger("langchain_google_genai.chat_models")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _init_model(name: str, options: Mapping[str, Any], where: str) -> BaseChatModel:
    """Call LangChain's `init_chat_model`. Raise `ConfigError` for any of its errors."""
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as e:
        raise ConfigError(
            "a chat model needs LangChain: `pip install 'act2see[chat]'` and the provider's package"
        ) from e
    try:
        with warnings.catch_warnings(), _without_option_lines():
            # LangChain warns of a provider that it guesses from the model's name.
            warnings.simplefilter("ignore", DeprecationWarning)
            # It warns of options that are no field of the model, which `_unknown_options` examines.
            warnings.filterwarnings("ignore", r"WARNING! \S+ is not default parameter", UserWarning)
            model: BaseChatModel
            if _named_provider(name, options) == "openai" and options.get("base_url"):
                from act2see.agent.reasoners.chat.local_openai import LocalChatOpenAI

                given = {key: value for key, value in options.items() if key != "model_provider"}
                model = LocalChatOpenAI(model=name.removeprefix("openai:"), **given)
            else:
                model = init_chat_model(name, **options)
    except ImportError as e:
        if found := re.search(r"`(pip install [\w.-]+)`", str(e)):
            raise ConfigError(f"{where} {name!r} needs its provider's package: {found[1]}") from e
        raise ConfigError(f"{where} {name!r}: {_join_lines(e)}") from e
    except Exception as e:  # each package has its own errors for a missing key or an unknown option
        variable = missing_key(name, options, str(e))
        if variable is not None:
            raise ConfigError(_missing_key_message(where, name, variable)) from e
        raise ConfigError(f"{where} {name!r} cannot be set up: {_first_problem_line(e)}") from e
    return model


def provider_of(model: BaseChatModel) -> str:
    """Return LangChain's name of a chat model's provider: `openai` for `langchain_openai.ChatOpenAI`."""
    packages = [kind.__module__.partition(".")[0] for kind in type(model).__mro__]
    known = [package for package in packages if package.startswith("langchain_")]
    return (known or packages)[0].removeprefix("langchain_")


def _named_provider(name: str, options: Mapping[str, Any]) -> str:
    """Return the provider in a model's name or options; empty if LangChain has to guess it."""
    named = options.get("model_provider") or (name.partition(":")[0] if ":" in name else "")
    return str(named).replace("-", "_").lower()


def reasoner_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a reasoner's chat model.

    A reasoner does its own retries, and sends its requests from its own event loop. Google's package would
    retry an absent server for half a minute. OpenAI's package shares one HTTP client among all models of an
    address, unless their timeout cannot be hashed; the reasoner must not share it, since other models open
    its connections on another loop.

    Args:
        name: The model as `provider:model`.
        options: The options from the config, which override these.
    """
    provider = _named_provider(name, options)
    if provider == "google_genai":
        return {"max_retries": 1, **options}
    if provider == "openai":
        import httpx

        return {"timeout": httpx.Timeout(_ANSWER_TIMEOUT, connect=_CONNECT_TIMEOUT), **options}
    return dict(options)


def missing_key(name: str, options: Mapping[str, Any], complaint: str = "") -> str | None:
    """Return the environment variable that should hold the provider's key but is not set.

    Args:
        name: The model as `provider:model`.
        options: The options of the provider's chat model.
        complaint: The error message of the provider's package. For a provider that is missing in `KEYS`, the
            message names the variable.

    Returns:
        The variable; None if the key is given, or is not known to be needed.
    """
    if _given_keys(options):
        return None
    known = KEYS.get(_named_provider(name, options))
    if known is None and _MENTIONS_KEY.search(complaint):
        known = tuple(_KEY_VARIABLE.findall(complaint))
    if not known or any(os.environ.get(variable, "").strip() for variable in known):
        return None
    return known[0]


def _given_keys(options: Mapping[str, Any]) -> list[str]:
    keys = []
    for option, value in options.items():
        is_key = option == "api_key" or option.endswith("_api_key")
        if is_key and str(value or "").strip():
            keys.append(str(value))
    return keys


def _malformed_key(provider: str, options: Mapping[str, Any]) -> str | None:
    """Return the place of a key that cannot be sent, as it is not ASCII or contains a space; else None."""
    if given := _given_keys(options):
        return None if all(map(_is_sendable, given)) else "the options"
    variables = [v for v in KEYS.get(provider, ()) if os.environ.get(v, "").strip()]
    return variables[0] if variables and not _is_sendable(os.environ[variables[0]]) else None


def _is_sendable(key: str) -> bool:
    return key.isascii() and key.isprintable() and " " not in key


def _missing_key_message(where: str, name: str, variable: str) -> str:
    return f"{where} {name!r} has no key: export {variable}=... (the key of your account), then start again"


def _join_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _first_problem_line(error: Exception) -> str:
    """Return the first problem of a package's error in one line.

    Errors of pydantic list many problems, and the values that were given.
    """
    if isinstance(error, ValidationError):
        path, problem = first_problem(error)
        return (f"{path}: {problem}" if path else problem)[:300]
    if "infer model provider" in str(error):
        return (
            "name it as provider:model, with a provider that LangChain knows (openai, google_genai, "
            "anthropic, mistralai, ollama, ...)"
        )
    return _join_lines(error)
