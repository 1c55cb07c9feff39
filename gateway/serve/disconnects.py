"""Leaves clients' disconnects to our own apps, which notice them anyway: Serve's watching costs two tasks a request."""

from __future__ import annotations

from starlette.middleware import Middleware

from gateway.types import ASGIApp, Receive, Scope, Send

_UNWATCHED = (b"x-request-disconnect-disabled", b"?1")


class Unwatched:
    """Marks every request as one whose disconnect Serve need not turn into a cancellation."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [*scope["headers"], _UNWATCHED]
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Serve puts in front of a replica's HTTP server: `settings.DOOR` names this."""
    return [Middleware(Unwatched)]
