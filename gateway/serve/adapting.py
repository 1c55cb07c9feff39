"""What a model's replica has of adapters: the layers before its backend's app, and how all replicas hear of changes."""

# Ray's own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import logging
from collections.abc import Mapping

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from gateway.adapters.directory import Directory
from gateway.adapters.residence import Residence
from gateway.adapters.version import AdapterVersion
from gateway.backend import Backend
from gateway.config import AdaptersSpec
from gateway.errors import GatewayError
from gateway.ingress.adapters import AdapterNames
from gateway.ingress.doors import DoorPolicy, registry_at
from gateway.plugins import Plugins
from gateway.serve.applications import GATEWAY, application_of
from gateway.serve.dispatch import broadcast
from gateway.types import AdapterFiles, ASGIApp

log = logging.getLogger("gateway.serve")

_LOADED_WITHIN_S = 300.0
"""How long all replicas may take to load an adapter: some engines build a model of their own for each."""


class ReplicaAdapters:
    """One replica's."""

    def __init__(self, backend: Backend, spec: AdaptersSpec | None, plugins: Plugins) -> None:
        """`spec`: None for a model that takes none; then requests go straight to the backend."""
        context = backend.context
        self._model = context.name
        self._digest = context.digest
        self._directory: Directory | None = None
        self._store: str | None = None
        self._residence: Residence | None = None
        self.app: ASGIApp = backend.app
        if spec is None:
            return
        # What reads and verifies adapters is imported by who has some.
        from gateway.adapters.changes import Changes
        from gateway.adapters.intake import files_of
        from gateway.adapters.verify import Base

        base = Base(context.name, context.digest, context.model_path, spec.max_rank)

        def files(version: AdapterVersion) -> AdapterFiles:
            return files_of(version, base, plugins.adapter_source, context.cache)

        self._residence = Residence(backend, spec, files=files, watch=plugins.watch)
        self.app = Changes(self._residence, base, plugins.adapter_source, context.cache, self._announce)

    async def names(self, policy: DoorPolicy) -> AdapterNames:
        """What clients of this replica's lane may write as `model`; keeps up with the registry from now on."""
        if self._residence is not None and (self._directory is None or self._store != policy.store):
            if self._directory is not None:
                await self._directory.close()
            self._store = policy.store
            self._directory = Directory(registry_at(policy))
            self._directory.start()
            self._residence.follow(self._directory)
        models = {self._model: self._residence is not None}
        return AdapterNames(models, self._directory, self._digests, self._residents)

    async def load(self, id: str) -> str:
        """Load one because another replica did. What stands in its way; "" where it is there."""
        return await self._tried(id, load=True)

    async def unload(self, id: str) -> str:
        """The opposite."""
        return await self._tried(id, load=False)

    def held(self) -> list[str]:
        """Ids of the adapters in memory."""
        return self._residence.resident() if self._residence is not None else []

    async def close(self) -> None:
        """End what goes on; the backend ends next."""
        if self._directory is not None:
            await self._directory.close()
        if self._residence is not None:
            await self._residence.close()

    async def _tried(self, id: str, *, load: bool) -> str:
        if self._residence is None or self._directory is None:
            return f"{self._model} takes no adapters"
        try:
            await self._directory.look()
            await (self._residence.load(id) if load else self._residence.unload(id))
        except GatewayError as error:
            return error.message
        return ""

    async def _announce(self, what: str, id: str) -> list[str]:
        """What is not heard now is seen in the registry soon: a message that is lost delays, and loses nothing."""
        failures: list[str] = []
        try:
            handle = serve.get_app_handle(application_of(self._model))
            failures = [told for told in await broadcast(handle, what, id, within_s=_LOADED_WITHIN_S) if told]
            await broadcast(serve.get_app_handle(GATEWAY), "adapters_changed")
        except (RayError, RayServeException, TimeoutError) as error:
            log.warning("not everybody heard of %s %s: %s", what, id, error)
        return failures

    async def _digests(self) -> Mapping[str, str]:
        return {self._model: self._digest}

    async def _residents(self) -> Mapping[str, Mapping[str, list[str]]]:
        return {self._model: {serve.get_replica_context().replica_tag: self.held()}}
