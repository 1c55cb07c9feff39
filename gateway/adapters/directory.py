"""One process's view of the registry: a catalog in memory, looked after by a cheap question every few seconds.

So what anybody changed is seen everywhere, also where a message about it was lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.adapters.catalog import Catalog
from gateway.errors import GatewayError

if TYPE_CHECKING:
    # Brings a library of databases: not before somebody has adapters.
    from gateway.adapters.registry import Registry

log = logging.getLogger("gateway.adapters")

EVERY_S = 2.0
"""Between two looks at the revision."""
_SOONEST_S = 0.25
"""A name that nobody knows makes us look at once, but not more often than this."""


class Directory:
    """Read by many requests at once; written by its own task alone."""

    def __init__(self, registry: Registry, *, every_s: float = EVERY_S) -> None:
        self.registry = registry
        self.catalog = Catalog(revision=-1)
        self._every_s = every_s
        self._lock = asyncio.Lock()
        self._waiting = asyncio.Lock()
        self._looked_at = 0.0
        self._listeners: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after every change. It must be quick."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Keep looking until `close`. In the event loop that answers requests."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._keep_looking())

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def look(self, *, soonest_s: float = 0.0) -> None:
        """See what has changed, unless that was asked less than `soonest_s` ago. Raises what the store raises."""
        async with self._lock:
            if time.monotonic() - self._looked_at < soonest_s:
                return
            self._looked_at = time.monotonic()
            changed = await self.registry.revision() != self.catalog.revision
            if changed:
                self.catalog = await self.registry.catalog()
        if changed:
            for listener in self._listeners:
                listener()

    async def look_for_more(self) -> None:
        """For a name that is not known: perhaps it is new. All who ask at once share one look, and wait for it."""
        asked_at = time.monotonic()
        async with self._waiting:
            if self._looked_at >= asked_at:
                return
            await asyncio.sleep(max(0.0, self._looked_at + _SOONEST_S - asked_at))
            await self.look()

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self.look()
            except GatewayError as error:
                log.warning("the registry of adapters cannot be read: %s", error.message)
            except Exception:
                log.exception("the registry of adapters cannot be read")
            await asyncio.sleep(self._every_s)
