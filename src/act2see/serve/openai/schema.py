"""The server's OpenAPI schema, at `/openapi.json`, for people and for programs that test the server."""

from __future__ import annotations

from typing import Any

from act2see.serve.openai.wire import REFUSED, ChatRequest

_REF = "#/components/schemas/{model}"


def openapi_schema(model: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 schema of a server.

    Args:
        model: The model's name for clients.
    """
    request = ChatRequest.model_json_schema(ref_template=_REF)
    parts = request.pop("$defs")
    request["properties"]["model"] = {"const": model, "type": "string"}
    for field in REFUSED:
        request["properties"][field] = {"type": "null", "description": "Not supported."}
    body = {"required": True, "content": {"application/json": {"schema": request}}}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "act2see serve openai", "version": "1"},
        "paths": {
            "/health": {"get": _operation("Whether the server is up", {"200": "It is."})},
            "/v1/models": {"get": _operation("The models", {"200": "The list.", "401": "No key."})},
            "/v1/models/{name}": {
                "parameters": [name],
                "get": _operation("A model", {"200": "It.", "401": "No key.", "404": "Another name."}),
            },
            "/v1/chat/completions": {
                "post": _operation(
                    "Continue a chat",
                    {"200": "The answer, whole or as server-sent events.", "4XX": "OpenAI's error object."},
                )
                | {"requestBody": body}
            },
        },
        "components": {"schemas": parts},
    }


def _operation(summary: str, responses: dict[str, str]) -> dict[str, Any]:
    described = {status: {"description": text} for status, text in responses.items()}
    return {"summary": summary, "responses": described}
