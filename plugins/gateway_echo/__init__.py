"""The echo backend: a model without weights that says what it was told. Reference, test double, smoke deployment."""

from __future__ import annotations

from collections.abc import Callable

from gateway.backend import Backend, BackendContext, BackendOffer
from gateway.hookspecs import hookimpl


def _echo(context: BackendContext) -> Backend:
    from gateway_echo.backend import EchoBackend

    return EchoBackend(context)


@hookimpl
def register_backends(register: Callable[[BackendOffer], None]) -> None:
    register(BackendOffer(name="echo", factory=_echo, needs_source=False))
