"""A client leaves in three ways: `http.disconnect`, cancellation, a `send` that fails. vLLM stops computing for the
first alone, so this room tells it the other two as that one. Knows only ASGI."""

from __future__ import annotations

import asyncio

from gateway.types import ASGIApp, Message, Receive, Scope, Send

_PATIENCE_S = 1.0
"""How long an app may take to end after it was told; then it is cancelled itself."""

_GONE: Message = {"type": "http.disconnect"}


class Leaving:
    """Runs one request such that the app hears of its client's leaving from `receive`, whatever way it went."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._gone = asyncio.Event()
        self._read = False
        self._failed: Exception | None = None

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Raises what the app raised, what `send` raised, or CancelledError, after the app has come to its end."""
        running = asyncio.ensure_future(app(scope, self.receive, self.send))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            self._gone.set()
            # An app that still reads its request has begun nothing that it would have to be told to stop.
            await asyncio.wait([running], timeout=_PATIENCE_S if self._read else 0)
            raise
        finally:
            running.cancel()
        if self._failed is not None:
            raise self._failed

    async def receive(self) -> Message:
        if not self._read:
            message = await self._receive()
            self._read = not message.get("more_body", False)
            return message
        if self._gone.is_set():
            return _GONE
        coming = asyncio.ensure_future(self._receive())
        leaving = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((coming, leaving), return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else _GONE
        finally:
            coming.cancel()
            leaving.cancel()

    async def send(self, message: Message) -> None:
        if self._gone.is_set():
            return
        try:
            await self._send(message)
        except Exception as error:
            # Raised into the app, this would leave its generator where it stands, and the engine computing for it.
            self._failed = error
            self._gone.set()
