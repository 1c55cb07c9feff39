"""Stands between a replica's HTTP server and Serve's own layers, which see of a request what they need: its id.

They would read every header several times for what nothing here uses (sessions, multiplexed models), and would watch
each client for its leaving with two tasks, which our own apps notice anyway. Keys are none of their business either.
"""

from __future__ import annotations

import random

from starlette.middleware import Middleware

from gateway.types import ASGIApp, Headers, Receive, Scope, Send

_HEADERS = "gateway.headers"
"""Key in a scope: the headers as the client sent them, and the request's id."""

_ID = b"x-request-id"
_UNWATCHED = (b"x-request-disconnect-disabled", b"?1")


class Screen:
    """In front of Serve's layers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers: Headers = scope["headers"]
            known = [pair for pair in headers if pair[0] == _ID and pair[1] and pair[1].isascii()][:1]
            if not known:
                known = [(_ID, b"%032x" % random.getrandbits(128))]
                headers = [*headers, *known]
            scope[_HEADERS] = headers
            scope["headers"] = [*known, _UNWATCHED]
        await self._app(scope, receive, send)


def unscreened(scope: Scope) -> Scope:
    """Behind Serve's layers: the scope with the client's headers again, whichever way it came."""
    headers = scope.pop(_HEADERS, None)
    if headers is not None:
        scope["headers"] = headers
    return scope


def middlewares() -> list[Middleware]:
    """What Serve puts in front of a replica's HTTP server: `settings.DOOR` names this."""
    return [Middleware(Screen)]
