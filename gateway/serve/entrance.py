"""From a replica's HTTP server straight to our door in that replica, past Serve's own layers.

These would count requests for autoscaling, which no deployment here asks for, and for a replica's draining, which its
HTTP server sees to: it ends after the answers under way. They would keep logs, counters and traces, which are off, and
watch each client with two tasks for its leaving, which our apps notice anyway. All of it takes half of the fast lane's
time. Serve answers its own pages itself, and everything that does not come by HTTP.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

from starlette.middleware import Middleware

from gateway.types import ASGIApp, Message, Receive, Scope, Send

_ID = b"x-request-id"
_SERVES_OWN = "/-/"
"""Begins the paths of Serve's pages: a replica's health and its routes, which the proxy in front asks for."""

_doors: dict[asyncio.AbstractEventLoop, ASGIApp] = {}
"""The door of this process, by the loop that it is used in. A replica has a process of its own, but on a cluster that
others have set up its HTTP server may run in a loop of its own, from which only Serve's layers lead to ours."""


def lead_to(door: ASGIApp) -> None:
    """From now on requests go there, if the HTTP server runs in this event loop."""
    _doors[asyncio.get_running_loop()] = door


class Entrance:
    """The first that a request meets. It gives every request an id, and every answer its request's, as Serve does."""

    def __init__(self, app: ASGIApp) -> None:
        """`app`: Serve's own layers."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_SERVES_OWN):
            return await self._app(scope, receive, send)
        # Serve, too, takes an id as it comes, and fails where it is no text.
        name: bytes = dict(scope["headers"]).get(_ID, b"")
        if not name or not name.isascii():
            name = b"%032x" % random.getrandbits(128)
            scope["headers"] = [*(pair for pair in scope["headers"] if pair[0] != _ID), (_ID, name)]
        door = _doors.get(asyncio.get_running_loop())
        if door is None:
            return await self._app(scope, receive, send)

        def answer(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (_ID, name)]
            return send(message)

        return await door(scope, receive, answer)


def middlewares() -> list[Middleware]:
    """What Serve puts in front of a replica's HTTP server: `settings.DOOR` names this."""
    return [Middleware(Entrance)]
