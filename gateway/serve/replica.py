"""What runs in Serve's replicas: one model with its fast lane, the gateway's wide door, a plugin's app."""

# Ray's own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedClassDecorator=false

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from ray import serve
from ray.serve.handle import DeploymentHandle

from gateway import openapi, plugins, routing
from gateway.adapters.directory import Directory
from gateway.apps import AppContext
from gateway.backend import Backend
from gateway.config import GatewayConfig, LimitSpec, ModelSpec, parse
from gateway.errors import GatewayError, ModelNotFound
from gateway.ingress import status
from gateway.ingress.adapters import AdapterNames
from gateway.ingress.auth import AppDoor
from gateway.ingress.doors import DoorPolicy, WideDoor, fast_lane, registry_at, wide_door
from gateway.ingress.limits import InFlight
from gateway.ingress.metrics import Metrics
from gateway.ingress.record import Record, answer_lifespan
from gateway.ingress.status import FleetReport, ReplicaReport
from gateway.serve.adapting import ReplicaAdapters
from gateway.serve.answering import streamed_answer, whole_answer
from gateway.serve.contexts import context_of
from gateway.serve.dispatch import broadcast
from gateway.serve.entrance import lead_to
from gateway.serve.fleet import ServeFleet, deployed
from gateway.serve.local import FOLDER, SOCKET, LocalServer
from gateway.serve.wire import Call, unpack_call
from gateway.types import ASGIApp, Message, ModelCard, Receive, Scope, Send

log = logging.getLogger("gateway.serve")


class _Door:
    """The ASGI app that Serve is given. What it leads to can be exchanged while requests are under way."""

    def __init__(self) -> None:
        self.app: Record | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            # Serve starts the app before it configures it.
            return await answer_lifespan(receive, send, self._close)
        if self.app is None:
            raise RuntimeError("asked before it was configured")
        return await self.app(scope, receive, send)

    async def _close(self) -> None:
        if self.app is not None:
            await self.app.close()


def _policy(user_config: Mapping[str, Any]) -> DoorPolicy:
    return DoorPolicy(
        tuple(user_config.get("key_hashes", ())), LimitSpec(**user_config.get("limits", {})), user_config.get("store")
    )


@serve.ingress()
class ModelReplica:
    """One backend, the fast lane in front of it, and the methods that the wide door calls."""

    async def __init__(self, name: str, spec: Mapping[str, Any]) -> None:
        self._started_at = time.time()
        self._name = name
        self._plugins = plugins.load()
        self._metrics = Metrics()
        self._door = _Door()
        lead_to(self._door)
        parsed = ModelSpec(**spec)
        self._in_flight = InFlight(parsed.max_concurrent, name)
        context = await asyncio.to_thread(context_of, name, parsed, self._plugins)
        self._backend: Backend = self._plugins.backend(parsed.backend).factory(context)
        try:
            await self._backend.start()
        except BaseException:
            await self._backend.stop()
            raise
        self._lifespan = Lifespan(self._backend.app)
        await self._lifespan.startup()
        self._card = self._backend.card()
        self._local = LocalServer(self.answer, self.stream)
        if sockets := os.environ.get(FOLDER):
            await self._local.start(Path(sockets))
        self._adapters = ReplicaAdapters(self._backend, parsed.adapters, self._plugins)
        await self._plugins.watch("backend_started", name=name, card=self._card)
        log.info("%s is ready after %.1f s", name, time.time() - self._started_at)

    async def record_replica_metadata(self) -> dict[str, Any]:
        """What Serve tells those who call this replica: where its socket is."""
        return {SOCKET: str(self._local.path)} if self._local.path else {}

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Keys and limits change in place."""
        policy = _policy(user_config)
        self._door.app = fast_lane(
            policy,
            model=self._name,
            app=self._adapters.app,
            adapters=await self._adapters.names(policy),
            in_flight=self._in_flight,
            metrics=self._metrics,
            plugins=self._plugins,
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._door

    async def check_health(self) -> None:
        await self._backend.check_health()

    async def answer(self, data: bytes) -> bytes:
        """One call from the wide door, answered whole."""
        call = unpack_call(data)
        try:
            self._in_flight.__enter__()
        except GatewayError as error:
            return await whole_answer(_refusal(error), call)
        try:
            return await whole_answer(self._adapters.app, call)
        finally:
            self._in_flight.__exit__()

    async def stream(self, data: bytes) -> AsyncGenerator[bytes]:
        """One call from the wide door, answered as it comes."""
        call: Call = unpack_call(data)
        try:
            self._in_flight.__enter__()
        except GatewayError as error:
            yield await whole_answer(_refusal(error), call)
            return
        parts = streamed_answer(self._adapters.app, call)
        try:
            async for part in parts:
                yield part
        finally:
            self._in_flight.__exit__()
            await parts.aclose()

    async def load_adapter(self, id: str) -> str:
        """Load an adapter that another replica was asked to load. What stands in its way, or ""."""
        return await self._adapters.load(id)

    async def unload_adapter(self, id: str) -> str:
        """The opposite."""
        return await self._adapters.unload(id)

    async def adapters(self) -> tuple[str, list[str]]:
        """This replica's name and the ids of the adapters in its memory."""
        return serve.get_replica_context().replica_tag, self._adapters.held()

    async def describe(self) -> bytes:
        """The model's card, packed."""
        return msgspec.msgpack.encode(self._card)

    async def snapshot(self) -> tuple[str, bytes]:
        """This replica's name and what it has counted."""
        self._metrics.generations[self._name] = self._backend.running()
        return serve.get_replica_context().replica_tag, self._metrics.snapshot()

    async def report(self) -> bytes:
        """How this replica is: a ReplicaReport, packed."""
        return msgspec.msgpack.encode(
            await status.report(
                serve.get_replica_context().replica_tag,
                model=self._name,
                started_at=self._started_at,
                in_flight=self._in_flight.now,
                limit=self._in_flight.limit,
                generating=self._backend.running(),
                metrics=self._metrics,
            )
        )

    async def __del__(self) -> None:
        # Serve awaits this when a replica goes away; a failed constructor has stopped its backend itself.
        if hasattr(self, "_card"):
            await self._local.close()
            await self._plugins.watch("backend_stopping", name=self._name)
            await self._adapters.close()
            await self._lifespan.shutdown()
            await self._backend.stop()


def _refusal(error: GatewayError) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


@serve.ingress()
class GatewayReplica:
    """The wide door. Stateless: any number of them serve the same routes."""

    async def __init__(self) -> None:
        self._plugins = plugins.load()
        self._metrics = Metrics()
        self._door = _Door()
        lead_to(self._door)
        self._fleet: ServeFleet | None = None
        self._self: DeploymentHandle[Any] | None = None
        self._wide: WideDoor | None = None
        self._limit = LimitSpec().max_concurrent
        self._started_at = time.time()

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Routes, models, keys and limits change in place; requests under way end as they began."""
        config: GatewayConfig = parse(user_config["config"])
        fleet = self._fleet = ServeFleet(config.models)
        policy = _policy(user_config)
        self._limit = policy.limits.max_concurrent
        before = self._door.app
        models = {name: spec.adapters is not None for name, spec in config.models.items()}
        directory = Directory(registry_at(policy)) if any(models.values()) else None
        door = self._door.app = self._wide = wide_door(
            policy,
            adapters=AdapterNames(models, directory, self._digests, fleet.adapters),
            table=routing.table(config, self._plugins.policy),
            app=self._fleet.app,
            fleet=self,
            metrics=self._metrics,
            plugins=self._plugins,
            document=openapi.document,
        )
        if before is not None:
            await before.close()
        door.start()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._door

    async def adapters_changed(self) -> None:
        """A replica has loaded or let go of an adapter."""
        if self._wide is not None:
            await self._wide.adapters_changed()

    async def _digests(self) -> Mapping[str, str]:
        return {name: card.digest for name, card in (await self.cards()).items() if card is not None}

    async def cards(self) -> Mapping[str, ModelCard | None]:
        return await self._models().cards()

    async def snapshots(self) -> list[tuple[str, bytes]]:
        """(replica, metrics) of every process behind both doors, this one's fellows included."""
        own, models = await asyncio.gather(broadcast(self._fellows(), "snapshot"), self._models().snapshots())
        return [*own, *models]

    async def report(self) -> FleetReport:
        """How every process behind both doors is, and what the cluster says of what should be there."""
        own, models, applications = await asyncio.gather(
            broadcast(self._fellows(), "own_report"), self._models().reports(), deployed()
        )
        replicas = [msgspec.msgpack.decode(one, type=ReplicaReport) for one in (*own, *models)]
        return FleetReport(replicas, *applications)

    async def own_report(self) -> bytes:
        """How this replica is: a ReplicaReport, packed."""
        return msgspec.msgpack.encode(
            await status.report(
                serve.get_replica_context().replica_tag,
                started_at=self._started_at,
                in_flight=sum(self._metrics.in_flight.values()),
                limit=self._limit,
                metrics=self._metrics,
            )
        )

    async def snapshot(self) -> tuple[str, bytes]:
        return serve.get_replica_context().replica_tag, self._metrics.snapshot()

    def _fellows(self) -> DeploymentHandle[Any]:
        context = serve.get_replica_context()
        if self._self is None:
            self._self = serve.get_deployment_handle(context.deployment, context.app_name)
        return self._self

    def _models(self) -> ServeFleet:
        if self._fleet is None:
            raise ModelNotFound("This gateway has not been configured yet")
        return self._fleet


@serve.ingress()
class AppReplica:
    """A plugin's app under its route prefix, in a process of its own."""

    async def __init__(self, name: str, context: Mapping[str, Any]) -> None:
        found = plugins.load()
        offer = found.app(name)
        tabs = tuple(found.tabs.offers.values())
        app = await asyncio.to_thread(offer.build, AppContext(**context, tabs=tabs))
        self._app = AppDoor(app, protected=offer.protected)

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        self._app.admit(user_config.get("key_hashes", ()))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._app


class Lifespan:
    """Runs an app's `lifespan` as a server would. An app that has none may raise on the scope, or return."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._inbox: asyncio.Queue[Message] = asyncio.Queue(2)
        self._outbox: asyncio.Queue[Message] = asyncio.Queue(4)
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Start the app. Raises what it says where it fails."""
        self._task = asyncio.ensure_future(self._run())
        await self._step("startup")

    async def shutdown(self) -> None:
        """Stop the app and wait for it."""
        if self._task is not None and not self._task.done():
            await self._step("shutdown")
            await asyncio.wait([self._task], timeout=5)

    async def _run(self) -> None:
        await self._app(
            {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, self._inbox.get, self._outbox.put
        )

    async def _step(self, name: str) -> None:
        task = self._task
        if task is None:
            return
        await self._inbox.put({"type": f"lifespan.{name}"})
        answer = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait([answer, task], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            # The app ended first: it has no lifespan, which the ASGI specification allows.
            answer.cancel()
            if task.exception() is not None:
                log.debug("no lifespan: %s", task.exception())
            return
        message = answer.result()
        if message["type"] == f"lifespan.{name}.failed":
            raise RuntimeError(f"the app's {name} failed: {message.get('message', '')}")
