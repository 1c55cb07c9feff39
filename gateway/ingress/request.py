"""One request on its way through a door: what was read of it, and what is known of its answer so far."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from gateway.errors import BodyTooLarge, GatewayError, InvalidRequest, TooManyRequests, Unavailable
from gateway.types import Door, Outcome, Receive, RequestRecord, Scope, Usage

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KINDS = {kind: msgspec.json.Decoder(kind | None) for kind in (str, bool, dict[str, msgspec.Raw])}
_ENCODER = msgspec.json.Encoder()

STREAM_USAGE_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Where `stream_options.include_usage` is understood."""


_LONGEST_REASON = 200
_LONGEST_CODE = 60


class _Told(msgspec.Struct):
    code: str | int | None = None
    type: str = ""


class _Error(msgspec.Struct):
    error: _Told


_ERROR = msgspec.json.Decoder(_Error)


class GatewayRequest(msgspec.Struct, eq=False):
    """Made by the record layer, filled in by the others. Guards may read `fields` and `set` one."""

    door: Door
    path: str
    """The path without the fast lane's prefix: `/v1/chat/completions`."""
    method: str
    query: bytes
    headers: dict[bytes, bytes]
    id: str
    started_at: float
    started: float
    body: bytes = b""
    fields: dict[str, msgspec.Raw] = {}
    """The body's top level, values as they came."""
    model: str = ""
    stream: bool = False
    wants_usage: bool = True
    """Whether the client asked for the usage chunk of a stream; if not, it is taken out again."""
    key_id: str = ""
    target: str = ""
    attempts: int = 0
    status: int = 0
    outcome: Outcome | None = None
    first_byte_s: float | None = None
    usage: Usage = Usage()
    error_code: str = ""
    error_message: str = ""
    gone: bool = False
    """Whether the client was seen to hang up."""
    _changed: bool = False

    @classmethod
    def arrived(cls, scope: Scope, door: Door, path: str) -> GatewayRequest:
        """A request that has come through `door` just now."""
        headers = dict(scope["headers"])
        named = headers.get(b"x-request-id", b"").decode("latin-1")
        query = scope.get("query_string", b"")
        return cls(door, path, scope["method"], query, headers, named, time.time(), time.perf_counter())

    def __repr__(self) -> str:
        """Without headers and body: these hold secrets."""
        return f"<GatewayRequest {self.id}: {self.method} {self.path}>"

    def read(self, body: bytes) -> None:
        """Decode the top level of a JSON body, once. Raises InvalidRequest naming what is wrong."""
        self.body = body
        try:
            self.fields = _FIELDS.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"The body is not a JSON object: {error}") from None
        self.model = self.value("model", str) or ""
        self.stream = bool(self.value("stream", bool))
        if self.stream and self.path in STREAM_USAGE_PATHS:
            self._ask_for_usage()

    def become(self, path: str, body: bytes) -> None:
        """Ask for another page with another body from here on. Raises as `read`."""
        self.path = path
        self._changed = False
        self.read(body)

    def value(self, name: str, kind: Any) -> Any:
        """One top-level field decoded as `kind`; None where it is missing or null. Raises InvalidRequest naming it."""
        raw = self.fields.get(name)
        if raw is None:
            return None
        try:
            decoder = _KINDS.get(kind)
            return decoder.decode(raw) if decoder is not None else msgspec.json.decode(raw, type=kind | None)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"`{name}` is not understood: {error}", param=name) from None

    def set(self, name: str, value: Any) -> None:
        """Replace one top-level field; every other goes on as it came."""
        self.fields[name] = msgspec.Raw(_ENCODER.encode(value))
        self._changed = True
        if name == "model":
            self.model = value

    def body_for(self, model: str) -> bytes:
        """The body a target gets: its own name as `model` (engines refuse any other), the rest unharmed."""
        if self.fields and model != self.model:
            self.fields["model"] = msgspec.Raw(_ENCODER.encode(model))
            self._changed = True
        return _ENCODER.encode(self.fields) if self._changed else self.body

    def failed(self, error: GatewayError) -> None:
        """Keep why it failed, without a word that may be the client's or a model's."""
        self.error_code = error.code or error.type
        if isinstance(error, (Unavailable, TooManyRequests)):
            self.error_message = error.message[:_LONGEST_REASON]

    def failed_with(self, body: bytes) -> None:
        """The same from an error's body, or from an event of a stream that holds one."""
        if self.error_code:
            return
        try:
            told = _ERROR.decode(body[body.find(b"{") :].partition(b"\n")[0]).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Another dialect's: its status says enough.
            return
        self.error_code = (told.code if isinstance(told.code, str) and told.code else told.type)[:_LONGEST_CODE]

    def _ask_for_usage(self) -> None:
        options: dict[str, msgspec.Raw] = self.value("stream_options", dict[str, msgspec.Raw]) or {}
        self.wants_usage = bytes(options.get("include_usage", b"")) == b"true"
        if not self.wants_usage:
            self.set("stream_options", {**options, "include_usage": True})

    def record(self) -> RequestRecord:
        """What is known now that it is over."""
        return RequestRecord(
            request_id=self.id,
            door=self.door,
            path=self.path,
            model=self.model,
            target=self.target,
            status=self.status,
            outcome=self.outcome or "disconnected",
            stream=self.stream,
            started_at=self.started_at,
            duration_s=time.perf_counter() - self.started,
            first_byte_s=self.first_byte_s,
            usage=self.usage,
            attempts=self.attempts,
            key_id=self.key_id,
            error_code=self.error_code,
            error_message=self.error_message,
        )


async def read_body(receive: Receive, declared: int, largest: int) -> bytes:
    """The whole body. Raises BodyTooLarge as soon as it is over `largest` bytes, ClientGone on a hang-up."""
    too_large = f"The body is larger than {largest} bytes, the most this gateway accepts"
    if declared > largest:
        raise BodyTooLarge(too_large)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > largest:
            raise BodyTooLarge(too_large)
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > largest:
            raise BodyTooLarge(too_large)
    return b"".join(parts)


class ClientGone(Exception):
    """The client hung up; there is nobody to answer."""
