"""Lets plugins add commands to `gateway`. Lighter than `gateway.plugins`: `--help` must not wait for pydantic."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

log = logging.getLogger("gateway.plugins")


def group(cli: typer.Typer, name: str) -> typer.Typer:
    """The group of commands of this name (`gateway NAME …`), for a plugin's `register_commands` to add its own to.

    Made where there is none yet, so that the order of plugins does not matter.
    """
    import typer

    for info in cli.registered_groups:
        if info.name == name and info.typer_instance is not None:
            return info.typer_instance
    made = typer.Typer(no_args_is_help=True)
    cli.add_typer(made, name=name)
    return made


def add_plugin_commands(cli: typer.Typer) -> None:
    """Call every plugin's `register_commands`. One that cannot be imported has none; `gateway plugins` says why."""
    for point in sorted(entry_points(group="gateway"), key=lambda point: point.name):
        try:
            register = getattr(point.load(), "register_commands", None)
        except Exception as error:
            log.info("plugin %s brings no commands: %s: %s", point.name, type(error).__name__, error)
            continue
        # The mark of `hookimpl`: a function of this name without it is no hook.
        if register is not None and hasattr(register, "gateway_impl"):
            try:
                register(cli)
            except Exception as error:
                log.warning("plugin %s could not add its commands: %s: %s", point.name, type(error).__name__, error)
