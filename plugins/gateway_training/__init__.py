"""Training of adapters, as a plugin: adds `gateway adapters train`. Imports nothing but the hook marker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def register_commands(cli: typer.Typer) -> None:
    """Adds `gateway adapters train`."""
    from gateway.commands import group
    from gateway_training.command import train

    group(cli, "adapters").command("train")(train)
