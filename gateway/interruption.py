"""Ends a block for a reason that is no cancellation to whoever awaits it."""

from __future__ import annotations

import asyncio


class Interruption:
    """Base of context managers that may cancel their block's own task, and know afterwards that it was they.

    Watching begins when the event loop first turns: a block that is over before costs no task and no timer, as
    `asyncio.timeout` would. A subclass says how to `_watch`, calls `_interrupt`, and ends with `_handle.cancel()`.
    """

    __slots__ = ("_before", "_handle", "_interrupted", "_loop", "_task")

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an ASGI app runs in a task")
        self._task = task
        self._before = task.cancelling()
        self._interrupted = False
        self._loop = task.get_loop()
        self._handle: asyncio.Handle = self._loop.call_soon(self._watch)

    def _watch(self) -> None:
        """Begin to wait for the reason."""
        raise NotImplementedError

    def _interrupt(self) -> None:
        """The reason is there."""
        self._interrupted = True
        self._task.cancel()

    def _was_it(self, error: BaseException | None) -> bool:
        """Whether the block ended with `error` for this reason alone. Takes its cancellation back."""
        if not self._interrupted:
            return False
        return self._task.uncancel() <= self._before and isinstance(error, asyncio.CancelledError)
