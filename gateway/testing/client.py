"""Drives an ASGI app in process, streams included, and leaves it in each way a real client can. Knows no pytest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from gateway.types import ASGIApp, Headers, Message, Scope

Leave = Literal["disconnect", "cancel", "broken_pipe"]
"""How a client is lost: `http.disconnect` from receive (a server that listens), cancellation of the app's task (Ray
Serve), OSError from send (a server that writes into a closed socket)."""


Body = bytes | Mapping[str, Any]
"""Bytes as they are, or what is to be JSON."""


@dataclass(slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes]
    """The body as it came, one entry for each ASGI message that held any."""

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def events(self) -> list[Any]:
        """The decoded `data:` events of a stream. Raises ValueError where it does not end with `[DONE]`."""
        events = parse_events(self.body)
        if not events or events[-1] != "[DONE]":
            raise ValueError(f"the stream does not end with [DONE]: …{self.body[-200:]!r}")
        return events[:-1]


def parse_events(body: bytes) -> list[Any]:
    """The `data:` events of SSE bytes, decoded; `[DONE]` as that string."""
    events: list[Any] = []
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = [line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:")]
        if data:
            text = b"\n".join(data)
            events.append("[DONE]" if text == b"[DONE]" else msgspec.json.decode(text))
    return events


@dataclass(slots=True)
class Exchange:
    """One request under way."""

    scope: Scope
    body: bytes
    task: asyncio.Task[None] | None = None
    messages: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue)
    """What the app has sent; None once it has returned."""
    _body_read: bool = False
    _gone: asyncio.Event = field(default_factory=asyncio.Event)
    _pipe_broken: bool = False

    async def receive(self) -> Message:
        if not self._body_read:
            self._body_read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._pipe_broken:
            raise OSError("the client has gone")
        self.messages.put_nowait(message)
        # A server's send gives other tasks a turn when its buffer is full; an app must not rely on it never doing so.
        await asyncio.sleep(0)

    async def next_body(self) -> bytes:
        """The next message's bytes. Raises EOFError once the answer is over."""
        while True:
            message = await self.messages.get()
            if message is None:
                raise EOFError("the answer is over")
            if message["type"] == "http.response.body" and message.get("body"):
                return message["body"]

    async def leave(self, how: Leave = "disconnect") -> None:
        """Go away; returns at once where the app only learns of it later."""
        if how == "disconnect":
            self._gone.set()
        elif how == "broken_pipe":
            self._pipe_broken = True
        elif self.task is not None:
            self.task.cancel()

    async def answer(self) -> Answer:
        """Wait for the rest. Raises what the app raised."""
        status, headers, chunks = 0, Headers(), list[bytes]()
        while (message := await self.messages.get()) is not None:
            if message["type"] == "http.response.start":
                status, headers = message["status"], message.get("headers", [])
            elif message["type"] == "http.response.body" and message.get("body"):
                chunks.append(message["body"])
        if self.task is not None:
            await self.task
        return Answer(status, {name.decode(): value.decode() for name, value in headers}, chunks)


class AppClient:
    """Asks one ASGI app: `await AppClient(app).post("/v1/completions", {…})`."""

    def __init__(self, app: ASGIApp, headers: Iterable[tuple[str, str]] = ()) -> None:
        self.app = app
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers]

    @asynccontextmanager
    async def open(self, method: str, path: str, body: Body | None = None) -> AsyncGenerator[Exchange]:
        """Start a request and look at its answer while it comes. Leaving the block ends it."""
        raw = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), *self.headers]
        headers.append((b"content-length", str(len(raw)).encode()))
        path, _, query = path.partition("?")
        scope: Scope = {
            "type": "http",
            # 2.3, as uvicorn says: the app is told of a disconnect by receive, not by an error from send.
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        exchange = Exchange(scope, raw)
        exchange.task = asyncio.create_task(self._run(exchange))
        try:
            yield exchange
        finally:
            exchange.task.cancel()
            await asyncio.wait([exchange.task])

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self.app(exchange.scope, exchange.receive, exchange.send)
        finally:
            exchange.messages.put_nowait(None)

    async def request(self, method: str, path: str, body: Body | None = None) -> Answer:
        async with self.open(method, path, body) as exchange:
            return await exchange.answer()

    async def post(self, path: str, body: Body) -> Answer:
        return await self.request("POST", path, body)

    async def get(self, path: str) -> Answer:
        return await self.request("GET", path)
