"""The two doors, put together: which layers stand before which, in the order in which a request meets them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from gateway.config import LimitSpec
from gateway.ingress.auth import Authenticate
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
from gateway.types import ASGIApp

if TYPE_CHECKING:
    from gateway.responses.archive import Archive


@dataclass(frozen=True, slots=True)
class DoorPolicy:
    """What can change while a door is open: who may come in, and how much."""

    key_hashes: tuple[str, ...] = ()
    limits: LimitSpec = field(default_factory=LimitSpec)
    store: str | None = None
    """Where what outlives a request is kept, as SQLAlchemy writes it; None: `gateway.store.default_url()`."""


def wide_door(
    policy: DoorPolicy,
    *,
    table: RouteTable,
    app: Callable[[str], ASGIApp],
    fleet: Fleet,
    metrics: Metrics,
    plugins: Plugins,
    document: Callable[[], bytes] | None = None,
) -> Record:
    """`/v1`: reads `model`, routes over many models, falls back. `app` finds a model's ASGI app by name."""
    forward = Forward(by_table(table, random.Random()), app)  # noqa: S311 (draws targets, not secrets)
    pages = Pages(_inner(policy, forward, InFlight(policy.limits.max_concurrent, "This gateway"), plugins), fleet,
                  _behind(table), document)  # fmt: skip
    return Record(Authenticate(pages, policy.key_hashes), door="wide", metrics=metrics, plugins=plugins)


def fast_lane(
    policy: DoorPolicy, *, model: str, app: ASGIApp, in_flight: InFlight, metrics: Metrics, plugins: Plugins
) -> Record:
    """`/m/<model>/v1`: the same layers, less routing, in front of one model's app in its own replica."""
    forward = Forward(only(model), lambda _: app)
    inner = _inner(policy, forward, in_flight, plugins)
    return Record(
        Authenticate(inner, policy.key_hashes), door="lane", metrics=metrics, plugins=plugins, prefix=f"/m/{model}"
    )


def _inner(policy: DoorPolicy, forward: Layer, in_flight: InFlight, plugins: Plugins) -> Layer:
    spoken = Responses(Messages(forward), partial(_archive, policy.store))
    guarded = Guard(spoken, plugins) if plugins.has("guard_request") else spoken
    return Limit(guarded, policy.limits, in_flight)


@lru_cache(maxsize=8)
def _archive(url: str | None) -> Archive:
    """One for all doors of a process. Imported when first asked for: it brings a library of databases."""
    from gateway.responses.archive import Archive
    from gateway.store import Store, default_url

    return Archive(Store(url or default_url()))


def _behind(table: RouteTable) -> Mapping[str, tuple[str, ...]]:
    return {name: tuple(target.model for target in targets) for name, (_, targets) in table.routes.items()}
