"""Where converted models and notes of running gateways are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`$GATEWAY_CACHE`, else `model-gateway` under `$XDG_CACHE_HOME` or `~/.cache`."""
    if own := os.environ.get("GATEWAY_CACHE"):
        return Path(own).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "model-gateway"
