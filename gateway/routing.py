"""Pure functions: a request's model name and the route table → targets in the order in which they are asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.config import GatewayConfig
from gateway.errors import ModelNotFound
from gateway.hookspecs import hookimpl
from gateway.types import Target

Policy = Callable[[Sequence[Target], random.Random], Sequence[Target]]
"""Orders a route's targets for one request: the first is asked, the others are fallbacks. Pure but for `rng`."""


def first(targets: Sequence[Target], rng: random.Random) -> Sequence[Target]:
    """In the config's order, always."""
    return targets


def weighted(targets: Sequence[Target], rng: random.Random) -> Sequence[Target]:
    """Drawn without replacement by weight (Efraimidis and Spirakis 2006), so that fallbacks are weighted too."""
    return sorted(targets, key=lambda target: rng.random() ** (1.0 / target.weight), reverse=True)


@hookimpl
def register_policies(register: Callable[[str, Policy], None]) -> None:
    register("first", first)
    register("weighted", weighted)


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Every name that clients may use, and how each is turned into targets."""

    models: tuple[str, ...]
    routes: Mapping[str, tuple[Policy, tuple[Target, ...]]] = field(
        default_factory=dict[str, tuple[Policy, tuple[Target, ...]]]
    )
    default: str = ""

    def targets(self, name: str, rng: random.Random) -> Sequence[Target]:
        """Whom to ask for `name` ("" is the default), in order. Raises ModelNotFound that lists the names."""
        name = name or self.default
        route = self.routes.get(name)
        if route is not None:
            policy, targets = route
            return policy(targets, rng)
        if name in self.models:
            return (Target(name),)
        raise ModelNotFound(
            f"no model {name[:200]!r} here; there are: {', '.join([*self.models, *self.routes])}", param="model"
        )


def table(config: GatewayConfig, policy: Callable[[str], Policy]) -> RouteTable:
    """The config's routes, with `policy` finding each policy by name."""
    return RouteTable(
        models=tuple(config.models),
        routes={
            name: (policy(route.policy), tuple(Target(target.model, target.weight) for target in route.targets))
            for name, route in config.routes.items()
        },
        default=config.default_target,
    )
