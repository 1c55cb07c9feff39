"""ONNX Runtime as a backend: converts a Hugging Face folder once, then answers many requests in one batch.

Only the hooks stand here; everything heavy is imported in the replica that needs it.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.backend import Backend, BackendContext, BackendOffer, Report
from gateway.hookspecs import hookimpl

__all__ = ["register_backends"]


def _make(context: BackendContext) -> Backend:
    from gateway_onnx.backend import OnnxBackend

    return OnnxBackend(context)


def _prepare(context: BackendContext, report: Report) -> None:
    from gateway_onnx.conversion import prepare

    prepare(context, report)


@hookimpl
def register_backends(register: Callable[[BackendOffer], None]) -> None:
    register(BackendOffer("onnx", _make, _prepare, requires=("onnxruntime_genai", "onnxruntime")))
