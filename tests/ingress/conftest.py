"""Both doors in this process, without Ray: real echo backends behind the real layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import pytest

from gateway import openapi, plugins, routing
from gateway.backend import Backend, BackendContext
from gateway.config import GatewayConfig, parse
from gateway.errors import Unavailable
from gateway.ingress.doors import DoorPolicy, fast_lane, wide_door
from gateway.ingress.limits import InFlight
from gateway.ingress.metrics import Metrics
from gateway.ingress.status import FleetReport, report
from gateway.plugins import Plugins
from gateway.testing import AppClient
from gateway.types import ASGIApp, ModelCard, RequestRecord


class EchoFleet:
    """The models of a config, in this process."""

    def __init__(self, config: GatewayConfig, found: Plugins, metrics: Metrics, down: Iterable[str] = ()) -> None:
        self.metrics = metrics
        self.observed: ASGIApp | None = None
        """Stands before every backend's app, to see what arrives there."""
        self._down = set(down)
        self.backends: dict[str, Backend] = {
            name: found.backend(spec.backend).factory(BackendContext(name=name, spec=spec, model_path=None))
            for name, spec in config.models.items()
        }

    def app(self, model: str) -> ASGIApp:
        if model in self._down:
            raise Unavailable(f"{model} is not running")
        if self.observed is not None:
            return self.observed
        return self.backends[model].app

    async def cards(self) -> Mapping[str, ModelCard | None]:
        return {name: None if name in self._down else backend.card() for name, backend in self.backends.items()}

    async def snapshots(self) -> Iterable[tuple[str, bytes]]:
        return [("r1", self.metrics.snapshot())]

    async def report(self) -> FleetReport:
        counted = Metrics()
        replicas = [
            await report(f"{name}-r1", model=name, started_at=0.0, in_flight=0, limit=64, generating=backend.running(),
                   metrics=counted)
            for name, backend in self.backends.items()
            if name not in self._down
        ]  # fmt: skip
        in_flight = sum(self.metrics.in_flight.values())
        door = await report("r1", started_at=1.0, in_flight=in_flight, limit=None, metrics=self.metrics)
        return FleetReport([door, *replicas])


class Doors:
    """A gateway under test: a client for each door, and every record that was made."""

    def __init__(self, data: dict[str, Any], policy: DoorPolicy, down: Iterable[str], extra: Iterable[Any]) -> None:
        config = parse({"models": {"echo": {"backend": "echo"}}, **data})
        self.records: list[RequestRecord] = []
        installed = plugins.load()
        watcher = ModuleType("watcher")
        watcher.request_finished = self._finished()  # type: ignore[attr-defined]
        modules = [(name, plugin) for name, plugin in installed.manager.list_name_plugin() if plugin is not None]
        self.plugins = Plugins([*modules, ("watcher", watcher), *((f"extra{n}", e) for n, e in enumerate(extra))])
        self.metrics = Metrics()
        self.fleet = EchoFleet(config, self.plugins, self.metrics, down)
        table = routing.table(config, self.plugins.policy)
        self.door = wide_door(
            policy, table=table, app=self.fleet.app, fleet=self.fleet, metrics=self.metrics, plugins=self.plugins,
            document=openapi.document,
        )  # fmt: skip
        self.wide = AppClient(self.door)
        self.lanes = {
            name: AppClient(
                fast_lane(
                    policy,
                    model=name,
                    app=backend.app,
                    in_flight=InFlight(config.models[name].max_concurrent, name),
                    metrics=self.metrics,
                    plugins=self.plugins,
                ),
            )
            for name, backend in self.fleet.backends.items()
        }

    def _finished(self) -> Callable[..., Any]:
        from gateway.hookspecs import hookimpl

        records = self.records

        @hookimpl
        async def request_finished(record: RequestRecord) -> None:
            records.append(record)

        return request_finished


@pytest.fixture
def doors() -> Callable[..., Doors]:
    """Make a gateway: `doors({"models": …}, policy=…, down=[…], extra=[plugin])`."""

    def make(
        data: dict[str, Any] | None = None,
        *,
        policy: DoorPolicy | None = None,
        down: Iterable[str] = (),
        extra: Iterable[Any] = (),
    ) -> Doors:
        return Doors(data or {}, policy or DoorPolicy(), down, extra)

    return make
