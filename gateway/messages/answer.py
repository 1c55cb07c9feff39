"""A chat completion, a token count or an error, in the shapes of Anthropic's API."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.errors import BackendFailed, GatewayError

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Function(msgspec.Struct):
    """What is called, in pieces or whole."""

    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct):
    """One of `tool_calls`."""

    index: int = 0
    id: str | None = None
    function: Function = msgspec.field(default_factory=Function)


class Said(msgspec.Struct):
    """A chat answer's `message`, or a chunk's `delta`."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct):
    """The one choice that a message has."""

    message: Said = msgspec.field(default_factory=Said)
    delta: Said = msgspec.field(default_factory=Said)
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class Usage(msgspec.Struct):
    """Chat's counts."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatAnswer(msgspec.Struct):
    """A whole answer or one chunk."""

    id: str = ""
    model: str = ""
    choices: list[Choice] = msgspec.field(default_factory=list[Choice])
    usage: Usage | None = None
    error: dict[str, Any] | None = None


class _Count(msgspec.Struct):
    count: int


class _Error(msgspec.Struct):
    error: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


_chat = msgspec.json.Decoder(ChatAnswer)
_encode = msgspec.json.Encoder().encode


def message_of(body: bytes) -> bytes:
    """A message from a whole chat completion. Raises BackendFailed for what is none."""
    try:
        answer = _chat.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackendFailed(f"the model's answer is no chat completion: {error}") from error
    if not answer.choices:
        raise BackendFailed("the model's answer holds no choice")
    choice = answer.choices[0]
    said, content = choice.message, list[dict[str, Any]]()
    if said.reasoning_content:
        content.append({"type": "thinking", "thinking": said.reasoning_content, "signature": ""})
    if said.content or not said.tool_calls:
        content.append({"type": "text", "text": said.content or ""})
    for call in said.tool_calls or ():
        content.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": _input(call)})
    reason, sequence = why(choice, called=bool(said.tool_calls))
    usage = answer.usage or Usage()
    return _encode(
        {
            **head(answer),
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens},
        }
    )


def head(answer: ChatAnswer) -> dict[str, Any]:
    """What a message begins with."""
    return {
        "id": "msg_" + answer.id.removeprefix("chatcmpl-"),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
    }


def why(choice: Choice, *, called: bool) -> tuple[StopReason, str | None]:
    """The stop reason, and the stop sequence where an engine told it."""
    # A call that was cut off is none: whoever reads `tool_use` would run it.
    if choice.finish_reason == "length":
        return "max_tokens", None
    if called:
        return "tool_use", None
    if isinstance(choice.stop_reason, str):
        return "stop_sequence", choice.stop_reason
    return ("refusal", None) if choice.finish_reason == "content_filter" else ("end_turn", None)


def count_of(body: bytes) -> bytes:
    """`count_tokens`' answer from that of `/tokenize`."""
    return _encode({"input_tokens": msgspec.json.decode(body, type=_Count).count})


def error_body(status: int, error: GatewayError | bytes, request_id: str) -> bytes:
    """An error; `error` as bytes is one in OpenAI's shape."""
    message = error.message if isinstance(error, GatewayError) else _message(error)
    return _encode(
        {
            "type": "error",
            "error": {"type": _ERROR_TYPES.get(status, "api_error"), "message": message},
            "request_id": request_id,
        }
    )


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body, type=_Error).error.get("message") or "the model failed")
    except msgspec.DecodeError:
        return body.decode(errors="replace") or "the model failed"


def _input(call: Call) -> Any:
    arguments = call.function.arguments or "{}"
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.DecodeError:
        # A model that was cut off, or that writes no object: what it wrote is not thrown away.
        return {"arguments": arguments}
