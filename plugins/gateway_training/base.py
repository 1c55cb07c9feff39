"""Which model is trained on: a name in a config, or a source as configs write it. Knows no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gateway.backend import Report
from gateway.cache import cache_root
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.plugins import Plugins
from gateway.sources import Resolved, resolve


@dataclass(frozen=True, slots=True)
class Base:
    """Where a model's weights come from."""

    name: str
    """The model's name in the config, or one made from the source's last part."""
    source: str
    sha256: str | None = None


def find_base(reference: str, config: GatewayConfig) -> Base:
    """`reference`: a model of the config, or a source. Raises ConfigError that lists the models."""
    models = config.models
    if (spec := models.get(reference)) is not None:
        if spec.source is None:
            raise ConfigError(f"{reference} is a model without weights ({spec.backend}): nothing can be trained on it")
        return Base(reference, spec.source, spec.sha256)
    if ":" not in reference and not Path(reference).exists():
        known = ", ".join(name for name, spec in models.items() if spec.source is not None) or "none"
        raise ConfigError(
            f"no model {reference!r} in the config and no such folder; models: {known} "
            "(or a source: a folder, hf:ORG/NAME, package:DISTRIBUTION/FILE)"
        )
    for name, spec in models.items():
        if spec.source == reference:
            return Base(name, reference, spec.sha256)
    last = re.split(r"[/:]", reference.rstrip("/"))[-1]
    return Base(re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:64] or "base", reference)


def bring_base(base: Base, plugins: Plugins, report: Report) -> Resolved:
    """Its folder and digest; converted where it must be. Raises SourceError, PluginError."""
    return resolve(base.source, find=plugins.source, cache=cache_root(), sha256=base.sha256, report=report)
