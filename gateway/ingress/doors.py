"""The two doors, put together: which layers stand before which, in the order in which a request meets them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from gateway.config import LimitSpec
from gateway.ingress.adapters import AdapterNames, AdapterPages
from gateway.ingress.arena import Arena
from gateway.ingress.auth import Authenticate
from gateway.ingress.batches import Batches, Unsent
from gateway.ingress.forward import Forward, by_table, only
from gateway.ingress.guards import Guard
from gateway.ingress.limits import InFlight, Limit
from gateway.ingress.messages import Messages
from gateway.ingress.metrics import Metrics
from gateway.ingress.pages import Fleet, Pages
from gateway.ingress.record import Layer, Record
from gateway.ingress.responses import Responses
from gateway.plugins import Plugins
from gateway.routing import RouteTable
from gateway.state import default_url, may_hold_something
from gateway.types import ASGIApp

if TYPE_CHECKING:
    from gateway.adapters.registry import Registry
    from gateway.arena.votes import Votes
    from gateway.batches.desk import Desk
    from gateway.batches.files import Files
    from gateway.responses.archive import Archive
    from gateway.store import Store


class WideDoor(Record):
    """`/v1`, and what goes on behind it without anybody waiting."""

    def __init__(self, layer: Layer, batches: Batches, adapters: AdapterNames | None, **settings: Any) -> None:
        super().__init__(layer, **settings)
        self._batches = batches
        self._directory = adapters.directory if adapters is not None else None

    def start(self) -> None:
        """Go on with batches that were left unfinished, and keep up with adapters. In the event loop that answers
        requests."""
        self._batches.start()
        if self._directory is not None:
            self._directory.start()

    async def adapters_changed(self) -> None:
        """See now what has changed about adapters."""
        if self._directory is not None:
            await self._directory.look()

    async def close(self) -> None:
        if self._directory is not None:
            await self._directory.close()
        await self._batches.close()
        await super().close()


@dataclass(frozen=True, slots=True)
class DoorPolicy:
    """What can change while a door is open: who may come in, and how much."""

    key_hashes: tuple[str, ...] = ()
    limits: LimitSpec = field(default_factory=LimitSpec)
    store: str | None = None
    """Where what outlives a request is kept, as SQLAlchemy writes it; None: `gateway.state.default_url()`."""


def wide_door(
    policy: DoorPolicy,
    *,
    table: RouteTable,
    app: Callable[[str], ASGIApp],
    fleet: Fleet,
    metrics: Metrics,
    plugins: Plugins,
    document: Callable[[], bytes] | None = None,
    adapters: AdapterNames | None = None,
) -> WideDoor:
    """`/v1`: reads `model`, routes over many models, falls back. `app` finds a model's ASGI app by name."""
    inner = _inner(policy, Forward(by_table(table, random.Random()), app, adapters), plugins)  # noqa: S311 (no secrets)
    alone = Record(Unsent(inner), door="wide", metrics=metrics, plugins=plugins)
    url = policy.store or default_url()
    batches = Batches(inner, alone, partial(_desks, url), resume=may_hold_something(url))
    arena = Arena(batches, partial(_votes, url))
    behind = AdapterPages(arena, adapters, table.default) if adapters is not None else arena
    limit = Limit(behind, policy.limits, InFlight(policy.limits.max_concurrent, "This gateway"))
    pages = Pages(limit, fleet, _behind(table), document, adapters)
    return WideDoor(
        Authenticate(pages, policy.key_hashes), batches, adapters, door="wide", metrics=metrics, plugins=plugins
    )


def fast_lane(
    policy: DoorPolicy,
    *,
    model: str,
    app: ASGIApp,
    in_flight: InFlight,
    metrics: Metrics,
    plugins: Plugins,
    adapters: AdapterNames | None = None,
) -> Record:
    """`/m/<model>/v1`: the same layers, less routing, in front of one model's app in its own replica."""
    inner = _inner(policy, Forward(only(model), lambda _: app, adapters), plugins)
    behind = AdapterPages(inner, adapters, model) if adapters is not None else inner
    limit = Limit(behind, policy.limits, in_flight)
    return Record(
        Authenticate(limit, policy.key_hashes), door="lane", metrics=metrics, plugins=plugins, prefix=f"/m/{model}"
    )


def _inner(policy: DoorPolicy, forward: Layer, plugins: Plugins) -> Layer:
    spoken = Responses(Messages(forward), partial(_archive, policy.store or default_url()))
    return Guard(spoken, plugins) if plugins.has("guard_request") else spoken


@lru_cache(maxsize=8)
def _store(url: str) -> Store:
    """One for all doors of a process. Imported when first asked for: it brings a library of databases."""
    from gateway.store import Store

    return Store(url)


def registry_at(policy: DoorPolicy) -> Registry:
    """The registry of adapters in the store of these doors."""
    from gateway.adapters.registry import Registry

    return Registry(_store(policy.store or default_url()))


def _archive(url: str) -> Archive:
    from gateway.responses.archive import Archive

    return Archive(_store(url))


def _desks(url: str) -> tuple[Files, Desk]:
    from gateway.batches.desk import Desk
    from gateway.batches.files import Files

    return Files(_store(url)), Desk(_store(url))


def _votes(url: str) -> Votes:
    from gateway.arena.votes import Votes

    return Votes(_store(url))


def _behind(table: RouteTable) -> Mapping[str, tuple[str, ...]]:
    return {name: tuple(target.model for target in targets) for name, (_, targets) in table.routes.items()}
