"""The OpenAPI document of the wide door, made from the structs that decode its requests. Knows no server."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from gateway import __version__
from gateway.openai.requests import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest

_STRUCTS = (ChatRequest, CompletionRequest, TokenizeRequest, DetokenizeRequest)
_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "integer"}
_OBJECT: dict[str, Any] = {"type": "object"}
_ROWS: dict[str, Any] = {"type": "array", "items": _OBJECT}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _fields(required: tuple[str, ...], **fields: dict[str, Any]) -> dict[str, Any]:
    """An object with these fields; more are allowed, as everywhere."""
    return {"type": "object", "properties": fields, "required": list(required)}


_SCHEMAS: dict[str, Any] = {
    "Error": _fields(
        ("error",),
        error=_fields(
            ("message", "type"),
            message=_TEXT,
            type=_TEXT,
            param={"anyOf": [_TEXT, {"type": "null"}]},
            code={"anyOf": [_TEXT, {"type": "null"}]},
        ),
    ),
    "AnthropicError": _fields(
        ("type", "error"), type={"const": "error"}, error=_fields(("type", "message"), type=_TEXT, message=_TEXT)
    ),
    "Answer": _fields(
        ("id", "object", "created", "model", "choices"),
        id=_TEXT, object=_TEXT, created=_NUMBER, model=_TEXT, choices=_ROWS, usage=_OBJECT,
    ),
    "Tokens": _fields(
        ("tokens", "count"), tokens={"type": "array", "items": _NUMBER}, count=_NUMBER, max_model_len=_NUMBER
    ),
    "Prompt": _fields(("prompt",), prompt=_TEXT),
    "TokenizerInfo": _fields(
        ("eos_token",), eos_token=_TEXT, chat_template={"anyOf": [_TEXT, {"type": "null"}]}
    ),
    "Model": _fields(
        ("id", "object", "created", "owned_by"),
        id=_TEXT, object={"const": "model"}, created=_NUMBER, owned_by=_TEXT,
        max_model_len={"anyOf": [_NUMBER, {"type": "null"}]}, gateway=_OBJECT,
    ),
    "Models": _fields(("object", "data"), object={"const": "list"}, data={"type": "array", "items": _ref("Model")}),
    "Health": _fields(("status",), status={"enum": ["ok", "degraded", "down"]}, models=_OBJECT),
    "ResponsesRequest": _fields(
        ("input",),
        model=_TEXT,
        input={"anyOf": [_TEXT, _ROWS]},
        instructions={"anyOf": [_TEXT, {"type": "null"}]},
        max_output_tokens={"anyOf": [_NUMBER, {"type": "null"}]},
        temperature={"anyOf": [{"type": "number"}, {"type": "null"}]},
        top_p={"anyOf": [{"type": "number"}, {"type": "null"}]},
        previous_response_id={"anyOf": [_TEXT, {"type": "null"}]},
        store={"type": "boolean"},
        stream={"type": "boolean"},
        background={"type": "boolean"},
        metadata={"type": "object", "additionalProperties": _TEXT},
        tools=_ROWS,
        tool_choice={"anyOf": [_TEXT, _OBJECT]},
        parallel_tool_calls={"type": "boolean"},
        reasoning=_OBJECT,
        text=_OBJECT,
        truncation=_TEXT,
        include={"type": "array", "items": _TEXT},
        user=_TEXT,
    ),
    "Response": _fields(
        ("id", "object", "status", "model", "output"),
        id=_TEXT, object={"const": "response"}, status=_TEXT, model=_TEXT, output=_ROWS, usage={},
    ),
    "MessagesRequest": _fields(
        ("messages", "max_tokens"),
        model=_TEXT,
        messages=_ROWS,
        max_tokens=_NUMBER,
        system={"anyOf": [_TEXT, _ROWS]},
        stop_sequences={"type": "array", "items": _TEXT},
        stream={"type": "boolean"},
        temperature={"type": "number"},
        top_p={"type": "number"},
        top_k=_NUMBER,
        tools=_ROWS,
        tool_choice=_OBJECT,
        metadata=_OBJECT,
        thinking=_OBJECT,
    ),
    "Message": _fields(
        ("id", "type", "role", "content", "model", "usage"),
        id=_TEXT, type={"const": "message"}, role=_TEXT, content=_ROWS, model=_TEXT, usage=_OBJECT,
    ),
    "TokenCount": _fields(("input_tokens",), input_tokens=_NUMBER),
    "Upload": _fields(("file", "purpose"), file={"type": "string", "format": "binary"}, purpose=_TEXT),
    "File": _fields(("id", "object"), id=_TEXT, object={"const": "file"}, bytes=_NUMBER, purpose=_TEXT, filename=_TEXT),
    "BatchRequest": _fields(
        ("input_file_id", "endpoint"),
        input_file_id=_TEXT, endpoint=_TEXT, completion_window=_TEXT, metadata={"anyOf": [_OBJECT, {"type": "null"}]},
    ),
    "Batch": _fields(
        ("id", "object", "status"), id=_TEXT, object={"const": "batch"}, status=_TEXT, request_counts=_OBJECT
    ),
    "List": _fields(("object", "data"), object={"const": "list"}, data=_ROWS),
    "Deleted": _fields(("id", "deleted"), id=_TEXT, deleted={"type": "boolean"}),
}  # fmt: skip


def _page(
    what: str,
    answer: str,
    body: str = "",
    *,
    stream: bool = False,
    query: tuple[str, ...] = (),
    form: bool = False,
    error: str = "Error",
) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _ref(answer)}} if answer else {"*/*": {}}
    if stream:
        content["text/event-stream"] = {"schema": _TEXT}
    page: dict[str, Any] = {
        "summary": what,
        "responses": {
            "200": {"description": what, "content": content},
            "4XX": {"description": "Refused, and why", "content": {"application/json": {"schema": _ref(error)}}},
            "5XX": {"description": "No model could answer", "content": {"application/json": {"schema": _ref(error)}}},
        },
    }
    if body:
        kind = "multipart/form-data" if form else "application/json"
        page["requestBody"] = {"required": True, "content": {kind: {"schema": _ref(body)}}}
    if query:
        page["parameters"] = [
            {"name": name, "in": "query", "schema": _NUMBER if name == "limit" else _TEXT} for name in query
        ]
    return page


def _at(name: str, **methods: dict[str, Any]) -> dict[str, Any]:
    """A path that ends in, or goes through, a name."""
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": _TEXT}], **methods}


def _paths() -> dict[str, Any]:
    return {
        "/v1/chat/completions": {"post": _page("A chat completion", "Answer", "ChatRequest", stream=True)},
        "/v1/completions": {"post": _page("A completion", "Answer", "CompletionRequest", stream=True)},
        "/v1/responses": {"post": _page("A response", "Response", "ResponsesRequest", stream=True)},
        "/v1/responses/{response_id}": _at(
            "response_id",
            get=_page("A response that was stored", "Response"),
            delete=_page("Delete a stored response", "Deleted"),
        ),
        "/v1/responses/{response_id}/cancel": _at(
            "response_id", post=_page("Cancel a response in the background", "Response")
        ),
        "/v1/messages": {
            "post": _page("A message, in Anthropic's shape", "Message", "MessagesRequest", stream=True,
                          error="AnthropicError")
        },
        "/v1/messages/count_tokens": {
            "post": _page("The tokens of a message", "TokenCount", "MessagesRequest", error="AnthropicError")
        },
        "/v1/files": {
            "post": _page("Upload a file", "File", "Upload", form=True),
            "get": _page("The files", "List", query=("limit", "after", "order", "purpose")),
        },
        "/v1/files/{file_id}": _at(
            "file_id", get=_page("A file's facts", "File"), delete=_page("Delete a file", "Deleted")
        ),
        "/v1/files/{file_id}/content": _at("file_id", get=_page("A file's bytes", "")),
        "/v1/batches": {
            "post": _page("Begin a batch", "Batch", "BatchRequest"),
            "get": _page("The batches", "List", query=("limit", "after")),
        },
        "/v1/batches/{batch_id}": _at("batch_id", get=_page("A batch", "Batch")),
        "/v1/batches/{batch_id}/cancel": _at("batch_id", post=_page("Cancel a batch", "Batch")),
        "/v1/models": {"get": _page("What is served", "Models")},
        "/v1/models/{model}": _at("model", get=_page("One model", "Model")),
        "/tokenize": {"post": _page("A text's tokens", "Tokens", "TokenizeRequest")},
        "/detokenize": {"post": _page("The text of tokens", "Prompt", "DetokenizeRequest")},
        "/tokenizer_info": {"get": _page("A tokenizer's special tokens and template", "TokenizerInfo")},
        "/health": {"get": _page("How the models are", "Health")},
        "/metrics": {"get": _page("Counters, as Prometheus reads them", "")},
    }  # fmt: skip


@cache
def document() -> bytes:
    """OpenAPI 3.1 as JSON."""
    _, schemas = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "model-gateway", "version": __version__},
        "paths": _paths(),
        "components": {
            "schemas": {**schemas, **_SCHEMAS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        # A key is needed only where keys are on.
        "security": [{}, {"key": []}],
    }
    return msgspec.json.encode(whole)
