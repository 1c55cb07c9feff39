"""Joins what a stream brings while its reader is busy. The first item leaves at once; knows nothing of chats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, TypeVar

T = TypeVar("T")


class Paced(Generic[T]):
    """A stream in batches: at most one each `every` seconds, none of them later than that after its first item.

    `stop()` may be called from anywhere on the loop: the source is closed at once and the batches end as if over.
    What waits is bounded by what the source brings in `every` seconds, since whoever reads this asks again by then.
    """

    def __init__(self, source: AsyncGenerator[T], every: float) -> None:
        self._source = source
        self._every = every
        self._waiting: list[T] = []
        self._ready = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True
        if self._pump is not None:
            self._pump.cancel()

    async def batches(self) -> AsyncGenerator[list[T]]:
        """Raises what the source raises, after everything that came before it."""
        if self.stopped:
            return
        self._pump = asyncio.create_task(self._drain())
        self._pump.add_done_callback(lambda _: self._ready.set())
        try:
            while True:
                await self._ready.wait()
                over = self._pump.done()
                self._ready.clear()
                if self._waiting:
                    batch, self._waiting = self._waiting, []
                    yield batch
                if over:
                    break
                await asyncio.wait({self._pump}, timeout=self._every)
            if not self._pump.cancelled():
                self._pump.result()
        finally:
            self._pump.cancel()
            await asyncio.wait({self._pump})

    async def _drain(self) -> None:
        async with aclosing(self._source) as items:
            async for item in items:
                self._waiting.append(item)
                self._ready.set()
