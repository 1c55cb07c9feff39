"""Applications beside the gateway: an ASGI app of a plugin's under a route prefix. Knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.types import ASGIApp

if TYPE_CHECKING:
    from gateway.tabs import TabOffer


@dataclass(frozen=True, slots=True)
class AppContext:
    """What an app is given. It talks to the gateway as any client does: over HTTP, with its user's own key."""

    base_url: str
    """The gateway's root as a process on this machine reaches it: `http://127.0.0.1:8000`."""
    route_prefix: str
    """Where the app is mounted: `/playground`. Requests arrive with `path` whole and `root_path` set to this."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The app's settings in the config; it refuses those that it does not know."""
    tabs: Sequence[TabOffer] = ()
    """What plugins offer by `register_tabs`; the playground shows them all."""


@dataclass(frozen=True, slots=True)
class AppOffer:
    """What a plugin registers: a name and a factory, called in the app's own replica."""

    name: str
    build: Callable[[AppContext], ASGIApp]
    """Heavy imports belong inside."""
    memory_gb: float = 0.5
    """Memory that one replica needs, in GiB."""
    protected: bool = False
    """Where the gateway has keys, each request to the app must bring one; its paths are for programs, not for a
    browser's address bar. False: the app asks its people for their key itself."""
