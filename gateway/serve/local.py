"""Calls between an ingress and a replica on the same machine, over a Unix socket. Imports no ray.

Serve says which replica; the bytes take this way instead of Serve's own channel, whose two servers, threads and checks
take three times as long as all the rest of a short request. One call at a time on a connection, connections are kept.

A call is one frame, its answer some: `PART`s, then `END`, or `ERROR` where it broke off after its first part.
A frame is its kind (1 byte), the length of what follows (4 bytes, big-endian), and that. Who calls and has heard enough
closes the connection, which cancels the call.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import cast

import msgspec

from gateway.errors import GatewayError

log = logging.getLogger("gateway.serve")

FOLDER = "GATEWAY_SOCKETS"
"""The environment variable that names the folder of the sockets: its owner's alone. Unset: there are none."""

SOCKET = "socket"
"""In what a replica tells those who call it: the path of its socket."""

WHOLE, STREAM = b"w", b"s"
PART, END, ERROR, CLOSED = b"p", b"e", b"x", b"c"
_HEAD = 5
_MOST_UNREAD = 1 << 18
"""Bytes of an answer that may wait for whoever reads it before no more are taken."""


class NotReached(Exception):
    """Nobody took the call: it may be made in another way."""


class Lost(Exception):
    """The replica was gone before its answer was whole."""


class Failed(Exception):
    """The replica's own error, which is none of ours: the name of its class."""


class _Broken(msgspec.Struct, array_like=True, frozen=True):
    """An error that an answer broke off with."""

    name: str
    """Of its class."""
    message: str
    param: str | None = None
    retry_after_s: float | None = None

    def error(self) -> GatewayError | Failed:
        """The error as it was raised, if it is one of ours."""
        kind = next((kind for kind in _kinds(GatewayError) if kind.__name__ == self.name), None)
        if kind is None:
            return Failed(self.name)
        return kind(self.message, param=self.param, retry_after_s=self.retry_after_s)


def _kinds(root: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield root
    for child in root.__subclasses__():
        yield from _kinds(child)


def _frame(kind: bytes, data: bytes = b"") -> bytes:
    return b"".join((kind, len(data).to_bytes(4, "big"), data))


def _is_whole(came: bytearray) -> bool:
    """Whether the first frame is there to its end."""
    return len(came) >= _HEAD and len(came) >= _HEAD + int.from_bytes(came[1:_HEAD], "big")


def _take(came: bytearray) -> tuple[bytes, bytes]:
    """The kind and content of the first frame, which is whole; what came after it stays."""
    end = _HEAD + int.from_bytes(came[1:_HEAD], "big")
    kind, data = bytes(came[:1]), bytes(came[_HEAD:end])
    del came[:end]
    return kind, data


class LocalServer:
    """A replica's socket. `answer` and `stream` take a packed call, as the replica's methods do."""

    def __init__(
        self, answer: Callable[[bytes], Awaitable[bytes]], stream: Callable[[bytes], AsyncGenerator[bytes]]
    ) -> None:
        self._answer = answer
        self._stream = stream
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self.path: Path | None = None

    async def start(self, folder: Path) -> None:
        """Listen on a socket of its own in this folder."""
        self.path = folder / f"{uuid.uuid4().hex[:12]}.sock"
        self._server = await asyncio.get_running_loop().create_unix_server(self._connected, str(self.path))

    async def close(self) -> None:
        """Take no more calls, and return when those under way are answered."""
        if self._server is None or self.path is None:
            return
        self._server.close()
        self.path.unlink(missing_ok=True)
        for connection in self._connections:
            connection.retire()
        await asyncio.gather(*(one.task for one in self._connections if one.task), return_exceptions=True)

    def _connected(self) -> asyncio.Protocol:
        connection = _Connection(self._connections, self._answer, self._stream)
        if self._server is not None and not self._server.is_serving():
            # It was waiting to be accepted when the server closed.
            connection.retire()
        return connection


class _Connection(asyncio.Protocol):
    """One caller's."""

    def __init__(
        self,
        fellows: set[_Connection],
        answer: Callable[[bytes], Awaitable[bytes]],
        stream: Callable[[bytes], AsyncGenerator[bytes]],
    ) -> None:
        self._fellows = fellows
        self._answer = answer
        self._stream = stream
        self._came = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None
        self._retired = False
        self.task: asyncio.Task[None] | None = None
        """The call under way."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._fellows.add(self)
        if self._retired:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fellows.discard(self)
        self._writable.set()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._came += data
        if self.task is None and not self._retired and _is_whole(self._came):
            self.task = asyncio.ensure_future(self._run(*_take(self._came)))

    def retire(self) -> None:
        """Close once the call under way is answered; at once where there is none."""
        self._retired = True
        if self.task is None:
            self._end()

    async def _run(self, kind: bytes, call: bytes) -> None:
        try:
            if kind == WHOLE:
                self._write(_frame(PART, await self._answer(call)) + _frame(END))
            else:
                async with aclosing(self._stream(call)) as parts:
                    async for part in parts:
                        await self._writable.wait()
                        self._write(_frame(PART, part))
                self._write(_frame(END))
        except GatewayError as error:
            self._break(_Broken(type(error).__name__, error.message, error.param, error.retry_after_s))
        except asyncio.CancelledError:
            # By a caller that has left, or by what was asked for: then the caller learns of it by the close.
            if self._transport is not None:
                self._transport.abort()
            raise
        except Exception as error:
            log.exception("a call failed")
            self._break(_Broken(type(error).__name__, ""))
        finally:
            self.task = None
            if self._retired:
                self._end()

    def _break(self, broken: _Broken) -> None:
        self._write(_frame(ERROR, msgspec.msgpack.encode(broken)))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _end(self) -> None:
        self._write(_frame(CLOSED))
        if self._transport is not None:
            self._transport.close()


class LocalCalls:
    """An ingress's connections to the sockets of replicas, and how many calls each has under way."""

    def __init__(self) -> None:
        self.kept: dict[str, list[_Line]] = {}
        self.under_way: Counter[str] = Counter()

    async def call(self, path: str, kind: bytes, call: bytes) -> AsyncGenerator[bytes]:
        """The answer's parts. Closing the iterator cancels the call.

        Raises NotReached before the first part, Lost, and what the answer broke off with: an error of ours, or Failed.
        """
        line = await self._line(path)
        self.under_way[path] += 1
        whole = False
        try:
            line.write(_frame(kind, call))
            while True:
                told, data = await line.read()
                if told == PART:
                    yield data
                elif told == CLOSED:
                    raise NotReached
                else:
                    whole = True
                    if told == ERROR:
                        raise msgspec.msgpack.decode(data, type=_Broken).error()
                    return
        finally:
            self.under_way[path] -= 1
            self.under_way += Counter()  # Forgets who has none.
            if whole and not line.over:
                self.kept.setdefault(path, []).append(line)
            else:
                line.abort()

    async def _line(self, path: str) -> _Line:
        if kept := self.kept.get(path):
            line = kept.pop()
            if not kept:
                del self.kept[path]
            return line
        try:
            _, line = await asyncio.get_running_loop().create_unix_connection(lambda: _Line(self, path), path)
        except OSError as error:
            raise NotReached from error
        return line

    def forget(self, path: str, line: _Line) -> None:
        """Keep a connection no longer."""
        kept = self.kept.get(path, [])
        if line in kept:
            kept.remove(line)
            if not kept:
                del self.kept[path]


class _Line(asyncio.Protocol):
    """One connection to a replica's socket."""

    def __init__(self, keeper: LocalCalls, path: str) -> None:
        self._keeper = keeper
        self._path = path
        self._came = bytearray()
        self._news = asyncio.Event()
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.over = True
        self._news.set()
        self._keeper.forget(self._path, self)

    def data_received(self, data: bytes) -> None:
        self._came += data
        self._news.set()
        if len(self._came) > _MOST_UNREAD and _is_whole(self._came) and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def read(self) -> tuple[bytes, bytes]:
        """The next frame's kind and content. Raises Lost where the connection ends before."""
        while not _is_whole(self._came):
            if self.over:
                raise Lost
            self._news.clear()
            await self._news.wait()
        frame = _take(self._came)
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return frame
