"""A model's spec → what its backend is given. Used where models are prepared and again in every replica. No ray."""

from __future__ import annotations

from pathlib import Path

from gateway.backend import BackendContext, Report, silent
from gateway.cache import cache_root
from gateway.config import ModelSpec
from gateway.plugins import Plugins
from gateway.sources import resolve


def context_of(name: str, spec: ModelSpec, found: Plugins, report: Report = silent) -> BackendContext:
    """Resolve a model's source and say where everything is. Blocks; about a second from a warm cache."""
    path: Path | None = None
    digest = ""
    if spec.source is not None:
        resolved = resolve(spec.source, find=found.source, cache=cache_root(), sha256=spec.sha256, report=report)
        path, digest = resolved.path, resolved.digest
    return BackendContext(name=name, spec=spec, model_path=path, digest=digest)
