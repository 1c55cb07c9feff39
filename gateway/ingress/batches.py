"""The layer of `/v1/files` and `/v1/batches`. All other paths pass untouched."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from gateway.errors import InvalidRequest, MethodNotAllowed, NotFound, Unsupported
from gateway.ingress.record import Layer
from gateway.ingress.request import GatewayRequest
from gateway.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from gateway.batches.desk import Desk
    from gateway.batches.files import Files
    from gateway.batches.worker import Worker

_OWN = re.compile(r"/v1/(files|batches)(?:/([^/]+)(?:/([^/]+))?)?/?")
_JSON = b"application/json"
_FORM = b"multipart/form-data"


class Unsent:
    """In front of the layers that answer: a request of a batch, which no client has sent."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    async def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        from gateway.batches.worker import LINE

        request.key_id, body = scope[LINE]
        request.read(body)
        await self._layer(request, scope, receive, send)


class Batches:
    """Takes files and batches in, and has a worker of its own for them."""

    def __init__(
        self, layer: Layer, alone: ASGIApp, open_: Callable[[], tuple[Files, Desk]], *, resume: bool = False
    ) -> None:
        """`alone`: answers a request of a batch. `open_`: called when first needed: most gateways are never asked for
        a batch. `resume`: whether `start` has to look for batches that are unfinished."""
        self._layer = layer
        self._alone = alone
        self._open = open_
        self._resume = resume
        self._desks: tuple[Files, Desk] | None = None
        self._worker: Worker | None = None

    def start(self) -> None:
        if self._resume:
            self._opened()

    async def close(self) -> None:
        if self._worker is not None:
            await self._worker.close()

    async def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        own = _OWN.fullmatch(request.path)
        if own is None:
            return await self._layer(request, scope, receive, send)
        kind, item, page = own.groups()
        files, desk = self._opened()
        if kind == "files" and page == "content":
            _only(request, "GET")
            return await _answer(send, await files.content(request.key_id, item), b"application/octet-stream")
        if kind == "files":
            answer = await _files(request, files, item, page)
        else:
            answer = await self._batches(request, files, desk, item, page)
        return await _answer(send, msgspec.json.encode(answer), _JSON)

    def _opened(self) -> tuple[Files, Desk]:
        if self._desks is None:
            from gateway.batches.worker import Worker

            self._desks = self._open()
            self._worker = Worker(self._desks[1], self._alone)
            self._worker.start()
        return self._desks

    async def _batches(
        self, request: GatewayRequest, files: Files, desk: Desk, item: str | None, page: str | None
    ) -> Any:
        key_id = request.key_id
        if item is None:
            if request.method == "POST":
                return await self._begin(request, files, desk)
            _only(request, "GET")
            from gateway.batches.desk import MAX_PAGE

            query = _Query(request)
            return await desk.page(key_id, limit=query.limit(20, MAX_PAGE), after=query.text("after"))
        if page is None:
            _only(request, "GET")
            return await desk.get(key_id, item)
        if page != "cancel":
            raise _nothing(request)
        _only(request, "POST")
        batch = await desk.cancel(key_id, item)
        if self._worker is not None:
            self._worker.cancel(item)
        return batch

    async def _begin(self, request: GatewayRequest, files: Files, desk: Desk) -> Any:
        from gateway.batches.lines import ENDPOINTS, read_lines

        file_id = request.value("input_file_id", str)
        if not file_id:
            raise InvalidRequest("`input_file_id` is missing: hand in the requests at /v1/files", param="input_file_id")
        endpoint = request.value("endpoint", str)
        if endpoint not in ENDPOINTS:
            raise InvalidRequest(f"`endpoint` must be one of: {', '.join(ENDPOINTS)}", param="endpoint")
        if request.value("completion_window", str) != "24h":
            raise InvalidRequest("`completion_window` must be 24h", param="completion_window")
        for name in request.fields:
            if name not in _BATCH_FIELDS and request.value(name, object) is not None:
                raise Unsupported(f"`{name}` is not supported", param=name)
        metadata: dict[str, str] = request.value("metadata", dict[str, str]) or {}
        if len(metadata) > 16 or any(len(name) > 64 or len(value) > 512 for name, value in metadata.items()):
            raise InvalidRequest("`metadata` holds at most 16 pairs of at most 64 and 512 characters", param="metadata")
        content = await files.content(request.key_id, file_id, param="input_file_id")
        lines, errors = await asyncio.to_thread(read_lines, content, endpoint)
        batch = await desk.add(request.key_id, endpoint, file_id, metadata, lines, errors)
        if self._worker is not None:
            self._worker.wake()
        return batch


_BATCH_FIELDS = frozenset({"input_file_id", "endpoint", "completion_window", "metadata"})


async def _files(request: GatewayRequest, files: Files, item: str | None, page: str | None) -> Any:
    key_id = request.key_id
    if page is not None:
        raise _nothing(request)
    if item is not None:
        if request.method == "DELETE":
            await files.delete(key_id, item)
            return {"id": item, "object": "file", "deleted": True}
        _only(request, "GET", "DELETE")
        return await files.get(key_id, item)
    if request.method == "POST":
        purpose, filename, content = await _form(request)
        return await files.add(key_id, filename, purpose, content)
    _only(request, "GET", "POST")
    from gateway.batches.files import MAX_PAGE

    query = _Query(request)
    return await files.page(
        key_id,
        purpose=query.text("purpose"),
        limit=query.limit(MAX_PAGE, MAX_PAGE),
        after=query.text("after"),
        oldest=query.text("order") == "asc",
    )


async def _form(request: GatewayRequest) -> tuple[str, str, bytes]:
    """(purpose, filename, content) of an upload. Raises InvalidRequest naming what is missing."""
    kind = request.headers.get(b"content-type", b"")
    if not kind.lower().startswith(_FORM):
        raise InvalidRequest("a file comes as multipart/form-data with the fields `purpose` and `file`")
    from starlette.datastructures import Headers, UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def body() -> AsyncGenerator[bytes, None]:
        yield request.body

    headers = Headers(raw=[(b"content-type", kind)])
    try:
        form = await MultiPartParser(headers, body(), max_files=1, max_fields=8).parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "it has no boundary, or is no UTF-8"
        raise InvalidRequest(f"the form cannot be read: {reason}") from None
    try:
        for name in form:
            if name not in ("purpose", "file"):
                raise Unsupported(f"`{name[:64]}` is not supported", param=name[:64])
        purpose, file = form.get("purpose"), form.get("file")
        if not isinstance(purpose, str):
            raise InvalidRequest("`purpose` is missing", param="purpose")
        if not isinstance(file, UploadFile):
            raise InvalidRequest("`file` is missing, or is no file", param="file")
        return purpose, file.filename or "", await file.read()
    finally:
        await form.close()


class _Query:
    """A request's query string."""

    def __init__(self, request: GatewayRequest) -> None:
        self._values = parse_qs(request.query.decode("latin-1"))

    def text(self, name: str) -> str | None:
        return self._values.get(name, [None])[-1]

    def limit(self, usual: int, most: int) -> int:
        """Raises InvalidRequest for what is no number from 1 to `most`."""
        text = self.text("limit") or str(usual)
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
            raise InvalidRequest(f"`limit` must be a number from 1 to {most}", param="limit")
        return int(text)


def _only(request: GatewayRequest, *methods: str) -> None:
    if request.method not in methods:
        raise MethodNotAllowed(f"{request.path[:200]} takes {' and '.join(methods)}, not {request.method}")


def _nothing(request: GatewayRequest) -> NotFound:
    return NotFound(f"There is no {request.path[:200]!r} here")


async def _answer(send: Send, body: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
