"""The evaluation harness as a plugin: commands, metrics, scorers, tasks, an app. Imports only the hook marker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer

    from gateway.apps import AppContext, AppOffer
    from gateway.types import ASGIApp


@hookimpl
def register_commands(cli: typer.Typer) -> None:
    """Adds `gateway eval`, and `gateway adapters prove`."""
    from gateway.commands import group
    from gateway_evals import commands
    from gateway_evals.commands.prove import prove

    cli.add_typer(commands.cli, name="eval")
    group(cli, "adapters").command("prove")(prove)


@hookimpl
def register_metrics(register: Callable[[str, Callable[[], object]], None]) -> None:
    """The metrics that tasks can name in `metric_list`. `evaluate` is imported when the first one is made."""
    from gateway_evals import offers

    for name, factory in offers.METRICS.items():
        register(name, factory)


@hookimpl
def register_tasks(register: Callable[[str, Callable[[], object]], None]) -> None:
    """Tasks whose rows code makes: seeded generators, conversations, checks."""
    from gateway_evals import generators

    for name, factory in generators.TASKS.items():
        register(name, factory)


@hookimpl
def register_scorers(register: Callable[[str, Callable[..., object]], None]) -> None:
    """The ways to score what a model answered."""
    from gateway_evals import offers

    for name, factory in offers.SCORERS.items():
        register(name, factory)


@hookimpl
def register_apps(register: Callable[[AppOffer], None]) -> None:
    """The evaluations' HTTP API."""
    from gateway.apps import AppOffer

    register(AppOffer("evals", _app, memory_gb=0.3, protected=True))


def _app(context: AppContext) -> ASGIApp:
    from gateway_evals.server.app import build

    return build(context)
