"""Importing Gradio: silent, and without writing into its own folder."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from gateway.importing import importing

SILENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}
"""Gradio and the hub's library look for their homes at import and at start; a playground talks to its gateway alone."""


def import_gradio() -> None:
    """Import Gradio, without the protocol by which other programs could call a page. What somebody has chosen for
    himself in SILENT's names is left as it is."""
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    with importing(without=("mcp",)), _no_interface_files():
        importlib.import_module("gradio")


@contextmanager
def _no_interface_files() -> Generator[None]:
    """Keep Gradio from parsing the source of each of its components to write a `.pyi` for editors beside it: half of
    its import, at every import. It does not where a class has no file."""
    file_of = inspect.getfile

    def getfile(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("not looked for")
        return file_of(thing)

    inspect.getfile = getfile
    try:
        yield
    finally:
        inspect.getfile = file_of
