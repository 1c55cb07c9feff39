"""What other commands know of a gateway on this machine: a small file, readable by its owner alone. No ray."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import psutil

from gateway.cache import cache_root
from gateway.errors import ConfigError


class Instance(msgspec.Struct):
    """One running `gateway serve`."""

    pid: int
    host: str
    port: int
    ray_address: str
    folder: str
    """Its temporary files: Ray's session and HAProxy's sockets."""
    environment: dict[str, str]
    """The settings it was started with, which a process that joins it needs too. No secrets."""
    key_hashes: list[str]
    """Hashes of the keys that came from its environment."""
    config: str
    """Path of the config it serves."""

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{'127.0.0.1' if self.host in ('0.0.0.0', '::') else host}:{self.port}"  # noqa: S104


def _file(port: int) -> Path:
    return cache_root() / "run" / f"{port}.json"


def write(instance: Instance) -> None:
    """Make an instance known. Atomic; mode 0600."""
    path = _file(instance.port)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(instance))
    partial.replace(path)


def forget(port: int) -> None:
    """The opposite of `write`."""
    _file(port).unlink(missing_ok=True)


def find(port: int | None = None) -> Instance:
    """The running gateway (on `port`, or the only one). Raises ConfigError that says how to start or choose one."""
    running: list[Instance] = []
    for path in sorted(_file(0).parent.glob("*.json")):
        instance = msgspec.json.decode(path.read_bytes(), type=Instance)
        if psutil.pid_exists(instance.pid):
            running.append(instance)
        else:
            # Its owner was killed before it could clean up.
            path.unlink(missing_ok=True)
    if port is not None:
        running = [instance for instance in running if instance.port == port]
    if not running:
        where = "" if port is None else f" on port {port}"
        raise ConfigError(f"no gateway of yours is running{where} on this machine: start one with `gateway serve`")
    if len(running) > 1:
        raise ConfigError(f"{len(running)} gateways are running: choose one, --port {running[0].port} for example")
    return running[0]
