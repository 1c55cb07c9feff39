"""From the ingress to a model's replica: a model as an ASGI app over a Serve handle."""

# Ray's own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedClassDecorator=false

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import aclosing
from typing import Any, cast

import msgspec
import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from gateway.attention import Attention
from gateway.errors import BackendFailed, GatewayError, Unavailable
from gateway.ingress.forward import BACKEND_SECONDS, LAST_RESORT
from gateway.serve.applications import application_of
from gateway.serve.local import SOCKET, STREAM, WHOLE, Failed, LocalCalls, Lost, NotReached
from gateway.serve.wire import Call, pack_call, unpack_head
from gateway.types import ModelCard, Receive, Scope, Send

log = logging.getLogger("gateway.serve")

ANSWER_WITHIN_S = 5.0
"""How long a replica may take to say what it is."""

_ASK_AGAIN_S = 0.2
"""Between two questions whether a lost model is back, where Serve answers at once that it is not."""


_LOCAL = LocalCalls()
"""Of this process: connections outlive a change of its configuration."""


class RemoteModel:
    """A model's ASGI app, wherever its replicas are. A client's leaving and a cancellation end the call there too."""

    def __init__(self, model: str) -> None:
        self._model = model
        handle: DeploymentHandle[Any] = serve.get_app_handle(application_of(model))
        # Bytes both ways: the cheapest of the handle's serializers that can also carry an exception.
        self._control = handle
        handle = handle.options(request_serialization="pickle", response_serialization="pickle")
        self._whole = handle.options(method_name="answer")
        self._stream = handle.options(method_name="stream", stream=True)
        self._node = ray.get_runtime_context().get_node_id()
        self._sockets: set[str] = set()
        """Of the replicas that were picked so far."""
        self._withdrawn: set[asyncio.Task[None]] = set()
        self._return: asyncio.Task[None] | None = None
        """Runs from the loss of a replica until any of the model's replicas answers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._return is not None and not scope.get(LAST_RESORT, True):
            # Serve would keep the request until a replica is back, seconds in which another target answers.
            raise Unavailable(f"{self._model} was lost and is not back yet", retry_after_s=1)
        body = (await receive()).get("body", b"")
        call = pack_call(Call(scope["method"], scope["path"], scope["query_string"], scope["headers"], body))
        streaming = _wants_events(body)
        try:
            with Attention(receive):
                if await self._pass_locally(call, send, streaming=streaming):
                    return
                if streaming:
                    await self._pass_stream(call, send)
                else:
                    await self._pass_whole(call, send)
        except (RayError, RayServeException) as error:
            if _lost(error):
                self._await_return()
            raise _translated(self._model, error) from error
        except asyncio.CancelledError as error:
            # A call whose replica died may end like this too. Nobody cancelled this one.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            self._await_return()
            raise Unavailable(f"{self._model} was lost while it answered", retry_after_s=1) from error

    async def _pass_locally(self, call: bytes, send: Send, *, streaming: bool) -> bool:
        """Pass the call to a replica on this machine; False where there is none that takes it."""
        socket = await self._pick()
        if socket is None:
            return False
        parts = _LOCAL.call(socket, STREAM if streaming else WHOLE, call)
        try:
            async with aclosing(parts):
                if streaming:
                    await _pass_parts(parts, send)
                else:
                    head, body = unpack_head(await anext(parts))
                    # To its end, so that the connection is kept.
                    async for _ in parts:
                        pass
                    await send(_start(head.status, head.headers, head.backend_s))
                    await send({"type": "http.response.body", "body": body})
        except NotReached:
            self._sockets.discard(socket)
            return False
        except Failed as error:
            log.error("%s failed: %s", self._model, error)
            raise BackendFailed(f"{self._model} failed to answer ({error})") from error
        except Lost as error:
            self._await_return()
            raise Unavailable(f"{self._model} was lost while it answered", retry_after_s=1) from error
        return True

    async def _pick(self) -> str | None:
        """The socket of the replica that Serve would call now; None where it is not on this machine."""
        socket = await self._picked()
        if socket is not None and len(self._sockets) > 1 and (busy := _LOCAL.under_way[socket]):
            # The less busy of two: Serve picks by chance.
            other = await self._picked()
            if other is not None and _LOCAL.under_way[other] < busy:
                return other
        return socket

    async def _picked(self) -> str | None:
        # Internal argument of an alpha API (kept in this one place): pick, and hold no room there.
        async with self._control.choose_replica(_reserve=False) as replica:
            socket: str | None = replica.replica_metadata.get(SOCKET)
            if socket is None or replica.node_id != self._node:
                return None
        self._sockets.add(socket)
        return socket

    def _await_return(self) -> None:
        if self._return is None:
            self._return = asyncio.create_task(self._returned())

    async def _returned(self) -> None:
        try:
            while True:
                try:
                    await self._control.describe.remote()
                    return
                except (RayError, RayServeException, asyncio.CancelledError) as error:
                    if (task := asyncio.current_task()) is not None and task.cancelling():
                        raise
                    log.info("%s is not back yet: %r", self._model, error)
                    await asyncio.sleep(_ASK_AGAIN_S)
        finally:
            self._return = None

    async def _pass_whole(self, call: bytes, send: Send) -> None:
        response = self._whole.remote(call)
        try:
            data: bytes = await response
        except asyncio.CancelledError:
            self._withdraw(response, response)
            raise
        head, body = unpack_head(data)
        await send(_start(head.status, head.headers, head.backend_s))
        await send({"type": "http.response.body", "body": body})

    async def _pass_stream(self, call: bytes, send: Send) -> None:
        parts = cast(AsyncIterator[bytes], self._stream.remote(call))
        try:
            await _pass_parts(parts, send)
        except BaseException:
            # Also where `send` failed because the client is gone: the engine must stop at once.
            self._withdraw(parts, anext(parts))
            raise

    def _withdraw(self, call: Any, rest: Awaitable[Any]) -> None:
        """End a call in its replica; `rest` is what would bring the rest of its answer."""
        task = asyncio.create_task(_ended(call, rest))
        self._withdrawn.add(task)
        task.add_done_callback(self._withdrawn.discard)

    async def card(self) -> ModelCard:
        """What the model says of itself. Raises Unavailable where it does not answer in time."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return msgspec.msgpack.decode(await self._control.describe.remote(), type=ModelCard)
        except (RayError, RayServeException, TimeoutError) as error:
            raise Unavailable(f"{self._model} does not answer: {error}") from error

    async def snapshots(self) -> Iterable[tuple[str, bytes]]:
        """(replica, metrics) of every replica."""
        return await broadcast(self._control, "snapshot")

    async def reports(self) -> Iterable[bytes]:
        """How every replica is."""
        return await broadcast(self._control, "report")

    async def adapters(self) -> Iterable[tuple[str, list[str]]]:
        """(replica, ids of the adapters in its memory) of every replica."""
        return await broadcast(self._control, "adapters")


async def _pass_parts(parts: AsyncIterator[bytes], send: Send) -> None:
    first = True
    async for part in parts:
        if first:
            first = False
            head, part = unpack_head(part)
            await send(_start(head.status, head.headers, head.backend_s))
            if not part:
                continue
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _ended(call: Any, rest: Awaitable[Any]) -> None:
    # Where a client leaves in the very turn of the event loop in which its call was assigned to a replica, Serve's
    # `cancel` does not know yet to whom, and does nothing. It knows once somebody has asked for the answer again.
    asking = asyncio.ensure_future(rest)
    await asyncio.sleep(0)
    call.cancel()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def broadcast(
    handle: DeploymentHandle[Any], method: str, *arguments: Any, within_s: float = ANSWER_WITHIN_S
) -> list[Any]:
    """The answers of all replicas that answer in time. The only use of Serve's (alpha) broadcast."""
    results: list[Any] = await handle.broadcast(method, *arguments).results_async(
        timeout_s=within_s, return_exceptions=True
    )
    answers: list[Any] = []
    for result in results:
        if isinstance(result, BaseException):
            log.warning("a replica did not answer %s: %s", method, result)
        else:
            answers.append(result)
    return answers


def _start(status: int, headers: list[tuple[bytes, bytes]], backend_s: float) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers, BACKEND_SECONDS: backend_s}


def _wants_events(body: bytes) -> bool:
    # The ingress has decoded `stream` already, but a model's app is an ASGI app like any other and gets bytes alone;
    # a body that merely mentions it takes the streaming way, which serves both.
    return b'"stream"' in body


def _lost(error: Exception) -> bool:
    return "Died" in type(error).__name__ or "Unavailable" in type(error).__name__


def _translated(model: str, error: Exception) -> GatewayError:
    cause = getattr(error, "cause", None)
    if isinstance(cause, GatewayError):
        return cause
    if isinstance(error, RayServeException) or _lost(error):
        return Unavailable(f"{model} is not answering ({type(error).__name__})", retry_after_s=1)
    log.error("%s failed: %s", model, error)
    return BackendFailed(f"{model} failed to answer ({type(error).__name__})")
