"""Lets plugins add commands to `gateway`. Lighter than `gateway.plugins`: `--help` must not wait for pydantic."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

log = logging.getLogger("gateway.plugins")


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
