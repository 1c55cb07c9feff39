"""The layer of `/v1/responses`: requests become chat completions, answers become responses, and these are kept."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors import GatewayError, InvalidRequest, MethodNotAllowed, NotFound, TooManyRequests
from gateway.ingress.record import Layer
from gateway.ingress.request import GatewayRequest
from gateway.types import Headers, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from gateway.responses.answer import ResponseStream
    from gateway.responses.archive import Archive

log = logging.getLogger("gateway.ingress")

RESPONSES = "/v1/responses"
_CHAT = "/v1/chat/completions"
_TOUCH_S = 2.0
"""How often a run in the background says that it lives, and asks whether it is still wanted."""
MAX_BACKGROUND = 256
"""Runs in the background of one door."""

_encode = msgspec.json.Encoder().encode
_JSON = (b"content-type", b"application/json")


class Responses:
    """All other paths pass untouched."""

    def __init__(self, layer: Layer, archive: Callable[[], Archive]) -> None:
        """`archive`: opened when first needed: most gateways are never asked for a response."""
        self._layer = layer
        self._archive = archive
        self._runs: dict[str, asyncio.Task[None]] = {}

    async def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        path, own = request.path, request.path.rstrip("/")
        if own == RESPONSES:
            if request.method != "POST":
                raise MethodNotAllowed(f"{path} takes POST, not {request.method}")
            try:
                return await self._create(request, scope, receive, send)
            finally:
                # The record speaks of what the client asked.
                request.path = path
        if own.startswith(RESPONSES + "/"):
            response_id, _, page = own.removeprefix(RESPONSES + "/").partition("/")
            return await _send_json(await self._kept(request, response_id, page), send)
        return await self._layer(request, scope, receive, send)

    async def _create(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        from gateway.responses import answer
        from gateway.responses.request import chat_of, items_of, read_request

        asked = read_request(request.fields)
        before: list[dict[str, Any]] = []
        if asked.previous_response_id is not None:
            before = await self._archive().conversation(request.key_id, asked.previous_response_id)
        response = answer.begun(asked, request.model)
        items = items_of(asked)
        request.become(_CHAT, _encode(chat_of(asked, request.fields, before)))
        if asked.background:
            if len(self._runs) >= MAX_BACKGROUND:
                raise TooManyRequests(f"{MAX_BACKGROUND} responses are running in the background", retry_after_s=5)
            response["status"] = "queued"
            await self._archive().put(request.key_id, items, response)
            # A request of its own: this one is over, and recorded, once it is answered.
            run = self._run(copy.copy(request), scope, copy.deepcopy(response))
            task = self._runs[response["id"]] = asyncio.create_task(run)
            task.add_done_callback(lambda _: self._runs.pop(response["id"], None))
            await _send_json(response, send)
            return

        async def keep() -> None:
            if response["store"]:
                await self._archive().put(request.key_id, items, response)

        await self._layer(request, scope, receive, _Answer(response, keep, send))

    async def _run(self, request: GatewayRequest, scope: Scope, response: dict[str, Any]) -> None:
        """A response in the background, to its end."""
        from gateway.responses.answer import complete, fail

        archive = self._archive()
        collected = _Collected()
        work = asyncio.ensure_future(self._layer(request, scope, _never, collected))
        try:
            while not (await asyncio.wait([work], timeout=_TOUCH_S))[0]:
                if not await archive.touch(response["id"]):
                    return
            work.result()
            if collected.status < 400:
                complete(response, bytes(collected.body))
            else:
                error: Any = msgspec.json.decode(collected.body)
                fail(response, str(error["error"]["message"]))
        except GatewayError as error:
            fail(response, error.message)
        except Exception as error:
            log.exception("response %s failed in the background", response["id"])
            fail(response, f"the gateway failed ({type(error).__name__})")
        finally:
            work.cancel()
            await asyncio.wait([work])
            if response["status"] not in ("queued", "in_progress"):
                await archive.finish(response)

    async def _kept(self, request: GatewayRequest, response_id: str, page: str) -> dict[str, Any]:
        method, archive = request.method, self._archive()
        if (method, page) == ("DELETE", ""):
            if not await archive.delete(request.key_id, response_id):
                raise _unknown(response_id)
            self._stop(response_id)
            return {"id": response_id, "object": "response", "deleted": True}
        if (method, page) == ("GET", "input_items"):
            items = await archive.items(request.key_id, response_id)
            if items is None:
                raise _unknown(response_id)
            return {"object": "list", "data": items, "has_more": False}
        if (method, page) not in (("GET", ""), ("POST", "cancel")):
            if page in ("", "input_items", "cancel"):
                raise MethodNotAllowed(f"{request.path} does not take {method}")
            raise NotFound(f"There is no {request.path[:200]!r} here")
        response = await archive.get(request.key_id, response_id)
        if response is None:
            raise _unknown(response_id)
        if page == "cancel":
            if not response["background"]:
                raise InvalidRequest("only a response in the background can be cancelled", param="response_id")
            if await archive.cancel(request.key_id, response):
                self._stop(response_id)
        return response

    def _stop(self, response_id: str) -> None:
        # Another process' run finds out by itself.
        if (run := self._runs.get(response_id)) is not None:
            run.cancel()


class _Answer:
    """The `send` of one request: a whole answer is held until it can be told, events leave as they come."""

    def __init__(self, response: dict[str, Any], keep: Callable[[], Any], send: Send) -> None:
        self._response = response
        self._keep = keep
        self._send = send
        self._start: Message = {}
        self._stream: ResponseStream | None = None
        self._held = bytearray()
        self._kept = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._head(message)
        elif message["type"] == "http.response.body":
            await self._body(message.get("body", b""), more=message.get("more_body", False))

    async def _head(self, message: Message) -> None:
        headers: Headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"content-length"]
        self._start = {**message, "headers": headers}
        kinds = [value for name, value in headers if name.lower() == b"content-type"]
        if message["status"] < 400 and any(kind.startswith(b"text/event-stream") for kind in kinds):
            from gateway.responses.answer import ResponseStream

            self._stream = ResponseStream(self._response)
            await self._send(self._start)

    async def _body(self, body: bytes, *, more: bool) -> None:
        from gateway.responses.answer import complete

        stream = self._stream
        if stream is not None:
            events = stream.push(body) + (b"" if more else stream.end())
            if stream.over and not self._kept:
                # Kept before the last event says so.
                self._kept = True
                await self._keep()
            if events or not more:
                await self._send({"type": "http.response.body", "body": events, "more_body": more})
            return
        self._held += body
        if more:
            return
        told = bytes(self._held)
        if self._start["status"] < 400:
            complete(self._response, told)
            await self._keep()
            told = _encode(self._response)
        self._start["headers"].append((b"content-length", str(len(told)).encode()))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": told})


class _Collected:
    """A `send` for an answer that nobody waits for."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.body += message.get("body", b"")


async def _never() -> Message:
    """The `receive` of a client that does not leave."""
    await asyncio.Event().wait()
    raise AssertionError


async def _send_json(value: dict[str, Any], send: Send) -> None:
    body = _encode(value)
    headers = [_JSON, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _unknown(response_id: str) -> NotFound:
    return NotFound(f"there is no response {response_id[:64]!r}", param="response_id")
