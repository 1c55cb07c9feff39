"""A load generator that costs little: HTTP/1.1 over kept connections, on asyncio's bare protocols. Knows no product."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

_CHUNKED_END = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Address:
    """Where requests go, and the key they carry."""

    port: int
    path: str
    key: str = ""
    host: str = "127.0.0.1"

    def request(self, body: Mapping[str, Any]) -> bytes:
        """A whole request as bytes: made once, sent often."""
        content = json.dumps(body).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: application/json\r\n"
        if self.key:
            head += f"Authorization: Bearer {self.key}\r\n"
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and its times, in seconds from when the request was written."""

    status: int
    head: bytes
    payload: bytes
    """As it came; chunked where the server chose to."""
    first_s: float
    """Until the first byte of the body."""
    whole_s: float

    def body(self) -> bytes:
        """The body without its chunks' frames."""
        if b"transfer-encoding: chunked" not in self.head.lower():
            return self.payload
        parts: list[bytes] = []
        rest = self.payload
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if length == 0:
                break
            parts.append(rest[:length])
            rest = rest[length + 2 :]
        return b"".join(parts)

    def events(self) -> list[bytes]:
        """Server-sent events that carry tokens: those with choices, so neither usage nor the end mark."""
        lines = (line for line in self.body().split(b"\n\n") if line.startswith(b"data: {"))
        return [line + b"\n\n" for line in lines if b'"choices":[]' not in line]


class Connection(asyncio.Protocol):
    """One kept connection that has one request under way."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[Answer] | None = None
        self._parts: list[bytes] = []
        self._began = self._first = 0.0
        self._head = b""
        self._left: int | None = None
        """Bytes still to come; None where the body is chunked."""

    @classmethod
    async def open(cls, address: Address) -> Connection:
        connection = cls(address)
        await connection._connect()
        return connection

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, self._address.host, self._address.port)

    async def ask(self, request: bytes) -> Answer:
        if b"\r\nconnection: close" in self._head.lower():
            # HAProxy says so once, before it is replaced by one with a newer configuration.
            self.close()
            await self._connect()
        if self._transport is None:
            raise ConnectionError("not connected")
        self._done = asyncio.get_running_loop().create_future()
        self._head, self._parts, self._first = b"", [], 0.0
        self._began = time.perf_counter()
        self._transport.write(request)
        return await self._done

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport by class.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        if not self._head:
            data = b"".join([*self._parts, data])
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._parts = [data]
                return
            self._parts = []
            self._head = data[:end]
            lower = self._head.lower()
            at = lower.find(b"\r\ncontent-length:")
            self._left = int(lower[at + 17 :].partition(b"\r\n")[0]) if at >= 0 else None
            data = data[end + 4 :]
        if data:
            if not self._parts:
                self._first = time.perf_counter()
            self._parts.append(data)
        if self._left is not None:
            self._left -= len(data)
            if self._left <= 0:
                self._finish()
        elif (data if len(data) >= len(_CHUNKED_END) else b"".join(self._parts[-8:])).endswith(_CHUNKED_END):
            self._finish()

    def _finish(self) -> None:
        if self._done is None or self._done.done():
            return
        now = time.perf_counter()
        first = (self._first or now) - self._began
        status = int(self._head[9:12])
        self._done.set_result(Answer(status, self._head, b"".join(self._parts), first, now - self._began))


class RefusedError(Exception):
    """An answer that is no success: what is measured would mean nothing."""


async def one(address: Address, request: bytes) -> Answer:
    """One request on a connection of its own. Raises RefusedError for anything but a 200."""
    connection = await Connection.open(address)
    try:
        return _accepted(await connection.ask(request))
    finally:
        connection.close()


async def in_turn(address: Address, request: bytes, count: int) -> list[Answer]:
    """`count` requests, one after another, on one connection."""
    connection = await Connection.open(address)
    try:
        return [_accepted(await connection.ask(request)) for _ in range(count)]
    finally:
        connection.close()


async def together(address: Address, requests: Sequence[bytes], *, seconds: float) -> float:
    """As many at once as there are requests, each again and again for `seconds`. Returns whole answers a second.

    All stop asking at the same time; the rate is over the time until the last answer has come.
    """
    connections = [await Connection.open(address) for _ in requests]
    began = time.perf_counter()
    until = began + seconds

    async def repeat(connection: Connection, request: bytes) -> int:
        count = 0
        while time.perf_counter() < until:
            _accepted(await connection.ask(request))
            count += 1
        return count

    try:
        counts = await asyncio.gather(*map(repeat, connections, requests))
        return sum(counts) / (time.perf_counter() - began)
    finally:
        for connection in connections:
            connection.close()


async def at_once(address: Address, requests: Sequence[bytes]) -> tuple[list[Answer], float]:
    """Every request once, all at the same time: the answers, and the seconds until the last had come."""
    connections = [await Connection.open(address) for _ in requests]
    began = time.perf_counter()
    try:
        answers = await asyncio.gather(*map(Connection.ask, connections, requests))
        took = time.perf_counter() - began
    finally:
        for connection in connections:
            connection.close()
    return [_accepted(answer) for answer in answers], took


def median(values: Iterator[float] | Sequence[float]) -> float:
    return statistics.median(values)


def run(work: Any) -> Any:
    """Run a coroutine on uvloop where it is installed, so that the client is not what is measured."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.run(work)
    return asyncio.run(work)


def _accepted(answer: Answer) -> Answer:
    if answer.status != 200:
        raise RefusedError(f"{answer.status}: {answer.body()[:300].decode(errors='replace')}")
    return answer
