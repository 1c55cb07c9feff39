"""The layer in which requests of the Messages API become chat completions, and their answers messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway import messages
from gateway.errors import MethodNotAllowed
from gateway.ingress.record import Layer
from gateway.ingress.request import GatewayRequest
from gateway.types import Headers, Message, Receive, Scope, Send

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"

_encode = msgspec.json.Encoder().encode
_Ask = Callable[[Mapping[str, msgspec.Raw]], dict[str, Any]]
_Tell = Callable[[bytes], bytes]
_WAYS: dict[str, tuple[str, _Ask, _Tell]] = {
    MESSAGES: ("/v1/chat/completions", messages.chat_of, messages.message_of),
    COUNT: ("/tokenize", messages.tokenize_of, messages.count_of),
}


class Messages:
    """All other paths pass untouched."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    async def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        way = _WAYS.get(request.path)
        if way is None:
            return await self._layer(request, scope, receive, send)
        path, ask, tell = way
        if request.method != "POST":
            raise MethodNotAllowed(f"{request.path} takes POST, not {request.method}")
        own = request.path
        body = _encode(ask(request.fields))
        try:
            request.become(path, body)
            await self._layer(request, scope, receive, _Answer(request, tell, send))
        finally:
            # The record speaks of what the client asked.
            request.path = own
        return None


class _Answer:
    """The `send` of one request: a whole answer is held until it can be told, events leave as they come."""

    def __init__(self, request: GatewayRequest, tell: _Tell, send: Send) -> None:
        self._request = request
        self._tell = tell
        self._send = send
        self._start: Message = {}
        self._stream: messages.MessageStream | None = None
        self._held = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._head(message)
        elif message["type"] == "http.response.body":
            await self._body(message.get("body", b""), more=message.get("more_body", False))

    async def _head(self, message: Message) -> None:
        headers: Headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"content-length"]
        headers.append((b"request-id", self._request.id.encode("latin-1")))
        self._start = {**message, "headers": headers}
        kinds = [value for name, value in headers if name.lower() == b"content-type"]
        if message["status"] < 400 and any(kind.startswith(b"text/event-stream") for kind in kinds):
            self._stream = messages.MessageStream(self._request.id)
            await self._send(self._start)

    async def _body(self, body: bytes, *, more: bool) -> None:
        if self._stream is not None:
            events = self._stream.push(body) + (b"" if more else self._stream.end())
            if events or not more:
                await self._send({"type": "http.response.body", "body": events, "more_body": more})
            return
        self._held += body
        if more:
            return
        status: int = self._start["status"]
        whole = bytes(self._held)
        told = self._tell(whole) if status < 400 else messages.error_body(status, whole, self._request.id)
        self._start["headers"].append((b"content-length", str(len(told)).encode()))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": told})
