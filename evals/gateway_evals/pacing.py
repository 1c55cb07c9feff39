"""How many requests may be under way: as many as allowed while all goes well, fewer while the server is too busy.

AIMD, as TCP does it: an answer of 429 or 503, a time-out, or an answer that took more than half of the time limit takes
three tenths of the places away; every round of answers in time gives one back. What was under way when places were
taken takes no more of them: it was sent before anybody knew.
"""

from __future__ import annotations

import asyncio
from collections import deque

BUSY = frozenset({429, 503})
DECREASE = 0.7


class Pace:
    """Places for requests. For one event loop."""

    def __init__(self, most: int, slow_s: float) -> None:
        self._most = float(most)
        self._limit = float(most)
        self._slow_s = slow_s
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sent = 0
        self._blind_until = 0
        """Requests numbered up to this were sent before the last decrease."""
        self.lowest = most
        """The fewest places there ever were."""

    @property
    def limit(self) -> int:
        return int(self._limit)

    async def enter(self) -> int:
        """Wait for a place, first come, first served; its request's number."""
        if self._running >= self.limit or self._waiting:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._running -= 1
                    self._admit()
                raise
        else:
            self._running += 1
        self._sent += 1
        return self._sent

    def leave(self, number: int, *, busy: bool, latency_s: float = 0.0) -> None:
        """Give the place back, and tell how it went."""
        self._running -= 1
        if not busy and latency_s <= self._slow_s:
            self._limit = min(self._most, self._limit + 1 / self._limit)
        elif number > self._blind_until:
            self._limit = max(1.0, self._limit * DECREASE)
            self._blind_until = self._sent
            self.lowest = min(self.lowest, self.limit)
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._running < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._running += 1
                place.set_result(None)
