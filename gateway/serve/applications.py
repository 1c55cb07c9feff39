"""A config → what Serve shall run: one application per model, one for the gateway, one per app. Imports no ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.config import GatewayConfig

GATEWAY = "gateway"
"""The name of the gateway's own application."""

MODEL_PREFIX = "model-"
"""A model's application is `model-<name>`."""

APP_PREFIX = "app-"
"""That of an app beside the gateway is `app-<name>`."""


def application_of(model: str) -> str:
    """The name of a model's Serve application."""
    return MODEL_PREFIX + model


@dataclass(frozen=True, slots=True)
class ServeApp:
    """One Serve application: what it is called, where it is mounted, and how it is built (`import_path` and `args`)."""

    name: str
    route_prefix: str
    builder: str
    """Name of a function of `gateway.serve.build`."""
    args: dict[str, Any]
    user_config: dict[str, Any]
    replicas: int


def applications(config: GatewayConfig, key_hashes: list[str]) -> list[ServeApp]:
    """All applications of a config. `key_hashes`: of every key that is accepted, whatever it came from."""
    door = {
        "key_hashes": key_hashes,
        "limits": config.server.limits.model_dump(exclude_defaults=True),
        "store": config.server.store,
    }
    models = [
        ServeApp(
            application_of(name),
            f"/m/{name}",
            "model",
            {"name": name, "spec": spec.model_dump(exclude_defaults=True, exclude={"replicas"})},
            door,
            spec.replicas,
        )
        for name, spec in config.models.items()
    ]
    public = config.model_dump(exclude_defaults=True, exclude={"server"})
    gateway = ServeApp(GATEWAY, "/", "gateway", {}, {**door, "config": public}, config.server.ingress_replicas)
    apps = [
        ServeApp(
            APP_PREFIX + name,
            config.prefix_of(name),
            "app",
            {
                "app": app.app,
                "context": {
                    "base_url": f"http://{_reachable(config.server.host)}:{config.server.port}",
                    "route_prefix": config.prefix_of(name),
                    "options": app.options,
                },
            },
            {"key_hashes": key_hashes},
            1,
        )
        for name, app in config.apps.items()
    ]
    return [*models, gateway, *apps]


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else host  # noqa: S104 (it is replaced)
