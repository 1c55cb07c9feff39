"""Brings vLLM as the backend `vllm`. Imports in milliseconds: vLLM itself is imported when a model starts."""

from __future__ import annotations

from collections.abc import Callable

from gateway.backend import Backend, BackendContext, BackendOffer
from gateway.hookspecs import hookimpl


def make_backend(context: BackendContext) -> Backend:
    """A VllmBackend that has not started. Raises ConfigError for options it does not know."""
    from gateway_vllm.backend import VllmBackend

    return VllmBackend(context)


@hookimpl
def register_backends(register: Callable[[BackendOffer], None]) -> None:
    register(BackendOffer(name="vllm", factory=make_backend, requires=("vllm",)))
