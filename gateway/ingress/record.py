"""The outermost layer: every request that enters leaves exactly one RequestRecord, and every error its right shape."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.errors import GatewayError
from gateway.ingress.metrics import Metrics
from gateway.ingress.request import ClientGone, GatewayRequest
from gateway.messages import error_body
from gateway.plugins import Plugins
from gateway.types import Door, Message, Outcome, Receive, RequestRecord, Scope, Send

log = logging.getLogger("gateway.ingress")


class Layer(Protocol):
    """What every layer behind this one is: an ASGI app that also gets the request."""

    def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]: ...


class Record:
    """The door itself: an ASGI app. Times, counts and records; turns GatewayErrors into answers."""

    def __init__(
        self, layer: Layer, *, door: Door, metrics: Metrics, plugins: Plugins | None = None, prefix: str = ""
    ) -> None:
        self._layer = layer
        self._door: Door = door
        self._metrics = metrics
        self._in_flight = metrics.in_flight
        self._in_flight.setdefault(door, 0)
        self._plugins = plugins if plugins is not None and plugins.has("request_finished") else None
        self._prefix = prefix
        self._watchers: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await answer_lifespan(receive, send, self.close)
        if scope["type"] != "http":
            # WebSockets: nothing here speaks them; closing before accepting is answered 403 by the server.
            return await send({"type": "websocket.close", "code": 1000})
        path: str = scope["path"]
        request = GatewayRequest.arrived(scope, self._door, path.removeprefix(self._prefix) or "/")
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if status == 0:
                status = request.status = message["status"]
            elif request.first_byte_s is None and message.get("body"):
                request.first_byte_s = time.perf_counter() - request.started
                if status >= 400:
                    request.failed_with(message["body"])
            await send(message)

        self._in_flight[self._door] += 1
        try:
            await self._layer(request, scope, receive, sent)
            if request.outcome is None:
                request.outcome = outcome_of(status)
        except GatewayError as error:
            request.outcome = request.outcome or outcome_of(error.status)
            request.failed(error)
            if status == 0:
                await send_error(error, request, sent)
        except (asyncio.CancelledError, ClientGone, OSError):
            # OSError: servers raise it (ClientDisconnect among them) from `send` once nobody listens.
            request.outcome = "disconnected"
            if asyncio.current_task() is not None and asyncio.current_task().cancelling():  # pyright: ignore[reportOptionalMemberAccess]
                raise
        except Exception:
            log.exception("request %s failed", request.id)
            request.outcome = "server_error"
            request.error_code = GatewayError.type
            if status != 0:
                raise
            await send_error(GatewayError("The gateway failed; its log says more"), request, sent)
        finally:
            self._in_flight[self._door] -= 1
            record = request.record()
            self._metrics.count(record)
            if self._plugins is not None:
                self._watch(record, self._plugins)
        return None

    def _watch(self, record: RequestRecord, plugins: Plugins) -> None:
        task = asyncio.ensure_future(plugins.watch("request_finished", record=record))
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def close(self) -> None:
        """Wait for watchers that are still being told."""
        if self._watchers:
            await asyncio.gather(*self._watchers, return_exceptions=True)


def outcome_of(status: int) -> Outcome:
    """How a request with this status ended."""
    if status in (401, 403, 429):
        return "rejected"
    return "ok" if status < 400 else "client_error" if status < 500 else "server_error"


async def send_error(error: GatewayError, request: GatewayRequest, send: Send) -> None:
    """Answer with an error in OpenAI's shape, or in that of the API that was spoken to."""
    is_message = request.path.startswith("/v1/messages")
    body = error_body(error.status, error, request.id) if is_message else error.to_json()
    headers = [*error.headers(), (b"content-length", str(len(body)).encode())]
    if is_message:
        headers.append((b"request-id", request.id.encode("latin-1")))
    if request.target:
        headers.append((b"x-gateway-target", request.target.encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body if request.method != "HEAD" else b""})


async def answer_lifespan(receive: Receive, send: Send, close: Callable[[], Awaitable[None]]) -> None:
    """Answer a server's `lifespan` scope: nothing to start, `close` at the end."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await close()
            await send({"type": "lifespan.shutdown.complete"})
            return
