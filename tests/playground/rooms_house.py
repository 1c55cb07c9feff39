"""A house with what the tabs beside Chat need: a model that keeps grammars, and the real app of evaluations."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from gateway.apps import AppContext
from gateway.backend import Backend, BackendContext
from gateway.config import ModelSpec
from gateway.ingress.auth import AppDoor, hash_keys
from gateway.types import ASGIApp, Message, Receive, Scope, Send
from gateway_evals.server.app import build as build_evals
from tests.playground.house import House
from tests.playground.scribe import ScribeBackend

KEY = "k-for-the-rooms-only"


@dataclass
class RoomsHouse(House):
    """Asks for KEY, as a gateway that listens beyond its machine does."""

    keys: tuple[str, ...] = (KEY,)
    evals: ASGIApp = field(init=False)
    looks: int = 0
    """How often it was asked for `/status`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        door = AppDoor(build_evals(AppContext(self.base_url, "/evals")), protected=True)
        door.admit(hash_keys(self.keys))
        self.evals = door

    def make_backends(self) -> dict[str, Backend]:
        return {
            **super().make_backends(),
            "scribe": ScribeBackend(BackendContext("scribe", ModelSpec(backend="scribe"), None)),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.looks += scope.get("path") == "/status"
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif str(scope.get("path", "")).startswith("/evals"):
            await self.evals({**scope, "root_path": "/evals"}, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Both apps' lives: evaluations end the runs that are under way when the house goes."""
        inbox, outbox = asyncio.Queue[Message](), asyncio.Queue[Message]()
        evals = asyncio.ensure_future(self.evals({**scope, "state": {}}, inbox.get, outbox.put))
        await inbox.put({"type": "lifespan.startup"})
        await outbox.get()
        try:
            await super().__call__(scope, receive, send)
        finally:
            await inbox.put({"type": "lifespan.shutdown"})
            await evals
