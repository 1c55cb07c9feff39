"""Tasks whose rows code makes, offered by `register_tasks`. Each module is imported when its task is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def _task(room: str, name: str) -> Callable[[], object]:
    return lambda: getattr(importlib.import_module(f"gateway_evals.generators.{room}"), name)()


TASKS: Mapping[str, Callable[[], object]] = {
    "arithmetic": _task("arithmetic", "task"),
    "lists": _task("texts", "lists"),
    "extraction": _task("texts", "extraction"),
    "formats": _task("texts", "formats"),
    "reasoning": _task("texts", "reasoning"),
    "instructions": _task("orders", "instructions"),
    "injection": _task("orders", "injection"),
    "shakespeare": _task("orders", "pages"),
}
