"""Everything a plugin can bring or watch: the whole extension surface. See plugins/README.md for one example of each.

`register_…` hooks are offers: synchronous, cheap, called once when plugins are loaded. Nothing offered is used until a
config names it. Heavy imports belong inside the factories that are registered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import typer

    from gateway.adapters.sources import AdapterSourceOffer
    from gateway.apps import AppOffer
    from gateway.backend import BackendOffer
    from gateway.ingress.request import GatewayRequest
    from gateway.routing import Policy
    from gateway.sources import SourceOffer
    from gateway.tabs import TabOffer
    from gateway.types import AdapterFiles, ModelCard, RequestRecord

hookspec = pluggy.HookspecMarker("gateway")
hookimpl = pluggy.HookimplMarker("gateway")
"""Marks a plugin's implementation: `from gateway.hookspecs import hookimpl`."""


@hookspec
def register_backends(register: Callable[[BackendOffer], None]) -> None:
    """Offer engines that models can name as `backend:`. Called once at load."""


@hookspec
def register_model_sources(register: Callable[[SourceOffer], None]) -> None:
    """Offer schemes that models can use in `source:`. Called once at load."""


@hookspec
def register_adapter_sources(register: Callable[[AdapterSourceOffer], None]) -> None:
    """Offer schemes that fine-tuned adapters can come from. Called once at load."""


@hookspec
def register_policies(register: Callable[[str, Policy], None]) -> None:
    """Offer ways to order a route's targets, named by `policy:`. Called once at load."""


@hookspec
def register_apps(register: Callable[[AppOffer], None]) -> None:
    """Offer Serve applications under a route prefix, named in `apps:`. Called once at load."""


@hookspec
def register_tabs(register: Callable[[TabOffer], None]) -> None:
    """Offer tabs of the playground; each that is installed is shown. Called once at load."""


@hookspec
def register_metrics(register: Callable[[str, Callable[[], object]], None]) -> None:
    """Offer evaluation metrics: a name and a factory of an `evaluate.Metric`. Called once when an evaluation starts."""


@hookspec
def register_tasks(register: Callable[[str, Callable[[], object]], None]) -> None:
    """Offer evaluation tasks written in Python: a name and a factory. Called when a suite names one by `python:`."""


@hookspec
def register_scorers(register: Callable[[str, Callable[..., object]], None]) -> None:
    """Offer evaluation scorers: a name and a factory of a scorer. Called once when an evaluation starts."""


@hookspec
def register_commands(cli: typer.Typer) -> None:
    """Add commands to `gateway`. Called when the command line is built: import nothing heavy."""


@hookspec
async def guard_request(request: GatewayRequest) -> None:
    """Refuse (raise a GatewayError) or rewrite (`request.set`) a request. Called before routing, plugin by plugin."""


@hookspec
async def backend_started(name: str, card: ModelCard) -> None:
    """Watch a model replica that is ready. Called in the replica, after its engine has started."""


@hookspec
async def backend_stopping(name: str) -> None:
    """Watch a model replica that goes away. Called in the replica, before its engine stops."""


@hookspec
async def adapter_loaded(name: str, adapter: AdapterFiles) -> None:
    """Watch an adapter that answers from now on. Called in every replica of the model that has loaded it."""


@hookspec
async def adapter_evicted(name: str, id: str) -> None:
    """Watch an adapter that is in memory no longer. Called in every replica of the model that has let it go."""


@hookspec
async def request_finished(record: RequestRecord) -> None:
    """Watch a request that is over. Called exactly once for each, in the process that answered it."""
