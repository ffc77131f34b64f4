"""python -m benchmarks.fuzz.http: requests drawn from a server's OpenAPI schema; no answer may be a 500.

Without `--url`, the server is `act2see serve openai` with micro. `--url http://127.0.0.1:2024/openapi.json`
tests any other server of this machine, such as the LangGraph server of `langgraph dev`. Hypothesis draws the
requests: values follow the schema, and some are replaced by any JSON, by odd strings or numbers.

schemathesis does the same and more, but no version of it fits this environment: those before 4.16 call
functions that hypothesis no longer has, later ones need another jsonschema-rs than the LangGraph server. In
an environment of its own, `schemathesis run URL --checks not_a_server_error` tests a running server.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx
import hypothesis
from hypothesis import strategies as st

_PATIENCE = 60.0  # seconds that an answer may take
_SHOWN = 10
_TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", "\x00", "a\nb", "\ud800", "../..", "<think>", "9" * 5000]
)
_NUMBERS = st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**63), 1e308, 10**400, 0.5, -0.0])
_ANY = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=5,
)


@dataclass
class Answers:
    """The answers of a server."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """The requests that were answered with 500 or more, or not at all."""


@dataclass(frozen=True)
class Values:
    """Draws values that follow a JSON schema, for the keywords that our servers' schemas have."""

    root: dict[str, Any]
    """The document that references point into."""
    odd: bool
    """Whether a value may be replaced by any other."""

    def of(self, schema: Any, depth: int = 0) -> st.SearchStrategy[Any]:
        """Return a strategy for the values of a schema."""
        drawn = self._proper(schema, depth) if isinstance(schema, dict) and depth < 8 else st.none()
        if not self.odd:
            return drawn
        return st.integers(0, 9).flatmap(lambda n: _ANY if n == 0 else drawn)

    def _proper(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        if "$ref" in schema:
            return self.of(self._resolve(schema["$ref"]), depth + 1)
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return st.one_of(*[self.of(one, depth + 1) for one in schema[several]])
        if "allOf" in schema:
            return self.of(schema["allOf"][0], depth + 1)
        kind = schema.get("type")
        if isinstance(kind, list):
            return st.one_of(*[self.of({**schema, "type": one}, depth + 1) for one in kind])
        if kind == "object" or "properties" in schema:
            return self._objects(schema, depth)
        if kind == "array":
            least = schema.get("minItems", 0)
            return st.lists(self.of(schema.get("items", {}), depth + 1), min_size=least, max_size=least + 3)
        return self._scalars(schema, kind)

    def _objects(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        fields = {name: self.of(one, depth + 1) for name, one in schema.get("properties", {}).items()}
        required = {name: drawn for name, drawn in fields.items() if name in schema.get("required", ())}
        optional = {name: drawn for name, drawn in fields.items() if name not in required}
        return st.fixed_dictionaries(required, optional=optional)

    def _scalars(self, schema: dict[str, Any], kind: str | None) -> st.SearchStrategy[Any]:
        if kind == "string":
            return st.uuids().map(str) if schema.get("format") == "uuid" else st.text(max_size=20)
        if kind == "integer":
            least = schema.get("minimum", 0)
            return st.integers(least, max(least, min(schema.get("maximum", 100), least + 100)))
        if kind == "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 0.01)
            return st.floats(least, schema.get("maximum", least + 1))
        if kind == "boolean":
            return st.booleans()
        return st.none() if kind == "null" else _ANY

    def _resolve(self, reference: str) -> Any:
        found: Any = self.root
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
        return found


def requests_of(root: dict[str, Any], odd: bool) -> dict[str, st.SearchStrategy[dict[str, Any]]]:
    """Return a strategy for the requests of each operation: its path, parameters and body."""
    values = Values(root, odd)
    made = {}
    for path, item in root["paths"].items():
        for method in item.keys() & {"get", "post", "put", "patch", "delete"}:
            operation = item[method]
            given = [*item.get("parameters", []), *operation.get("parameters", [])]
            places: dict[str, dict[str, Any]] = {"path": {}, "query": {}}
            for one in given:
                if one.get("in") in places:
                    places[one["in"]][one["name"]] = values.of(one.get("schema", {}))
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            made[f"{method.upper()} {path}"] = st.fixed_dictionaries(
                {
                    "path": st.fixed_dictionaries(places["path"]),
                    "query": st.fixed_dictionaries({}, optional=places["query"]),
                    "body": values.of(content["schema"]) if "schema" in content else st.just(None),
                }
            )
    return dict(sorted(made.items()))


def attack(
    url: str, examples: int, seed: int = 0, change: Callable[[Any], Any] = lambda body: body, skip: str = ""
) -> Answers:
    """Send requests to each operation of a server.

    Args:
        url: The URL of its OpenAPI schema.
        examples: The requests of each operation that follow the schema, and as many with odd values.
        seed: Draws the requests.
        change: Changes a body before it is sent, for example to keep answers short.
        skip: Operations whose name, such as "GET /docs", has this text are left out.
    """
    if urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise SystemExit("only a server of this machine may be tested")
    answers = Answers()
    with httpx.Client(base_url=urljoin(url, "/"), timeout=_PATIENCE) as http:
        root = http.get(url).json()
        for odd in (False, True):
            for name, drawn in requests_of(root, odd).items():
                if not skip or skip not in name:
                    _draw(name, drawn, http, answers, examples, seed, change)
    return answers


def _draw(
    name: str,
    drawn: st.SearchStrategy[dict[str, Any]],
    http: httpx.Client,
    answers: Answers,
    examples: int,
    seed: int,
    change: Callable[[Any], Any],
) -> None:
    """Send what a strategy draws, always the same for a seed."""
    method, _, template = name.partition(" ")

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(drawn)
    def send(request: dict[str, Any]) -> None:
        path = template
        for field_name, value in request["path"].items():
            text = value if isinstance(value, str) else json.dumps(value)
            path = path.replace(f"{{{field_name}}}", quote(text.encode("utf-8", "replace"), safe=""))
        query = {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in request["query"].items()}
        texts = {k: str(v).encode("utf-8", "replace").decode() for k, v in query.items()}
        body = b"" if request["body"] is None else json.dumps(change(request["body"])).encode()
        headers = {"content-type": "application/json"} if body else {}
        try:
            answer = http.request(method, path, params=texts, content=body, headers=headers)
        except httpx.HTTPError as e:
            answers.failures.append(f"{method} {path} {texts} {body[:1000]!r}: {type(e).__name__} {e}")
            return
        answers.statuses[answer.status_code] += 1
        if answer.status_code >= 500:
            answers.failures.append(f"{method} {path} {texts} {body[:1000]!r}: {answer.text[:300]}")

    send()


def short(body: Any) -> Any:
    """Return a chat's request with a limit of four tokens, unless its own is odd."""
    if not isinstance(body, dict):
        return body
    limit = body.get("max_tokens")
    is_long = limit is None or (isinstance(limit, int) and limit > 4)
    body = {key: value for key, value in body.items() if key != "max_completion_tokens"}
    return {**body, "max_tokens": 4} if is_long else body


def main() -> int:
    from benchmarks.load import run_server

    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz.http")
    parser.add_argument("--url", help="the schema of a server of this machine")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", default="", help="leave out operations whose name has this text")
    arguments = parser.parse_args()
    drawn = arguments.examples, arguments.seed
    if arguments.url:
        answers = attack(arguments.url, *drawn, skip=arguments.skip)
    else:
        with TemporaryDirectory() as folder, run_server(Path(folder) / "log") as (url, _):
            answers = attack(urljoin(url, "/openapi.json"), *drawn, short, arguments.skip)
    counted = ", ".join(f"{count:,} of {status}" for status, count in sorted(answers.statuses.items()))
    print(f"{answers.statuses.total():,} requests: {counted}; {len(answers.failures)} failed")
    print("\n".join(answers.failures[:_SHOWN]))
    return int(bool(answers.failures))


if __name__ == "__main__":
    sys.exit(main())
