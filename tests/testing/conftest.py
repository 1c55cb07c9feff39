"""A gateway over the echo engine in this process, as one of its clients sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest

from gateway.ingress.doors import DoorPolicy
from gateway.testing.served import Served, find
from gateway.types import ASGIApp
from tests.ingress.conftest import Doors

Before = Callable[[ASGIApp], ASGIApp]
Open = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def echo() -> Open:
    """`async with echo() as served`; `echo(before)` puts an app of the test's between the client and the gateway."""

    @asynccontextmanager
    async def connected(before: Before = lambda app: app) -> AsyncIterator[Served]:
        door: ASGIApp = Doors({}, DoorPolicy(), [], []).door
        transport = httpx.ASGITransport(app=before(door), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, timeout=30) as http:
            (served,) = await find(http, "http://127.0.0.1/v1", ["echo"])
            yield served

    return connected
