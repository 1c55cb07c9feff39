"""Notices that a client has left. Whoever computes or waits for somebody does so with `Attention`."""

from __future__ import annotations

import asyncio
from types import TracebackType

from gateway.interruption import Interruption
from gateway.types import Receive


class Attention(Interruption):
    """Cancels the block's own task when the client leaves, and ends quietly then."""

    __slots__ = ("_listener", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._listener: asyncio.Task[None] | None = None

    def _watch(self) -> None:
        self._listener = self._loop.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except OSError:
            # The server's way of saying the same.
            pass
        self._interrupt()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._handle.cancel()
        if self._listener is not None:
            self._listener.cancel()
        return self._was_it(error)
