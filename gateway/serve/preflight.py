"""What can be known before anything starts: plugins, wheels, options, ports, memory. Imports no ray."""

from __future__ import annotations

import errno
import importlib.util
import socket
from collections.abc import Callable, Iterable

import psutil

from gateway.backend import BackendContext
from gateway.config import GatewayConfig, ModelSpec
from gateway.errors import ConfigError
from gateway.ingress.auth import require_loopback_or_keys
from gateway.plugins import Plugins
from gateway.sources import split

RAY_GB = 1.2
"""Measured on one machine: Ray, Serve's controller, the proxy and one ingress replica, in GiB."""


def check(config: GatewayConfig, plugins: Plugins) -> list[str]:
    """Everything in a config that the installed plugins cannot serve, each with its YAML path."""
    problems: list[str] = []
    for name, spec in config.models.items():
        problems += _model(name, spec, plugins)
    for name, route in config.routes.items():
        problems += _ask(f"routes.{name}.policy", plugins.policy, route.policy)
    for name, app in config.apps.items():
        problems += _ask(f"apps.{name}.app", plugins.app, app.app)
    return problems


def require(config: GatewayConfig, plugins: Plugins) -> None:
    """Raise ConfigError with every problem that `check` finds."""
    problems = check(config, plugins)
    if problems:
        raise ConfigError("\n".join(problems))


def _model(name: str, spec: ModelSpec, plugins: Plugins) -> Iterable[str]:
    path = f"models.{name}"
    try:
        offer = plugins.backend(spec.backend)
    except ConfigError as error:
        yield f"{path}.backend: {error.message}"
        return
    # The top package is looked for: looking for a submodule would import its parents.
    missing = [module for module in offer.requires if importlib.util.find_spec(module.partition(".")[0]) is None]
    if missing:
        yield (
            f"{path}.backend: {spec.backend} needs {', '.join(missing)}, which is not installed: `make serve` installs "
            "everything, or install model-gateway with its extra `cpu` or `gpu`"
        )
        return
    if offer.needs_source and spec.source is None:
        yield f"{path}.source: {spec.backend} needs weights: name a folder, hf:ORG/NAME or package:DISTRIBUTION/FILE"
    if spec.source is not None:
        scheme, _ = split(spec.source)
        yield from _ask(f"{path}.source", plugins.source, scheme)
    try:
        # Backends check their options when they are made, which is cheap; nothing is loaded before `start`.
        offer.factory(BackendContext(name=name, spec=spec, model_path=None))
    except ConfigError as error:
        # Most name the whole path themselves.
        for line in error.message.splitlines():
            yield line if line.startswith(path) else f"{path}.options: {line}"


def _ask(path: str, find: Callable[[str], object], name: str) -> Iterable[str]:
    try:
        find(name)
    except ConfigError as error:
        yield f"{path}: {error.message}"


def require_port(host: str, port: int) -> None:
    """Raise ConfigError where somebody listens there already, or where this machine has no such address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} on {host} is in use: stop what listens there, or set server.port (or --port) "
                    "to another"
                ) from error
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def require_memory(specs: Iterable[ModelSpec]) -> None:
    """Raise ConfigError where the models ask for more memory than is free now."""
    needed = RAY_GB + sum((spec.resources.memory_gb or 0) * spec.replicas for spec in specs)
    free = psutil.virtual_memory().available / 1024**3
    if needed > free:
        raise ConfigError(
            f"too little memory: {needed:.1f} GiB are needed and {free:.1f} GiB are free. Remove a model from the "
            "config, lower its resources.memory_gb and the engine's own memory options, or end other programs"
        )


def require_host(config: GatewayConfig, key_hashes: list[str]) -> None:
    """Raise ConfigError where the gateway would listen beyond this machine without keys."""
    require_loopback_or_keys(config.server.host, key_hashes)
