"""Notices that a client has left. Whoever computes or waits for somebody does so with `Attention`."""

from __future__ import annotations

import asyncio
from types import TracebackType

from gateway.types import Receive


class Attention:
    """Cancels the block's own task when the client leaves, and ends quietly then.

    Listening begins when the event loop first turns: an answer that is there before costs no task.
    """

    __slots__ = ("_before", "_gone", "_listener", "_loop", "_receive", "_start", "_task")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._listener: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an ASGI app runs in a task")
        self._task = task
        self._before = task.cancelling()
        self._loop = task.get_loop()
        self._start = self._loop.call_soon(self._listen)

    def _listen(self) -> None:
        self._listener = self._loop.create_task(self._wait())

    async def _wait(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except OSError:
            # The server's way of saying the same.
            pass
        self._gone = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._start.cancel()
        if self._listener is not None:
            self._listener.cancel()
        if not self._gone:
            return False
        return self._task.uncancel() <= self._before and kind is not None and issubclass(kind, asyncio.CancelledError)
