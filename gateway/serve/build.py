"""A config → Serve applications: one per model, one for the gateway, one per app. The same for one machine and many."""

# Ray's own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedClassDecorator=false

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from gateway import __version__
from gateway.config import GatewayConfig, ModelSpec
from gateway.ingress.auth import hash_keys
from gateway.serve.adapting import GATEWAY_APPLICATION
from gateway.serve.dispatch import APP_PREFIX, application_of
from gateway.serve.replica import AppReplica, GatewayReplica, ModelReplica
from gateway.serve.settings import DOOR, QUIET, replica_environment

_UNLIMITED = 100_000
"""Serve's own limits answer in plain text, so ours (429, in OpenAI's shape) must come first."""


@dataclass(frozen=True, slots=True)
class ServeApp:
    """One Serve application: what it is called, where it is mounted, and how it is built (`import_path` and `args`)."""

    name: str
    route_prefix: str
    builder: str
    """Name of a function of this module."""
    args: dict[str, Any]
    user_config: dict[str, Any]
    replicas: int

    def build(self) -> Application:
        """The application for `serve.run_many`."""
        return globals()[self.builder]({**self.args, "user_config": self.user_config, "replicas": self.replicas})


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
    gateway = ServeApp(
        GATEWAY_APPLICATION, "/", "gateway", {}, {**door, "config": public}, config.server.ingress_replicas
    )
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


def all_key_hashes(config: GatewayConfig, environment_keys: list[str]) -> list[str]:
    """Hashes of the config's keys and of those from the environment."""
    return hash_keys([*config.server.api_keys, *environment_keys])


def model(args: dict[str, Any]) -> Application:
    """Application builder of a model: `name`, `spec`, `replicas`, `user_config`."""
    spec = ModelSpec(**args["spec"])
    deployment = _deployment(ModelReplica, "Model", args, version=_version(args["name"], args["spec"]))
    return deployment.options(
        ray_actor_options={
            "num_cpus": spec.resources.cpus,
            "num_gpus": spec.resources.gpus,
            "runtime_env": {"env_vars": replica_environment(spec)},
        },
        # The new replica answers before the old one goes: a change of a model drops no request.
        max_surge_percent=100,
        health_check_period_s=5,
        health_check_timeout_s=30,
    ).bind(args["name"], args["spec"])


def gateway(args: dict[str, Any]) -> Application:
    """Application builder of the wide door: `replicas`, `user_config`."""
    return (
        _deployment(GatewayReplica, "Gateway", args, version=_version())
        .options(ray_actor_options={"num_cpus": 0.1, "runtime_env": {"env_vars": DOOR}}, max_surge_percent=100)
        .bind()
    )


def app(args: dict[str, Any]) -> Application:
    """Application builder of a plugin's app: `app`, `context`, `replicas`, `user_config`."""
    return (
        _deployment(AppReplica, "App", args, version=_version(args["app"], args["context"]))
        .options(ray_actor_options={"num_cpus": 0.05, "runtime_env": {"env_vars": QUIET}})
        .bind(args["app"], args["context"])
    )


def _deployment(replica: type, name: str, args: dict[str, Any], version: str) -> Deployment:
    deployment = serve.deployment(
        name=name,
        num_replicas=args.get("replicas", 1),
        max_ongoing_requests=_UNLIMITED,
        user_config=args.get("user_config", {}),
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=10,
        max_constructor_retry_count=1,
        # Below this level Serve makes a log record of every request, and throws it away where access logs are off.
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )(replica)
    # Serve's own versions are random: every `run` would replace every replica. With a version that says what a
    # deployment is made of, only what has changed is replaced. (Internal API: kept in this one place.)
    return deployment.options(version=version, _internal=True)


def _version(*made_of: Any) -> str:
    text = json.dumps([__version__, *made_of], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else host  # noqa: S104 (it is replaced)
