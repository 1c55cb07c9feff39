"""A whole gateway on one port without Ray: echo models behind the real doors, the playground under its prefix."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from gateway.apps import AppContext
from gateway.backend import Backend, BackendContext
from gateway.config import ModelSpec
from gateway.ingress.auth import hash_keys
from gateway.ingress.doors import DoorPolicy, fast_lane, wide_door
from gateway.ingress.limits import InFlight
from gateway.ingress.metrics import Metrics
from gateway.ingress.status import Application, FleetReport, ReplicaReport, report
from gateway.plugins import Plugins, load
from gateway.routing import RouteTable, first
from gateway.tabs import TabOffer
from gateway.types import ASGIApp, Message, ModelCard, Receive, Scope, Send, Target
from gateway_echo.backend import EchoBackend
from gateway_playground.app import build

MODELS: dict[str, dict[str, Any]] = {
    "quick": {},
    "other": {},
    "slow": {"delay_ms": 40},
    "breaks": {"delay_ms": 5, "fail_after": 6},
    "down": {"fail": "always"},
}
ROUTES = {"any": ("quick",)}


def installed_tabs() -> Sequence[TabOffer]:
    return tuple(load().tabs.offers.values())


@dataclass
class House:
    """Its ASGI app, and what came in: an observer in front of the real doors."""

    base_url: str
    keys: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tabs: Sequence[TabOffer] = field(default_factory=installed_tabs)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """(path, body) of every chat request, in order."""
    backends: dict[str, Backend] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    started_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.backends = self.make_backends()
        policy = DoorPolicy(key_hashes=tuple(hash_keys(self.keys)))
        shared: dict[str, Any] = {"metrics": self.metrics, "plugins": Plugins([])}
        table = RouteTable(
            tuple(self.backends),
            {name: (first, tuple(Target(model) for model in to)) for name, to in ROUTES.items()},
            next(iter(self.backends)),
        )
        self._wide = wide_door(policy, table=table, app=lambda name: self.backends[name].app, fleet=self, **shared)
        self._lanes = {
            name: fast_lane(policy, model=name, app=backend.app, in_flight=InFlight(64, name), **shared)
            for name, backend in self.backends.items()
        }
        self._playground = build(AppContext(self.base_url, "/playground", self.options, self.tabs))

    def make_backends(self) -> dict[str, Backend]:
        return {
            name: EchoBackend(BackendContext(name, ModelSpec(backend="echo", options=options), None))
            for name, options in MODELS.items()
        }

    async def cards(self) -> Mapping[str, ModelCard | None]:
        return {name: backend.card() for name, backend in self.backends.items()}

    async def snapshots(self) -> Iterable[tuple[str, bytes]]:
        return [("house", self.metrics.snapshot())]

    async def report(self) -> FleetReport:
        in_flight = sum(self.metrics.in_flight.values())
        door = await report("house", metrics=self.metrics, started_at=self.started_at, in_flight=in_flight, limit=None)
        lanes = [
            ReplicaReport(f"{name}-1", name, self.started_at, backend.running(), 64, backend.running())
            for name, backend in self.backends.items()
        ]
        return FleetReport([door, *lanes], apps={"playground": Application("running", {"running": 1})})

    def running(self) -> int:
        """Generations in all engines."""
        return sum(backend.running() for backend in self.backends.values())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] == "lifespan":
            # Only the playground holds something; the doors and echoes are made and gone with this object.
            await self._playground(scope, receive, send)
        elif path == "/playground" or path.startswith("/playground/"):
            # As Ray Serve hands it on: the path whole, the prefix in root_path.
            await self._playground({**scope, "root_path": "/playground"}, receive, send)
        elif path.startswith("/m/"):
            model = path.split("/")[2]
            await self._observed(self._lanes[model], {**scope, "root_path": f"/m/{model}"}, receive, send)
        else:
            await self._observed(self._wide, scope, receive, send)

    async def _observed(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        heard = bytearray()

        async def listen() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                heard.extend(message.get("body", b""))
                if not message.get("more_body", False) and scope["path"].endswith("/chat/completions"):
                    self.asked.append((scope["path"], json.loads(heard)))
            return message

        await app(scope, listen, send)


@contextmanager
def on_a_port(make: Any) -> Generator[tuple[str, Any]]:
    """Run `make(base_url)`, an ASGI app, under uvicorn on a free port in a thread; (base_url, app)."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = make(url)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            if time.monotonic() > deadline or not thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.02)
        yield url, app
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
