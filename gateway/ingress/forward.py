"""The innermost layer: ask a target, fall back before the first byte, pass the answer on. A target is an ASGI app."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence

from gateway.adapters.residence import HEADER
from gateway.errors import GatewayError, ModelNotFound, NotFound, Unavailable
from gateway.ingress.adapters import AdapterNames
from gateway.ingress.answer import AnswerFilter
from gateway.ingress.request import ClientGone, GatewayRequest
from gateway.routing import RouteTable
from gateway.types import ASGIApp, Headers, Message, Receive, Scope, Send, Target, Usage

log = logging.getLogger("gateway.ingress")

ENGINE_PATHS = frozenset({"/tokenize", "/detokenize", "/tokenizer_info", "/health"})
"""Paths outside `/v1/` that belong to a model."""

GIVES_WAY = frozenset({429, 500, 502, 503, 504})
"""A target that begins its answer with one of these gives way to the next: full, broken or down."""

NOT_FORWARDED = frozenset(
    {b"authorization", b"x-api-key", b"cookie", b"content-length", b"transfer-encoding", b"expect", HEADER}
)
"""Secrets stay here; lengths are set anew, and which adapter answers is not for a client's header to say."""

_NOT_WITH_JSON = NOT_FORWARDED | {b"content-type"}

NOT_RETURNED = frozenset({b"x-request-id", b"content-length", b"server", b"date", b"transfer-encoding", b"connection"})
"""Set by the server in front, or anew."""

BACKEND_SECONDS = "gateway.backend_s"
"""Key in a start message: how long the backend itself took until it began to answer, measured beside it."""

_STREAM_ERROR = b'data: {"error"'
"""Begins the event by which a backend says that the stream broke. Inside a JSON string its quotes would be escaped."""

LAST_RESORT = "gateway.last_resort"
"""Key in a scope: nobody else is asked after this target, so waiting for it is better than giving way."""

Order = Callable[[GatewayRequest], Sequence[Target]]
"""Whom to ask for a request, in order. Raises ModelNotFound."""


def by_table(table: RouteTable, rng: random.Random) -> Order:
    """The wide door's order: routes and models by name."""
    return lambda request: table.targets(request.model, rng)


def only(model: str) -> Order:
    """The fast lane's order: this model; any other name is a 404."""
    alone = (Target(model),)
    table = RouteTable(models=(model,), default=model)
    never = random.Random(0)  # noqa: S311 (draws nothing: there is one target)

    def order(request: GatewayRequest) -> Sequence[Target]:
        return alone if request.model in ("", model) else table.targets(request.model, never)

    return order


class Forward:
    """Asks the targets that `order` names, each through the ASGI app that `app` finds for it."""

    def __init__(self, order: Order, app: Callable[[str], ASGIApp], adapters: AdapterNames | None = None) -> None:
        """`adapters`: finds who answers to a name that `order` does not know."""
        self._order = order
        self._app = app
        self._adapters = adapters

    async def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        path = request.path
        if not (path.startswith("/v1/") or path in ENGINE_PATHS):
            raise NotFound(f"There is no {path[:200]!r} here; the API begins at /v1")
        try:
            targets = self._order(request)
        except ModelNotFound as unknown:
            if self._adapters is None:
                raise
            targets = (await self._adapters.find(request.model, unknown),)
        last = len(targets) - 1
        for index, target in enumerate(targets):
            request.attempts += 1
            if await self._ask(request, target, scope, receive, send, final=index == last):
                return

    async def _ask(
        self, request: GatewayRequest, target: Target, scope: Scope, receive: Receive, send: Send, *, final: bool
    ) -> bool:
        """Whether the client was answered; if not, nothing was sent to it and the next target may be asked."""
        model = request.target = target.model
        asked = request.model or model
        answer = _Passing(request, target, asked, send, final=final)
        try:
            asked_scope = _scope_for(request, target, scope, final=final)
            await self._app(model)(asked_scope, _receive_for(request, target.name, receive), answer)
        except GatewayError as error:
            if answer.started:
                await answer.fail(error)
                raise
            if final or error.status not in GIVES_WAY:
                raise
            log.warning("request %s: %s gave way: %s", request.id, model, error.message)
            return False
        if answer.gave_way:
            log.warning("request %s: %s gave way with %d", request.id, model, answer.status)
            return False
        if request.gone:
            raise ClientGone
        if not answer.done:
            raise Unavailable(f"{model} ended its answer too early")
        return True


class _Passing:
    """The `send` that a target is given."""

    __slots__ = (
        "_asked_at",
        "_events",
        "_filter",
        "_final",
        "_held",
        "_request",
        "_send",
        "_target",
        "done",
        "gave_way",
        "started",
        "status",
    )

    def __init__(self, request: GatewayRequest, target: Target, asked: str, send: Send, *, final: bool) -> None:
        self._request = request
        self._target = target
        self._send = send
        self._final = final
        self._asked_at = time.perf_counter()
        self._held: Message | None = None
        self._events = False
        self._filter = AnswerFilter(asked, target.name, drop_usage=not request.wants_usage, found=self._count)
        self.status = 0
        self.started = False
        """Whether the client has been sent anything."""
        self.gave_way = False
        self.done = False

    def _count(self, usage: Usage) -> None:
        self._request.usage = usage

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if not self._final and self.status in GIVES_WAY:
                self.gave_way = True
            else:
                self._held = self._head(message)
            return
        if self.gave_way or message["type"] != "http.response.body":
            return
        more: bool = message.get("more_body", False)
        body: bytes = message.get("body", b"")
        if self._held is not None:
            # The head waits for the first of the body: a whole answer's length is known only once it has been renamed.
            head, self._held = self._held, None
            self.started = True
            if not more:
                self.done = True
                body = self._filter.chunk(body, last=True) if self._events else self._filter.whole(body)
                head["headers"].append((b"content-length", str(len(body)).encode()))
                await self._send(head)
                await self._send({"type": "http.response.body", "body": body})
                return
            await self._send(head)
        if self._events:
            # Parts of anything else (files) pass as they are.
            if _STREAM_ERROR in body:
                self._request.outcome = "server_error"
                self._request.failed_with(body[body.find(_STREAM_ERROR) :])
            body = self._filter.chunk(body, last=not more)
        self.done = not more
        if body or not more:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def fail(self, error: GatewayError) -> None:
        """End a stream that has begun with an event that says why; whatever else has begun just ends."""
        if self._events and not self.done:
            self.done = True
            body = b"data: " + error.to_json() + b"\n\ndata: [DONE]\n\n"
            await self._send({"type": "http.response.body", "body": body})

    def _head(self, message: Message) -> Message:
        now = time.perf_counter()
        backend_s: float = message.get(BACKEND_SECONDS, now - self._asked_at)
        overhead_ms = (now - self._request.started - backend_s) * 1e3
        headers: Headers = []
        for pair in message.get("headers", ()):
            name = pair[0].lower()
            if name not in NOT_RETURNED:
                headers.append(pair)
                if name == b"content-type":
                    self._events = pair[1].startswith(b"text/event-stream")
        headers.append((b"x-gateway-target", self._target.model.encode()))
        if self._target.adapter:
            headers.append((HEADER, self._target.adapter.encode()))
        headers.append((b"x-gateway-overhead-ms", b"%.3f" % max(0.0, overhead_ms)))
        return {"type": "http.response.start", "status": self.status, "headers": headers}


def _scope_for(request: GatewayRequest, target: Target, scope: Scope, *, final: bool) -> Scope:
    # What was read as JSON is JSON, whatever a client's default says (curl: a form).
    dropped = _NOT_WITH_JSON if request.fields else NOT_FORWARDED
    headers: Headers = [pair for pair in scope["headers"] if pair[0] not in dropped]
    if request.fields:
        headers.append((b"content-type", b"application/json"))
    if request.method == "POST":
        headers.append((b"content-length", str(len(request.body_for(target.name))).encode()))
    if target.adapter:
        headers.append((HEADER, target.adapter.encode()))
    return {
        "type": "http",
        "asgi": scope["asgi"],
        "http_version": scope.get("http_version", "1.1"),
        "method": request.method,
        "scheme": scope.get("scheme", "http"),
        "path": request.path,
        "raw_path": request.path.encode(),
        "root_path": "",
        "query_string": request.query,
        "headers": headers,
        "client": scope.get("client"),
        "server": scope.get("server"),
        LAST_RESORT: final,
    }


def _receive_for(request: GatewayRequest, model: str, receive: Receive) -> Receive:
    body: bytes | None = request.body_for(model)

    async def receive_body() -> Message:
        nonlocal body
        if body is not None:
            message: Message = {"type": "http.request", "body": body, "more_body": False}
            body = None
            return message
        # From here on the only thing that can come is the client's hang-up.
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                request.gone = True
                return message

    return receive_body
