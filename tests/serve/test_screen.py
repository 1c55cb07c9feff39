"""What Serve's layers see of a request, and what our apps see behind them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.serve.screen import middlewares, unscreened
from gateway.types import Headers, Message, Receive, Scope, Send

SENT: Headers = [(b"authorization", b"Bearer secret"), (b"x-session-id", b"me")]


async def _passed(scope: Scope) -> tuple[Headers, Headers]:
    """(headers that Serve sees, headers that our app sees)."""
    seen: list[Headers] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope.get("headers", []))
        seen.append(unscreened(scope).get("headers", []))

    async def receive() -> Message:
        raise AssertionError("nobody asks")

    async def send(message: Message) -> None:
        raise AssertionError("nobody answers")

    app: Any = serve
    for middleware in middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    await app(scope, receive, send)
    return seen[0], seen[1]


async def test_serve_sees_an_id_and_no_secret():
    serves, ours = await _passed({"type": "http", "headers": list(SENT)})
    (name, made), wish = serves
    assert name == b"x-request-id"
    assert re.fullmatch(rb"[0-9a-f]{32}", made)
    assert wish == (b"x-request-disconnect-disabled", b"?1")
    assert ours == [*SENT, (name, made)]


async def test_a_clients_own_id_is_kept():
    sent = [*SENT, (b"x-request-id", b"mine-1")]
    serves, ours = await _passed({"type": "http", "headers": list(sent)})
    assert serves[0] == (b"x-request-id", b"mine-1")
    assert ours == sent


@pytest.mark.parametrize("id", [b"", b"caf\xc3\xa9", b"\xff"])
async def test_an_id_that_is_no_name_gives_way(id: bytes):
    serves, ours = await _passed({"type": "http", "headers": [(b"x-request-id", id)]})
    assert serves[0][1].isascii()
    assert dict(ours)[b"x-request-id"] == serves[0][1] != id


async def test_what_did_not_come_this_way_is_left_alone():
    scope: Scope = {"type": "websocket", "headers": list(SENT)}
    assert await _passed(scope) == (SENT, SENT)
    assert unscreened({"type": "http", "headers": list(SENT)})["headers"] == SENT
