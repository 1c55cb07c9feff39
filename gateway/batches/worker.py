"""Works on batches: claims one after the other, asks each request as if it came alone, and keeps the answers."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

from gateway.batches.desk import Desk, Job
from gateway.errors import BackendFailed
from gateway.types import ASGIApp, Message, Scope

log = logging.getLogger("gateway.batches")

AT_ONCE = 16
"""Requests of batches that one gateway process asks at the same time: people who wait come in between."""
_TOUCH_S = 2.0
"""How often a lease is renewed, and a wish to cancel seen."""
_POLL_S = 5.0
"""How often somebody else's batch is looked for."""
_LATER = frozenset({429, 503})
"""Full or not there: asked again until the batch expires."""
_AGAIN = frozenset({502, 504})
_ATTEMPTS = 3
"""How often a request is asked that breaks what answers it."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0

LINE = "gateway.batch_line"
"""Key in a scope: (the key's id, the body) of a request that no client has sent."""


class Worker:
    """One for a process. `start` and `close` in the event loop that answers requests."""

    def __init__(self, desk: Desk, app: ASGIApp) -> None:
        """`app` answers one request, which it finds under `LINE`."""
        self._desk = desk
        self._app = app
        self._owner = secrets.token_hex(16)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._news = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._asking: dict[str, asyncio.Future[None]] = {}

    def start(self) -> None:
        """Look for batches from here on."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    def wake(self) -> None:
        """There is something to do."""
        self._news.set()

    def cancel(self, batch_id: str) -> None:
        """Ask no more of a batch; where another process works on it, that one sees by itself."""
        if (work := self._asking.get(batch_id)) is not None:
            work.cancel()
        self.wake()

    async def close(self) -> None:
        """Stop, and leave what is not done to whoever comes next, at once."""
        tasks = [task for task in (self._looking, *self._jobs.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            self._news.clear()
            try:
                while (job := await self._desk.claim(self._owner)) is not None:
                    task = self._jobs[job.id] = asyncio.create_task(self._work(job))
                    task.add_done_callback(lambda _, batch_id=job.id: self._jobs.pop(batch_id, None))
            except Exception:
                log.exception("batches could not be looked for")
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _work(self, job: Job) -> None:
        """A batch to its end, or until it is another's."""
        work = self._asking[job.id] = asyncio.ensure_future(self._lines(job))
        try:
            # Before the first request is asked: it may be here to be cancelled.
            while (status := await self._desk.renew(job.id, self._owner)) == "in_progress":
                left = job.expires_at - time.time()
                if left <= 0 or (await asyncio.wait([work], timeout=min(_TOUCH_S, left)))[0]:
                    break
            await _ended(work)
            if status is not None:
                await self._desk.finish(job.id, self._owner)
        except asyncio.CancelledError:
            await _ended(work)
            await self._desk.give_back(job.id, self._owner)
            raise
        except Exception:
            # The lease runs out, and somebody tries again.
            await _ended(work, quietly=True)
            log.exception("batch %s is left for later", job.id)
        finally:
            del self._asking[job.id]

    async def _lines(self, job: Job) -> None:
        numbers = iter(await self._desk.unanswered(job.id))

        async def lane() -> None:
            for number in numbers:
                body = await self._desk.body(job.id, number)
                request_id = f"batch_req_{secrets.token_hex(12)}"
                status, answer = await self._patiently(job, request_id, body)
                await self._desk.answer(job.id, number, request_id, status, answer)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(lane())

    async def _patiently(self, job: Job, request_id: str, body: bytes) -> tuple[int, bytes]:
        pause, attempts = _FIRST_PAUSE_S, 0
        while True:
            async with self._places:
                status, answer = await self._ask(job, request_id, body)
            attempts += 1
            if status not in _LATER and (status not in _AGAIN or attempts == _ATTEMPTS):
                return status, answer
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _ask(self, job: Job, request_id: str, body: bytes) -> tuple[int, bytes]:
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": "POST",
            "path": job.endpoint,
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"x-request-id", request_id.encode())],
            LINE: (job.key_id, body),
        }
        status, answer = 0, bytearray()

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                answer.extend(message.get("body", b""))

        try:
            await self._app(scope, _never, send)
        except Exception as error:
            # An answer that broke off: the layers can only raise then.
            log.exception("%s broke off", request_id)
            status, answer = 502, bytearray(BackendFailed(f"the answer broke off: {type(error).__name__}").to_json())
        return status, bytes(answer)


async def _ended(work: asyncio.Future[None], *, quietly: bool = False) -> None:
    """Until the work has stopped. Raises what it failed with, if anything."""
    work.cancel()
    await asyncio.wait([work])
    if not quietly and not work.cancelled():
        work.result()


async def _never() -> Message:
    """The `receive` of a client that does not leave."""
    await asyncio.Event().wait()
    raise AssertionError
