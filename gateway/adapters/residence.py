"""Which adapters are in a replica's memory: a layer before the backend's app that loads the one a request needs.

One is loaded at a time; the one asked longest ago gives way, after its requests have ended. Knows no Ray and no engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.adapters.directory import Directory
from gateway.adapters.probe import probe
from gateway.adapters.version import AdapterVersion, Place, read_reference
from gateway.backend import Backend
from gateway.config import AdaptersSpec
from gateway.errors import AdapterError, GatewayError, ModelNotFound, Unavailable, Unsupported
from gateway.types import AdapterFiles, Receive, Scope, Send

log = logging.getLogger("gateway.adapters")

HEADER = b"x-gateway-adapter"
"""Carries an adapter's id from a door to the replica; a door lets none in from outside."""


class Watch(Protocol):
    """Tells plugins: `Plugins.watch`."""

    def __call__(self, hook: str, **arguments: Any) -> Awaitable[None]: ...


@dataclass(eq=False)
class _Resident:
    """One adapter in memory."""

    version: AdapterVersion
    in_flight: int = 0
    leaving: bool = False
    """Whether it takes no new requests: it goes when it has answered those it has."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()


class Residence:
    """An ASGI app. Requests for the base pass through untouched."""

    def __init__(
        self, backend: Backend, spec: AdaptersSpec, *, files: Callable[[AdapterVersion], AdapterFiles], watch: Watch
    ) -> None:
        """`files`: a version's files on this machine, verified; blocks (`gateway.adapters.intake.files_of`)."""
        self._backend = backend
        self._app = backend.app
        self._model = backend.context.name
        self._digest = backend.context.digest
        self._spec = spec
        self._files = files
        self._watch = watch
        self._directory: Directory | None = None
        self._held: dict[str, _Resident] = {}
        """By id, the one asked longest ago first."""
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._pinned: set[str] = set()
        self._offered: set[str] = set()
        """What was loaded without being asked for, once: it may give way to others afterwards."""
        self._reconciling: asyncio.Task[None] | None = None
        self._stale = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        adapter = _asked(scope)
        if adapter is None:
            return await self._app(scope, receive, send)
        async with self._using(adapter):
            return await self._app(scope, receive, send)

    def follow(self, directory: Directory) -> None:
        """Keep to what this directory says, from now on. In the event loop that answers requests."""
        self._directory = directory
        directory.listen(self.reconcile)
        self.reconcile()

    async def close(self) -> None:
        """End what goes on; nothing is unloaded, since the backend ends next."""
        tasks = [*self._loading.values(), *([self._reconciling] if self._reconciling is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def resident(self) -> list[str]:
        """Ids of what is in memory, the one asked longest ago first."""
        return list(self._held)

    @property
    def directory(self) -> Directory:
        if self._directory is None:
            raise Unavailable(f"{self._model} does not know its adapters yet", retry_after_s=1)
        return self._directory

    async def load(self, id: str) -> None:
        """Until this adapter is in memory. Raises what stands in its way; a failure is kept in the registry."""
        while (resident := self._held.get(id)) is None or resident.leaving:
            task = self._loading.get(id)
            if task is None:
                task = self._loading[id] = asyncio.ensure_future(self._load(id))
                task.add_done_callback(lambda done: self._loaded(id, done))
            # Who stops waiting does not stop the loading: others wait for it too.
            await asyncio.shield(task)

    async def unload(self, id: str) -> None:
        """Let an adapter go, after its requests. Nothing happens where it is not there."""
        async with self._one_at_a_time:
            if (resident := self._held.get(id)) is not None:
                await self._evict(id, resident)

    def reconcile(self) -> None:
        """Begin to make memory what the registry and the config want; what comes meanwhile is seen to afterwards."""
        if self._reconciling is None or self._reconciling.done():
            self._reconciling = asyncio.ensure_future(self._reconcile())
        else:
            self._stale = True

    @asynccontextmanager
    async def _using(self, id: str) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(self._spec.load_within_s):
                await self.load(id)
        except TimeoutError:
            raise Unavailable(
                f"the adapter {id} is still being loaded after {self._spec.load_within_s:g} s (adapters.load_within_s)",
                retry_after_s=5,
            ) from None
        # Nothing was awaited since it was seen to be there.
        resident = self._held.pop(id)
        self._held[id] = resident
        resident.in_flight += 1
        resident.idle.clear()
        try:
            yield
        finally:
            resident.in_flight -= 1
            if resident.in_flight == 0:
                resident.idle.set()

    def _loaded(self, id: str, task: asyncio.Task[None]) -> None:
        self._loading.pop(id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("%s did not load %s: %s", self._model, id, error)

    async def _load(self, id: str) -> None:
        try:
            version = self.directory.catalog.by_id(id)
        except ModelNotFound:
            await self.directory.look()
            version = self.directory.catalog.by_id(id)
        if problem := version.problem_on(self._model):
            raise AdapterError(f"{self._model}:{version.label} cannot answer: {problem}")
        if not version.fits(self._model, self._digest):
            raise AdapterError(f"{version.label} was made for other weights than those of {self._model}")
        async with self._one_at_a_time:
            if id in self._held:
                return
            files = await self._prepared(version)
            await self._make_room()
            try:
                await self._brought_in(files)
            except (AdapterError, Unsupported) as error:
                await self.directory.registry.set_place(version, Place(self._model, "failed", error.message))
                raise AdapterError(f"{self._model}:{version.label} cannot answer: {error.message}") from error
            self._held[id] = _Resident(version)
        await self.directory.registry.set_place(version, Place(self._model, "ready"))
        await self._watch("adapter_loaded", name=self._model, adapter=files)

    async def _prepared(self, version: AdapterVersion) -> AdapterFiles:
        # What cannot be fetched now may be fetched later: this is not kept as a failure.
        return await asyncio.to_thread(self._files, version)

    async def _brought_in(self, files: AdapterFiles) -> None:
        await self._backend.load_adapter(files)
        try:
            change = await probe(self._app, self._model, files.id)
        except BaseException:
            await self._backend.unload_adapter(files.id)
            raise
        log.info("%s loaded %s (largest change of a log-probability: %.3g)", self._model, files.id, change)

    async def _make_room(self) -> None:
        while len(self._held) >= self._spec.max_resident:
            free = [(held, resident) for held, resident in self._held.items() if held not in self._pinned]
            if not free:
                raise Unavailable(
                    f"all {self._spec.max_resident} adapters in the memory of {self._model} are pinned: raise "
                    "adapters.max_resident"
                )
            idle = [pair for pair in free if pair[1].in_flight == 0]
            await self._evict(*(idle or free)[0])

    async def _evict(self, id: str, resident: _Resident) -> None:
        resident.leaving = True
        await resident.idle.wait()
        try:
            await self._backend.unload_adapter(id)
        finally:
            # What the engine could not let go is not asked again either.
            del self._held[id]
        await self._watch("adapter_evicted", name=self._model, id=id)

    async def _reconcile(self) -> None:
        while True:
            self._stale = False
            try:
                await self._keep_to_the_registry()
            except GatewayError as error:
                log.warning("the adapters of %s: %s", self._model, error.message)
            if not self._stale:
                return

    async def _keep_to_the_registry(self) -> None:
        await self.directory.look()
        fitting = self.directory.catalog.fitting(self._model, self._digest)
        fitting = [version for version in fitting if not version.problem_on(self._model)]
        living = {version.id for version in fitting}
        for gone in [held for held in self._held if held not in living]:
            await self.unload(gone)
        self._pinned = set(self._named(self._spec.pinned))
        offered = [
            *self._named(self._spec.preload),
            *(v.id for v in reversed(fitting) if v.wanted and v.base == self._model),
        ]
        for wanted in [*self._pinned, *(each for each in dict.fromkeys(offered) if each not in self._offered)]:
            if wanted in self._held:
                continue
            if wanted not in self._pinned and len(self._held) >= self._spec.max_resident:
                continue
            self._offered.add(wanted)
            try:
                await self.load(wanted)
            except GatewayError as error:
                log.warning("%s did not load %s: %s", self._model, wanted, error.message)

    def _named(self, names: Iterable[str]) -> list[str]:
        ids: list[str] = []
        for name in names:
            try:
                ids.append(self.directory.catalog.choose(self._model, self._digest, read_reference(name)).id)
            except GatewayError as error:
                log.warning("models.%s.adapters names %s: %s", self._model, name, error.message)
        return ids


def _asked(scope: Scope) -> str | None:
    if scope["type"] == "http":
        for name, value in scope["headers"]:
            if name == HEADER:
                return value.decode("latin-1")
    return None
