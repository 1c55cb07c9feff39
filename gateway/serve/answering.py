"""Runs a model's ASGI app for one call that came by handle, and collects or streams what it sends. Imports no ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from gateway.errors import GatewayError
from gateway.serve.wire import Call, Head, pack_head
from gateway.types import ASGIApp, Headers, Message, Receive, Scope

_MOST_QUEUED = 1 << 20
"""Bytes that may wait for a slow reader before the app's `send` waits too."""


async def whole_answer(app: ASGIApp, call: Call) -> bytes:
    """The app's whole answer as one message. Cancelling this cancels the app."""
    started = time.perf_counter()
    head: Head | None = None
    parts: list[bytes] = []

    async def send(message: Message) -> None:
        nonlocal head
        if message["type"] == "http.response.start":
            head = Head(message["status"], list(message.get("headers", ())), time.perf_counter() - started)
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    try:
        await app(_scope(call), _body_then_nothing(call), send)
    except GatewayError as error:
        return _error(error, time.perf_counter() - started)
    if head is None:
        raise RuntimeError("the app ended without an answer")
    return pack_head(head, parts[0] if len(parts) == 1 else b"".join(parts))


async def streamed_answer(app: ASGIApp, call: Call) -> AsyncGenerator[bytes]:
    """The app's answer in messages: the first leaves at once; later parts are joined only while the reader is behind.

    Closing the iterator cancels the app and waits for its end.
    """
    started = time.perf_counter()
    queue = _Parts()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            queue.head = Head(message["status"], list(message.get("headers", ())), time.perf_counter() - started)
        elif message["type"] == "http.response.body":
            await queue.put(message.get("body", b""))

    task = asyncio.ensure_future(app(_scope(call), _body_then_nothing(call), send))
    task.add_done_callback(queue.finish)
    first = True
    try:
        while (part := await queue.get()) is not None:
            if first:
                first = False
                if queue.head is None:
                    raise RuntimeError("the app sent a body before its head")
                part = pack_head(queue.head, part)
            yield part
        await task
        if first:
            if queue.head is None:
                raise RuntimeError("the app ended without an answer")
            yield pack_head(queue.head, b"")
    except GatewayError as error:
        if not first:
            raise
        yield _error(error, time.perf_counter() - started)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class _Parts:
    """What the app has sent and the reader has not taken: one string of bytes, bounded."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    async def put(self, part: bytes) -> None:
        if not part:
            return
        self._parts.append(part)
        self._size += len(part)
        self._arrived.set()
        while self._size > _MOST_QUEUED:
            self._taken.clear()
            await self._taken.wait()

    def finish(self, _: object) -> None:
        self._ended = True
        self._arrived.set()

    async def get(self) -> bytes | None:
        """Everything that waits, as one; None after the end."""
        while not self._parts:
            if self._ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        parts, self._parts = self._parts, []
        self._size = 0
        self._taken.set()
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _error(error: GatewayError, backend_s: float) -> bytes:
    return pack_head(Head(error.status, error.headers(), backend_s), error.to_json())


def _scope(call: Call) -> Scope:
    headers: Headers = call.headers
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "root_path": "",
        "query_string": call.query,
        "headers": headers,
        "client": None,
        "server": None,
    }


def _body_then_nothing(call: Call) -> Receive:
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": call.body, "more_body": False}
        # A hang-up arrives as cancellation, never as a message.
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    return receive
