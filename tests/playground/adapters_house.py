"""The gateway of the adapters' tests, with its registry, on a port, and the playground beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from gateway.apps import AppContext
from gateway.types import ASGIApp, Receive, Scope, Send
from gateway_playground.app import build
from tests.adapters import house as adapters
from tests.playground.house import installed_tabs


class AdaptersHouse:
    """An ASGI app: echo with adapters behind the real doors."""

    def __init__(self, base_url: str, folder: Path, base: Path) -> None:
        self.base_url = base_url
        self._folder, self._base = folder, base
        self._playground: ASGIApp = build(AppContext(base_url, "/playground", {}, installed_tabs()))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._house: adapters.House | None = None

    @property
    def house(self) -> adapters.House:
        assert self._house is not None
        return self._house

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the house's own event loop, from a test's thread."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] == "lifespan":
            self._loop = asyncio.get_running_loop()
            self._house = adapters.House(self._folder, self._base, {"echo": {"adapters": {}}, "plain": {}}, 1)
            self._house.start()
            try:
                await self._playground(scope, receive, send)
            finally:
                await self._house.close()
        elif path.startswith("/playground"):
            await self._playground({**scope, "root_path": "/playground"}, receive, send)
        elif path.startswith("/m/"):
            model = path.split("/")[2]
            await self.house.lanes[model].app({**scope, "root_path": f"/m/{model}"}, receive, send)
        else:
            await self.house.door(scope, receive, send)
