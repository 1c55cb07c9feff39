"""Every model that runs beside an ingress: found by name, asked what it is and how it is."""

# Ray's own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from gateway.errors import Unavailable
from gateway.ingress.status import Application
from gateway.serve.applications import APP_PREFIX, MODEL_PREFIX
from gateway.serve.dispatch import ANSWER_WITHIN_S, RemoteModel
from gateway.serve.states import application_states
from gateway.types import ASGIApp, ModelCard

log = logging.getLogger("gateway.serve")

_T = TypeVar("_T")


async def deployed() -> tuple[dict[str, Application], dict[str, Application]]:
    """What the cluster says of models and of apps, by name; nothing where its controller does not answer in time."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            found = await asyncio.to_thread(application_states)
    except (RayError, RayServeException, TimeoutError) as error:
        log.warning("the cluster does not say what it runs: %s", error)
        return {}, {}
    models: dict[str, Application] = {}
    apps: dict[str, Application] = {}
    for name, application in found.items():
        replicas = {state.lower(): count for state, count in application.replicas.items()}
        said = Application(application.status.lower(), replicas, _first_line(application.message))
        if name.startswith(MODEL_PREFIX):
            models[name.removeprefix(MODEL_PREFIX)] = said
        elif name.startswith(APP_PREFIX):
            apps[name.removeprefix(APP_PREFIX)] = said
    return models, apps


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0][:200]


class ServeFleet:
    """Every model application of this gateway, found by name; handles are made once."""

    def __init__(self, models: Iterable[str]) -> None:
        self._models: dict[str, RemoteModel | None] = dict.fromkeys(models)

    def app(self, model: str) -> ASGIApp:
        """A model's app. Raises Unavailable where its application does not exist (yet)."""
        return self._remote(model)

    def _remote(self, model: str) -> RemoteModel:
        remote = self._models.get(model)
        if remote is None:
            try:
                remote = self._models[model] = RemoteModel(model)
            except (RayError, RayServeException) as error:
                raise Unavailable(f"{model} is not running") from error
        return remote

    async def cards(self) -> Mapping[str, ModelCard | None]:
        found = await asyncio.gather(*(self._card(model) for model in self._models))
        return dict(zip(self._models, found, strict=True))

    async def _card(self, model: str) -> ModelCard | None:
        try:
            return await self._remote(model).card()
        except Unavailable as error:
            log.warning("%s", error.message)
            return None

    async def snapshots(self) -> list[tuple[str, bytes]]:
        """(replica, metrics) of all model replicas that answer."""
        return await self._of_all(lambda model: model.snapshots())

    async def reports(self) -> list[bytes]:
        """How all model replicas are that answer."""
        return await self._of_all(lambda model: model.reports())

    async def adapters(self) -> dict[str, dict[str, list[str]]]:
        """For each model and each of its replicas that answers, the ids of the adapters in its memory."""

        async def of(name: str) -> dict[str, list[str]]:
            try:
                return dict(await self._remote(name).adapters())
            except (Unavailable, RayError, RayServeException, TimeoutError) as error:
                log.warning("%s does not say what it holds: %s", name, error)
                return {}

        found = await asyncio.gather(*(of(name) for name in self._models))
        return dict(zip(self._models, found, strict=True))

    async def _of_all(self, ask: Callable[[RemoteModel], Awaitable[Iterable[_T]]]) -> list[_T]:
        async def asked(model: str) -> Iterable[_T]:
            try:
                return await ask(self._remote(model))
            except (Unavailable, RayError, RayServeException, TimeoutError) as error:
                log.warning("%s does not say how it is: %s", model, error)
                return ()

        found = await asyncio.gather(*(asked(model) for model in self._models))
        return [one for replicas in found for one in replicas]
