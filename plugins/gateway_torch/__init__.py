"""Native PyTorch: Transformers' models under a scheduler that batches step by step. This file imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable

from gateway.backend import Backend, BackendContext, BackendOffer
from gateway.hookspecs import hookimpl


def _make(context: BackendContext) -> Backend:
    from gateway_torch.backend import TorchBackend

    return TorchBackend(context)


@hookimpl
def register_backends(register: Callable[[BackendOffer], None]) -> None:
    register(BackendOffer(name="torch", factory=_make, requires=("torch", "transformers")))
