"""Finds plugins and keeps what they offer: the only use of pluggy's machinery. Made in a function, never at import."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from gateway import hookspecs
from gateway.errors import PluginError

if TYPE_CHECKING:
    from gateway.adapters.sources import AdapterSourceOffer
    from gateway.apps import AppOffer
    from gateway.backend import BackendOffer
    from gateway.routing import Policy
    from gateway.sources import SourceOffer
    from gateway.tabs import TabOffer

log = logging.getLogger("gateway.plugins")

ENTRY_POINT_GROUP = "gateway"
"""`[project.entry-points.gateway] NAME = "module"` makes a distribution a plugin."""

T = TypeVar("T")


@dataclass(slots=True)
class Shelf(Generic[T]):
    """Offers of one kind by name. Knows who brought each, so that two of one name are told apart in the error."""

    kind: str
    offers: dict[str, T] = field(default_factory=dict)
    brought_by: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, offer: T, plugin: str) -> None:
        if name in self.offers:
            raise PluginError(
                f"{self.kind} {name!r} is offered by {self.brought_by[name]!r} and by {plugin!r}: uninstall one of them"
            )
        self.offers[name] = offer
        self.brought_by[name] = plugin

    def get(self, name: str, broken: Mapping[str, str]) -> T:
        """The offer of this name. Raises PluginError that lists what there is, and what could not be loaded."""
        if name in self.offers:
            return self.offers[name]
        hint = f"; could not be loaded: {', '.join(broken)} (see `gateway plugins`)" if broken else ""
        raise PluginError(f"no {self.kind} {name!r}; there are: {', '.join(sorted(self.offers)) or 'none'}{hint}")


class Plugins:
    """What is installed and what it offers. Raises PluginError where two plugins offer one name."""

    def __init__(self, modules: Iterable[tuple[str, Any]], broken: Mapping[str, str] | None = None) -> None:
        self.broken = dict(broken or {})
        """Plugins that failed to import, and why. Fatal only where a config needs what they would have brought."""
        self.manager = pluggy.PluginManager("gateway")
        self.manager.add_hookspecs(hookspecs)
        self.backends: Shelf[BackendOffer] = Shelf("backend")
        self.sources: Shelf[SourceOffer] = Shelf("model source")
        self.adapter_sources: Shelf[AdapterSourceOffer] = Shelf("adapter source")
        self.policies: Shelf[Policy] = Shelf("policy")
        self.apps: Shelf[AppOffer] = Shelf("app")
        self.tabs: Shelf[TabOffer] = Shelf("tab")
        for name, module in modules:
            self._register(name, module)
        for name, plugin in list(self._registered()):
            try:
                self._take_offers(name, plugin)
            except PluginError:
                raise
            except Exception as error:
                self.broken[name] = _reason(error)
                self.manager.unregister(plugin)

    def _register(self, name: str, module: Any) -> None:
        """A hook that is misspelt or takes what it is not given would never be called: its plugin counts as broken."""
        try:
            self.manager.register(module, name=name)
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            self.broken[name] = f"misspelt or mistaken hook: {' '.join(str(error).split())}"
            if self.manager.get_plugin(name) is not None:
                self.manager.unregister(name=name)

    def _registered(self) -> Iterable[tuple[str, Any]]:
        return ((name, plugin) for name, plugin in self.manager.list_name_plugin() if plugin is not None)

    def _take_offers(self, name: str, plugin: Any) -> None:
        # Each plugin is asked alone, so that an error can say whose offer it is.
        def backend(offer: BackendOffer) -> None:
            self.backends.put(offer.name, offer, name)

        def source(offer: SourceOffer) -> None:
            self.sources.put(offer.scheme, offer, name)

        def adapter_source(offer: AdapterSourceOffer) -> None:
            self.adapter_sources.put(offer.scheme, offer, name)

        def policy(policy: str, offer: Policy) -> None:
            self.policies.put(policy, offer, name)

        def app(offer: AppOffer) -> None:
            self.apps.put(offer.name, offer, name)

        def tab(offer: TabOffer) -> None:
            self.tabs.put(offer.name, offer, name)

        offers: dict[str, Callable[..., None]] = {
            "register_backends": backend,
            "register_model_sources": source,
            "register_adapter_sources": adapter_source,
            "register_policies": policy,
            "register_apps": app,
            "register_tabs": tab,
        }
        for hook, register in offers.items():
            for implementation in getattr(self.manager.hook, hook).get_hookimpls():
                if implementation.plugin is plugin:
                    implementation.function(**dict.fromkeys(implementation.argnames, register))

    def backend(self, name: str) -> BackendOffer:
        return self.backends.get(name, self.broken)

    def source(self, scheme: str) -> SourceOffer:
        return self.sources.get(scheme, self.broken)

    def adapter_source(self, scheme: str) -> AdapterSourceOffer:
        return self.adapter_sources.get(scheme, self.broken)

    def policy(self, name: str) -> Policy:
        return self.policies.get(name, self.broken)

    def app(self, name: str) -> AppOffer:
        return self.apps.get(name, self.broken)

    def has(self, hook: str) -> bool:
        """Whether any plugin implements this hook: lets a hot path skip what nobody asked for."""
        return bool(getattr(self.manager.hook, hook).get_hookimpls())

    async def guard(self, hook: str, **arguments: Any) -> None:
        """Await each plugin's implementation in order; the first error ends it. For `guard_…` hooks."""
        for coroutine in self._calls(hook, arguments):
            await coroutine

    async def watch(self, hook: str, **arguments: Any) -> None:
        """Await each plugin's implementation; a failure is logged and hurts nobody. For watchers."""
        for coroutine in self._calls(hook, arguments):
            try:
                await coroutine
            except Exception:
                log.exception("a plugin's %s failed", hook)

    def _calls(self, hook: str, arguments: dict[str, Any]) -> Iterable[Any]:
        # Coroutine functions only start when awaited, so asking plugins one by one keeps their order, and none is
        # left un-awaited when an earlier one raises. pluggy keeps implementations in the order of registration, those
        # marked `trylast` before and `tryfirst` behind the others, and would call them from the back.
        implementations: list[Any] = getattr(self.manager.hook, hook).get_hookimpls()
        for implementation in sorted(implementations, key=lambda one: one.trylast - one.tryfirst):
            yield implementation.function(**{name: arguments[name] for name in implementation.argnames})


def load(points: Iterable[EntryPoint] | None = None) -> Plugins:
    """Import every installed plugin, ours too: all come by entry point. One that fails is kept with its reason."""
    from gateway import routing, sources
    from gateway.adapters import sources as adapter_sources

    modules: list[tuple[str, Any]] = [
        ("gateway.sources", sources),
        ("gateway.adapters", adapter_sources),
        ("gateway.routing", routing),
    ]
    broken: dict[str, str] = {}
    seen: set[str] = set()
    for point in sorted(points if points is not None else entry_points(group=ENTRY_POINT_GROUP), key=lambda p: p.name):
        if point.name in seen:
            # The same distribution found twice on the path (a checkout beside its install) is one plugin.
            continue
        seen.add(point.name)
        try:
            modules.append((point.name, point.load()))
        except Exception as error:
            broken[point.name] = _reason(error)
    return Plugins(modules, broken)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
