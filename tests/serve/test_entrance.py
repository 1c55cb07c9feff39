"""Where a request goes that reaches a replica's HTTP server, and the id that it and its answer get."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.serve import entrance
from gateway.types import ASGIApp, Headers, Message, Receive, Scope, Send

SENT: Headers = [(b"authorization", b"Bearer secret"), (b"x-session-id", b"me")]
ANSWERED: Headers = [(b"content-type", b"text/plain")]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No door is left behind."""
    yield
    entrance._doors.clear()  # pyright: ignore[reportPrivateUsage]


class House:
    """An app that notes who came, and answers."""

    def __init__(self) -> None:
        self.seen: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append({**scope})
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": list(ANSWERED)})
            await send({"type": "http.response.body", "body": b"here"})


async def asked(serve: House, scope: Scope) -> list[Message]:
    """What is answered to a request, with Serve's layers played by `serve`."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("nobody asks")

    async def send(message: Message) -> None:
        sent.append(message)

    app: Any = serve
    for middleware in entrance.middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    whole: ASGIApp = app
    await whole({"path": "/v1/models", **scope}, receive, send)
    return sent


async def test_a_request_goes_to_our_door_alone_with_an_id_that_its_answer_bears():
    serve, ours = House(), House()
    entrance.lead_to(ours)
    head, body = await asked(serve, {"type": "http", "headers": list(SENT)})
    assert not serve.seen
    *kept, (name, made) = ours.seen[0]["headers"]
    assert (kept, name) == (SENT, b"x-request-id")
    assert re.fullmatch(rb"[0-9a-f]{32}", made)
    assert head["headers"] == [*ANSWERED, (b"x-request-id", made)]
    assert body == {"type": "http.response.body", "body": b"here"}


async def test_a_clients_own_id_is_kept():
    serve, ours = House(), House()
    entrance.lead_to(ours)
    sent = [*SENT, (b"x-request-id", b"mine-1")]
    head, _ = await asked(serve, {"type": "http", "headers": list(sent)})
    assert ours.seen[0]["headers"] == sent
    assert head["headers"][-1] == (b"x-request-id", b"mine-1")


@pytest.mark.parametrize("id", [b"", b"caf\xc3\xa9", b"\xff"])
async def test_an_id_that_is_no_name_gives_way(id: bytes):
    serve, ours = House(), House()
    entrance.lead_to(ours)
    head, _ = await asked(serve, {"type": "http", "headers": [(b"x-request-id", id), *SENT]})
    *kept, (_, made) = ours.seen[0]["headers"]
    assert kept == SENT
    assert made.isascii()
    assert made != id
    assert head["headers"][-1] == (b"x-request-id", made)


@pytest.mark.parametrize(
    "scope", [{"type": "http", "path": "/-/healthz"}, {"type": "http", "path": "/-/routes"}, {"type": "websocket"}]
)
async def test_what_is_serves_own_stays_so(scope: Scope):
    serve, ours = House(), House()
    entrance.lead_to(ours)
    scope = {"headers": list(SENT), **scope}
    answer = await asked(serve, scope)
    assert not ours.seen
    assert serve.seen == [{"path": "/v1/models", **scope}]
    assert all(message.get("headers", ANSWERED) == ANSWERED for message in answer)


async def test_without_a_door_in_this_loop_serve_leads_the_way():
    serve = House()
    await asked(serve, {"type": "http", "headers": [*SENT, (b"x-request-id", b"\xff")]})
    assert len(serve.seen) == 1
    *kept, (_, made) = serve.seen[0]["headers"]
    assert kept == SENT
    assert made.isascii()
