"""Where the gateway keeps what outlives a request, told without loading what is needed to read it."""

from __future__ import annotations

import os
from pathlib import Path

_SQLITE = "sqlite:///"


def state_folder() -> Path:
    """Below `$XDG_STATE_HOME` (`~/.local/state`): what people made stays when caches are emptied."""
    root = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(root).expanduser() / "model-gateway"


def default_url() -> str:
    """An SQLite file in the state folder."""
    return f"{_SQLITE}{state_folder() / 'gateway.db'}"


def may_hold_something(url: str) -> bool:
    """False for an SQLite file that is not there yet."""
    return not url.startswith(_SQLITE) or Path(url.removeprefix(_SQLITE)).exists()
