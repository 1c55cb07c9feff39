"""May you, now? Bodies of a bounded size that arrive in a bounded time, and a bounded number of requests in flight."""

from __future__ import annotations

from gateway.config import LimitSpec
from gateway.errors import GatewayError, InvalidRequest, TooManyRequests
from gateway.ingress.record import Layer
from gateway.ingress.request import GatewayRequest, read_body
from gateway.interruption import Interruption
from gateway.types import Receive, Scope, Send

_BODILESS = "/cancel"
"""Ends the paths of POSTs that say all they have to say."""
_FORMS = "/v1/files"
"""Takes a form; everything else takes JSON."""


class RequestTimeout(GatewayError):
    """The client took too long to send its body."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class InFlight:
    """How many requests are being answered, out of how many. Shared by the doors that lead to one model."""

    __slots__ = ("limit", "now", "what")

    def __init__(self, limit: int, what: str) -> None:
        self.limit = limit
        self.now = 0
        self.what = what

    def __enter__(self) -> None:
        if self.now >= self.limit:
            raise TooManyRequests(f"{self.what} has {self.limit} requests in flight, its limit", retry_after_s=1)
        self.now += 1

    def __exit__(self, *_: object) -> None:
        self.now -= 1


class _Clock(Interruption):
    """Raises RequestTimeout in its block's task after `seconds`."""

    __slots__ = ("_seconds",)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def _watch(self) -> None:
        self._handle = self._loop.call_later(self._seconds, self._interrupt)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._handle.cancel()
        if self._was_it(error):
            raise RequestTimeout(f"The body did not arrive within {self._seconds:g} s") from None


class Limit:
    """Counts requests in flight and reads bodies."""

    def __init__(self, layer: Layer, limits: LimitSpec, in_flight: InFlight) -> None:
        self._layer = layer
        self._largest = int(limits.max_body_mb * 1024 * 1024)
        self._body_timeout_s = limits.body_timeout_s
        self._in_flight = in_flight

    async def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        if request.method != "POST":
            return await self._layer(request, scope, receive, send)
        with self._in_flight:
            length = request.headers.get(b"content-length", b"0")
            if not length.isdigit():
                raise InvalidRequest("Content-Length is not a number")
            with _Clock(self._body_timeout_s):
                body = await read_body(receive, int(length), self._largest)
            if request.path == _FORMS:
                request.body = body
            elif body or not request.path.endswith(_BODILESS):
                request.read(body)
            return await self._layer(request, scope, receive, send)
