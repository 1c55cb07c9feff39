"""Importing Ray Serve: a third of what it loads is for things that nothing here does."""

from __future__ import annotations

import importlib

from gateway.importing import importing


def import_serve() -> None:
    """Import Ray Serve without what it would load for answers that are data frames and for texts of unknown encoding.

    Ray calls this in each of its workers (`gateway.serve.settings.WORKER_HOOK`).
    """
    with importing(without=("pandas", "chardet")):
        importlib.import_module("ray.serve")
