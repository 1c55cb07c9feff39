"""The OpenAPI document of the wide door, made from the structs that decode its requests. Knows no server."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from gateway import __version__
from gateway.batches.lines import ENDPOINTS
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
    "Status": _fields(
        ("object", "status", "version", "uptime_s", "gateway", "models", "routes", "apps", "errors"),
        object={"const": "gateway.status"}, status={"enum": ["ok", "degraded", "down"]}, version=_TEXT,
        time={"type": "number"}, started_at={"type": "number"}, uptime_s={"type": "number"}, gateway=_OBJECT,
        models=_ROWS, routes=_ROWS, apps=_ROWS, errors=_ROWS,
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
        output_config=_OBJECT,
        metadata=_OBJECT,
        thinking=_OBJECT,
    ),
    "Message": _fields(
        ("id", "type", "role", "content", "model", "usage"),
        id=_TEXT, type={"const": "message"}, role=_TEXT, content=_ROWS, model=_TEXT, usage=_OBJECT,
    ),
    "ResponseRequest": _fields(
        ("input",),
        model=_TEXT,
        input={"anyOf": [_TEXT, _ROWS]},
        instructions=_TEXT,
        max_output_tokens=_NUMBER,
        previous_response_id=_TEXT,
        store={"type": "boolean"},
        stream={"type": "boolean"},
        background={"type": "boolean"},
        temperature={"type": "number"},
        top_p={"type": "number"},
        tools=_ROWS,
        tool_choice={"anyOf": [_TEXT, _OBJECT]},
        parallel_tool_calls={"type": "boolean"},
        text=_OBJECT,
        reasoning=_OBJECT,
        metadata=_OBJECT,
    ),
    "File": _fields(
        ("id", "object", "bytes", "created_at", "filename", "purpose"),
        id=_TEXT, object={"const": "file"}, bytes=_NUMBER, created_at=_NUMBER, filename=_TEXT, purpose=_TEXT,
    ),
    "Files": _fields(("object", "data"), object={"const": "list"}, data={"type": "array", "items": _ref("File")}),
    "BatchRequest": _fields(
        ("input_file_id", "endpoint", "completion_window"),
        input_file_id=_TEXT, endpoint={"enum": list(ENDPOINTS)}, completion_window={"const": "24h"}, metadata=_OBJECT,
    ),
    "Batch": _fields(
        ("id", "object", "endpoint", "status", "request_counts"),
        id=_TEXT, object={"const": "batch"}, endpoint=_TEXT, status=_TEXT, input_file_id=_TEXT, request_counts=_OBJECT,
    ),
    "Batches": _fields(("object", "data"), object={"const": "list"}, data={"type": "array", "items": _ref("Batch")}),
    "Response": _fields(
        ("id", "object", "created_at", "status", "model", "output"),
        id=_TEXT, object={"const": "response"}, created_at=_NUMBER, status=_TEXT, model=_TEXT, output=_ROWS,
    ),
    "VoteRequest": _fields(
        ("model_a", "model_b", "winner"),
        model_a=_TEXT, model_b=_TEXT, winner={"enum": ["model_a", "model_b", "tie", "both_bad"]},
    ),
    "Vote": _fields(
        ("id", "object", "created_at", "model_a", "model_b", "winner"),
        id=_TEXT, object={"const": "arena.vote"}, created_at=_NUMBER, model_a=_TEXT, model_b=_TEXT, winner=_TEXT,
    ),
    "Leaderboard": _fields(
        ("object", "data", "votes", "confidence"),
        object={"const": "list"}, data=_ROWS, votes=_NUMBER, confidence={"type": "number"},
    ),
    "Adapter": _fields(
        ("id", "object", "base", "name", "version", "state", "aliases", "resident"),
        id=_TEXT, object={"const": "adapter"}, engine_id=_TEXT, base=_TEXT, name=_TEXT, version=_NUMBER,
        base_digest=_TEXT, digest=_TEXT, source=_TEXT, rank=_NUMBER, state={"enum": ["verified", "failed"]},
        reason=_TEXT, metrics=_OBJECT, verdict=_OBJECT, created={"type": "number"}, wanted={"type": "boolean"},
        places=_ROWS, aliases={"type": "array", "items": _TEXT}, resident=_ROWS,
    ),
    "Adapters": _fields(
        ("object", "data", "models"), object={"const": "list"}, data={"type": "array", "items": _ref("Adapter")},
        models=_OBJECT,
    ),
    "AdapterLoad": _fields(
        ("lora_name", "lora_path"), lora_name=_TEXT, lora_path=_TEXT, load_inplace={"type": "boolean"}, model=_TEXT,
    ),
    "AdapterUnload": _fields(("lora_name",), lora_name=_TEXT, model=_TEXT),
    "Deleted": _fields(("id", "deleted"), id=_TEXT, deleted={"const": True}),
    "Items": _fields(("object", "data"), object={"const": "list"}, data=_ROWS),
    "TokenCount": _fields(("input_tokens",), input_tokens=_NUMBER),
}  # fmt: skip


def _page(
    what: str,
    answer: str,
    body: str = "",
    *,
    stream: bool = False,
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
        page["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return page


def _upload() -> dict[str, Any]:
    form = _fields(("purpose", "file"), purpose={"enum": ["batch"]}, file={**_TEXT, "format": "binary"})
    return _page("Hand in a file", "File") | {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    }


def _at(name: str, **methods: dict[str, Any]) -> dict[str, Any]:
    """A path that ends in, or goes through, a name."""
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": _TEXT}], **methods}


def _paths() -> dict[str, Any]:
    return {
        "/v1/chat/completions": {"post": _page("A chat completion", "Answer", "ChatRequest", stream=True)},
        "/v1/completions": {"post": _page("A completion", "Answer", "CompletionRequest", stream=True)},
        "/v1/messages": {
            "post": _page("A message, in Anthropic's shape", "Message", "MessagesRequest", stream=True,
                          error="AnthropicError")
        },
        "/v1/messages/count_tokens": {
            "post": _page("The tokens of a message", "TokenCount", "MessagesRequest", error="AnthropicError")
        },
        "/v1/responses": {"post": _page("A response", "Response", "ResponseRequest", stream=True)},
        "/v1/responses/{response_id}": _at(
            "response_id", get=_page("A response that is kept", "Response"),
            delete=_page("Delete a response", "Deleted"),
        ),
        "/v1/responses/{response_id}/cancel": _at("response_id", post=_page("Cancel a response", "Response")),
        "/v1/responses/{response_id}/input_items": _at("response_id", get=_page("What it was asked", "Items")),
        "/v1/files": {"get": _page("The files that are kept", "Files"), "post": _upload()},
        "/v1/files/{file_id}": _at(
            "file_id", get=_page("What is known of a file", "File"), delete=_page("Delete a file", "Deleted")
        ),
        "/v1/files/{file_id}/content": _at("file_id", get=_page("A file, as it is", "")),
        "/v1/batches": {
            "get": _page("The batches that are kept", "Batches"), "post": _page("A batch", "Batch", "BatchRequest")
        },
        "/v1/batches/{batch_id}": _at("batch_id", get=_page("How far a batch is", "Batch")),
        "/v1/batches/{batch_id}/cancel": _at("batch_id", post=_page("Cancel a batch", "Batch")),
        "/v1/arena/votes": {"post": _page("Say which of two answers was better", "Vote", "VoteRequest")},
        "/v1/arena/leaderboard": {"get": _page("How strong models are, by all votes", "Leaderboard")},
        "/v1/models": {"get": _page("What is served", "Models")},
        "/v1/models/{model}": _at("model", get=_page("One model", "Model")),
        "/v1/adapters": {"get": _page("Every adapter: versions, verdicts, and which replicas hold it", "Adapters")},
        "/v1/load_lora_adapter": {"post": _page("Verify, register and load an adapter everywhere", "", "AdapterLoad")},
        "/v1/unload_lora_adapter": {
            "post": _page("Take an adapter away once its requests have ended", "", "AdapterUnload")
        },
        "/tokenize": {"post": _page("A text's tokens", "Tokens", "TokenizeRequest")},
        "/detokenize": {"post": _page("The text of tokens", "Prompt", "DetokenizeRequest")},
        "/tokenizer_info": {"get": _page("A tokenizer's special tokens and template", "TokenizerInfo")},
        "/health": {"get": _page("How the models are", "Health")},
        "/status": {"get": _page("Models, replicas, counters and the last requests that failed", "Status")},
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
