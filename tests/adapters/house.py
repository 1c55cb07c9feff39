"""A gateway in this process, without Ray: real echo backends on the real base's weights, in any number of replicas,
behind both doors, over one registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from gateway import plugins, routing
from gateway.adapters.changes import Changes
from gateway.adapters.directory import Directory
from gateway.adapters.intake import files_of
from gateway.adapters.registry import Registry
from gateway.adapters.residence import Residence
from gateway.adapters.verify import Base
from gateway.backend import Backend, BackendContext
from gateway.config import parse
from gateway.hookspecs import hookimpl
from gateway.ingress.adapters import AdapterNames
from gateway.ingress.doors import DoorPolicy, fast_lane, wide_door
from gateway.ingress.limits import InFlight
from gateway.ingress.metrics import Metrics
from gateway.plugins import Plugins
from gateway.store import Store
from gateway.testing import AppClient
from gateway.types import AdapterFiles, ASGIApp, ModelCard

DIGEST = "b" * 64


class Replica:
    """One of a model's."""

    def __init__(self, house: House, name: str) -> None:
        spec = house.config.models[name]
        context = BackendContext(name=name, spec=spec, model_path=house.base, digest=DIGEST, cache=house.cache)
        self.backend: Backend = house.plugins.backend(spec.backend).factory(context)
        self.app: ASGIApp = self.backend.app
        self.directory: Directory | None = None
        self.residence: Residence | None = None
        if spec.adapters is not None:
            base = Base(name, DIGEST, house.base, spec.adapters.max_rank)
            find = house.plugins.adapter_source
            self.directory = Directory(house.registry, every_s=0.05)
            self.residence = Residence(
                self.backend, spec.adapters, files=lambda version: files_of(version, base, find, house.cache),
                watch=house.plugins.watch,
            )  # fmt: skip

            async def announce(what: str, id: str) -> list[str]:
                for replica in house.replicas[name]:
                    if replica.residence is not None and replica.directory is not None:
                        await replica.directory.look()
                        await (replica.residence.load if what == "load_adapter" else replica.residence.unload)(id)
                await house.door.adapters_changed()
                return []

            self.app = Changes(self.residence, base, find, house.cache, announce)


class House:
    """`await House.open(…)`, then `wide` and `lanes`; `close` at the end."""

    def __init__(self, folder: Path, base: Path, models: dict[str, Any], replicas: int) -> None:
        self.base = base
        self.cache = folder / "cache"
        self.config = parse({"models": {name: {"backend": "echo", **spec} for name, spec in models.items()}})
        self.store = Store(f"sqlite:///{folder / 'gateway.db'}")
        self.registry = Registry(self.store)
        self.loaded: list[tuple[str, str]] = []
        self.evicted: list[tuple[str, str]] = []
        self.plugins = self._plugins()
        self.replicas = {name: [Replica(self, name) for _ in range(replicas)] for name in self.config.models}
        policy, metrics = DoorPolicy(), Metrics()
        takes = {name: spec.adapters is not None for name, spec in self.config.models.items()}
        self.directory = Directory(self.registry, every_s=0.05) if any(takes.values()) else None
        names = AdapterNames(takes, self.directory, self._digests, self._residents)
        table = routing.table(self.config, self.plugins.policy)
        self.door = wide_door(
            policy, table=table, app=lambda name: self.replicas[name][0].app, fleet=self, metrics=metrics,
            plugins=self.plugins, adapters=names,
        )  # fmt: skip
        self.wide = AppClient(self.door)
        self.lanes: dict[str, AppClient] = {}
        for name, (first, *_) in self.replicas.items():
            own = AdapterNames({name: takes[name]}, first.directory, self._digests, self._residents)
            lane = fast_lane(
                policy, model=name, app=first.app, in_flight=InFlight(256, name), metrics=metrics,
                plugins=self.plugins, adapters=own,
            )  # fmt: skip
            self.lanes[name] = AppClient(lane)

    def start(self) -> None:
        """Let doors and replicas keep up with the registry."""
        self.door.start()
        for replica in self._all():
            if replica.residence is not None and replica.directory is not None:
                replica.directory.start()
                replica.residence.follow(replica.directory)

    async def close(self) -> None:
        await self.door.close()
        for replica in self._all():
            if replica.residence is not None and replica.directory is not None:
                await replica.directory.close()
                await replica.residence.close()
        await self.store.close()

    def residence(self, name: str, index: int = 0) -> Residence:
        residence = self.replicas[name][index].residence
        assert residence is not None
        return residence

    def _all(self) -> list[Replica]:
        return [replica for replicas in self.replicas.values() for replica in replicas]

    def _plugins(self) -> Plugins:
        house = self

        class Watcher:
            @hookimpl
            async def adapter_loaded(self, name: str, adapter: AdapterFiles) -> None:
                house.loaded.append((name, adapter.id))

            @hookimpl
            async def adapter_evicted(self, name: str, id: str) -> None:
                house.evicted.append((name, id))

        installed = plugins.load()
        modules: list[tuple[str, ModuleType | Watcher]] = [
            (name, plugin) for name, plugin in installed.manager.list_name_plugin() if plugin is not None
        ]
        return Plugins([*modules, ("watcher", Watcher())])

    async def _digests(self) -> Mapping[str, str]:
        return dict.fromkeys(self.config.models, DIGEST)

    async def _residents(self) -> Mapping[str, Mapping[str, list[str]]]:
        return {
            name: {
                f"{name}-{index}": replica.residence.resident() if replica.residence is not None else []
                for index, replica in enumerate(replicas)
            }
            for name, replicas in self.replicas.items()
        }

    async def cards(self) -> Mapping[str, ModelCard | None]:
        return {name: replicas[0].backend.card() for name, replicas in self.replicas.items()}

    async def snapshots(self) -> Any:
        return []

    async def report(self) -> Any:
        raise NotImplementedError
