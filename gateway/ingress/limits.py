"""May you, now? Bodies of a bounded size that arrive in a bounded time, and a bounded number of requests in flight."""

from __future__ import annotations

import asyncio

from gateway.config import LimitSpec
from gateway.errors import GatewayError, InvalidRequest, TooManyRequests
from gateway.ingress.record import Layer
from gateway.ingress.request import GatewayRequest, read_body
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


class _Clock:
    """Raises RequestTimeout in its block's task after `seconds`.

    It starts when the event loop first turns: a body that is there already costs no timer, which `asyncio.timeout`
    would.
    """

    __slots__ = ("_before", "_handle", "_loop", "_rang", "_seconds", "_task")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._rang = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an ASGI app runs in a task")
        self._task = task
        self._before = task.cancelling()
        self._loop = task.get_loop()
        self._handle = self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._handle = self._loop.call_later(self._seconds, self._ring)

    def _ring(self) -> None:
        self._rang = True
        self._task.cancel()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._handle.cancel()
        if self._rang and self._task.uncancel() <= self._before and isinstance(error, asyncio.CancelledError):
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
