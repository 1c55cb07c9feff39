"""Where vLLM's answers differ from what the gateway promises, and nowhere else: errors, and the first events of a chat
stream. A thin ASGI layer; all other messages pass through untouched. Imports no vLLM."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gateway.errors import (
    BackendFailed,
    BodyTooLarge,
    ContextOverflow,
    Forbidden,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from gateway.types import ASGIApp, Message, Receive, Scope, Send
from gateway_vllm.asking import adapt
from gateway_vllm.leaving import Leaving
from gateway_vllm.tools import Terms

_OVERFLOW = re.compile(r"maximum context length|context length \(\d+\)|max_model_len")
_STREAM_ERROR = b'data: {"error"'
_REASONING = re.compile(rb'"reasoning":("(?:[^"\\]|\\.)*")')
"""A JSON string under this key. Inside another string its quotes would be escaped, so text can never look like it."""

_ANY_TERMS = Terms()

_BY_STATUS: dict[int, type[GatewayError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: BodyTooLarge,
    422: InvalidRequest,
    429: TooManyRequests,
    501: Unsupported,
    503: Unavailable,
}


class _Error(msgspec.Struct):
    message: str = ""
    param: str | None = None
    code: int = 500


class _ErrorAnswer(msgspec.Struct):
    error: _Error = msgspec.field(default_factory=_Error)
    detail: Any = None


class Dialect:
    """vLLM's app, speaking as every backend does. `lifespan` is answered here: who made the app runs vLLM's own."""

    def __init__(
        self, app: ASGIApp, *, is_down: Callable[[], bool], reasoning: bool = False, terms: Terms = _ANY_TERMS
    ) -> None:
        """`is_down`: whether the engine has died. `reasoning`: whether answers may hold reasoning text, which is then
        sent under both of its names. `terms`: what vLLM understands of grammars and tools."""
        self.inner = app
        """vLLM's own app."""
        self._is_down = is_down
        self._reasoning = reasoning
        self._terms = terms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _answer_lifespan(receive, send)
        elif scope["type"] == "http":
            try:
                asked = await adapt(scope, receive, self._terms)
            except GatewayError as error:
                await send({"type": "http.response.start", "status": error.status, "headers": error.headers()})
                await send({"type": "http.response.body", "body": error.to_json()})
                return
            await Leaving(asked, send).run(self._speak, scope)
        else:
            await self.inner(scope, receive, send)

    async def _speak(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.inner(scope, receive, _Answer(scope, send, self._is_down, self._reasoning).send)


class _Answer:
    """One answer on its way: decides at its head what is to be done with its body."""

    def __init__(self, scope: Scope, send: Send, is_down: Callable[[], bool], reasoning: bool) -> None:
        self._send = send
        self._is_down = is_down
        self._reasoning = reasoning
        self._is_chat = scope["path"].endswith("/chat/completions")
        self._body: Callable[[Message], Awaitable[None]] = send
        self._start: Message = {}
        self._held = bytearray()
        self._roles: dict[int, dict[str, Any]] = {}
        """Role-only events by choice: each waits for its choice's first content."""

    def send(self, message: Message) -> Awaitable[None]:
        # Not a coroutine itself: what passes through untouched costs no frame of ours.
        if message["type"] == "http.response.body":
            return self._body(message)
        if message["type"] == "http.response.start":
            return self._head(message)
        return self._send(message)

    async def _head(self, message: Message) -> None:
        content_type = b"".join(value for name, value in message.get("headers", ()) if name == b"content-type")
        if message["status"] >= 400:
            self._start, self._body = message, self._hold_error
        elif content_type.startswith(b"text/event-stream"):
            self._body = self._first_events if self._is_chat else self._pass_events
            await self._send(message)
        elif self._reasoning and content_type.startswith(b"application/json"):
            self._start, self._body = message, self._hold_whole
        else:
            await self._send(message)

    async def _hold_error(self, message: Message) -> None:
        self._held += message.get("body", b"")
        if message.get("more_body"):
            return
        error = translate(self._start["status"], bytes(self._held), down=self._is_down())
        await self._whole(error.status, error.to_json(), error.headers())

    async def _hold_whole(self, message: Message) -> None:
        self._held += message.get("body", b"")
        if not message.get("more_body"):
            await self._whole(self._start["status"], both_spellings(bytes(self._held)), [])

    async def _whole(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        replaced = {b"content-length", *(name for name, _ in headers)}
        kept = [(name, value) for name, value in self._start.get("headers", ()) if name.lower() not in replaced]
        length = (b"content-length", str(len(body)).encode())
        await self._send({**self._start, "status": status, "headers": [*kept, *headers, length]})
        await self._send({"type": "http.response.body", "body": body})

    def _pass_events(self, message: Message) -> Awaitable[None]:
        body: bytes = message.get("body", b"")
        if body.startswith(_STREAM_ERROR):
            return self._send({**message, "body": self._event_error(body)})
        if self._reasoning:
            return self._send({**message, "body": both_spellings(body)})
        return self._send(message)

    async def _first_events(self, message: Message) -> None:
        """Until every choice has begun. vLLM sends each event as one message; whatever else comes passes through."""
        body: bytes = message.get("body", b"")
        event = _chunk(body)
        if event is None:
            if body.startswith(_STREAM_ERROR):
                self._roles.clear()
            elif self._roles and body.startswith(b"data: [DONE]"):
                # A choice that had no content: its role was all it had to say.
                body = b"".join(_event(role) for role in self._roles.values()) + body
                self._body = self._pass_events
            await self._pass_events({**message, "body": body})
            return
        index, delta = event["choices"][0]["index"], event["choices"][0]["delta"]
        if _is_role_only(event):
            self._roles[index] = event
            return
        role = self._roles.pop(index, None)
        if role is not None:
            event["choices"][0]["delta"] = {"role": role["choices"][0]["delta"]["role"], **delta}
            # The first event alone carries the prompt's ids and text, where they were asked for.
            event = {name: value for name, value in role.items() if value is not None} | event
            body = _event(event)
        if not self._roles:
            self._body = self._pass_events
        await self._pass_events({**message, "body": body})

    def _event_error(self, body: bytes) -> bytes:
        end = body.find(b"\n\n")
        head, rest = (body, b"") if end < 0 else (body[:end], body[end:])
        payload = head.removeprefix(b"data: ")
        error = translate(_code_of(payload), payload, down=self._is_down())
        return b"data: " + error.to_json() + rest


def translate(status: int, body: bytes, *, down: bool = False) -> GatewayError:
    """vLLM's error answer as one of ours. Its own `code` is a number and its `type` a Python name; a page or method it
    does not have is `{"detail": …}`. With `down`, its 500s mean that nobody is there: 503."""
    message, param = _message_of(body)
    if status >= 500 and status != 501:
        kind: type[GatewayError] = Unavailable if down or status == 503 else BackendFailed
    else:
        kind = _BY_STATUS.get(status, InvalidRequest)
    if kind is InvalidRequest and _OVERFLOW.search(message):
        kind = ContextOverflow
    elif kind is NotFound and param == "model":
        kind = ModelNotFound
    retry = 1.0 if kind in (TooManyRequests, Unavailable) else None
    if down and kind is Unavailable:
        message = "the engine of this model has died; it answers again once it was replaced"
    return kind(message or f"vllm answered {status} without saying why", param=param, retry_after_s=retry)


def both_spellings(body: bytes) -> bytes:
    """`reasoning` again as `reasoning_content`: clients read the one or the other."""
    return _REASONING.sub(rb'"reasoning":\1,"reasoning_content":\1', body)


def _message_of(body: bytes) -> tuple[str, str | None]:
    try:
        answer = msgspec.json.decode(body, type=_ErrorAnswer)
    except msgspec.DecodeError:
        return body.decode(errors="replace").strip(), None
    # vLLM names the place in the body (`body.max_tokens`) where OpenAI names the field; a number is an offset of bytes.
    param = answer.error.param.removeprefix("body.") if answer.error.param is not None else ""
    return answer.error.message or str(answer.detail or ""), param if param and not param.isdigit() else None


def _code_of(payload: bytes) -> int:
    """The status that an error inside a stream would have had: it travels as the error's code."""
    try:
        return msgspec.json.decode(payload, type=_ErrorAnswer).error.code
    except msgspec.DecodeError:
        return 500


def _chunk(body: bytes) -> dict[str, Any] | None:
    """The one chat chunk with one choice that these bytes are; None for anything else."""
    if not body.startswith(b"data: {") or body.find(b"\n\n") != len(body) - 2:
        return None
    try:
        event = msgspec.json.decode(body[6:-2])
    except msgspec.DecodeError:
        return None
    choices: list[dict[str, Any]] = event.get("choices", [])
    return event if len(choices) == 1 and "delta" in choices[0] else None


def _is_role_only(event: dict[str, Any]) -> bool:
    choice = event["choices"][0]
    delta = choice["delta"]
    return (
        "role" in delta
        and choice.get("finish_reason") is None
        and not any(delta[key] for key in delta if key != "role")
    )


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


async def _answer_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
