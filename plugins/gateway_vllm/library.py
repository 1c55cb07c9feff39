"""Importing vLLM: silent, and without what it would load beside it."""

from __future__ import annotations

import importlib

from gateway.importing import import_transformers, importing
from gateway_vllm import surroundings

SERVER = ("v1.engine.async_llm", "entrypoints.launchers.app", "entrypoints.launchers.api_server.app_state")
"""Modules of vLLM that a replica stands on."""

ENGINE = ("v1.engine.core",)
"""Those of an engine's own process."""


def import_vllm(*modules: str) -> None:
    """Import modules of vLLM."""
    surroundings.silence()
    import_transformers()
    with importing():
        for name in modules:
            importlib.import_module(f"vllm.{name}")
