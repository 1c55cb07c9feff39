"""Builders of Serve applications: a model, the gateway, an app. The same for one machine and many."""

# Ray's own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedClassDecorator=false

from __future__ import annotations

import hashlib
import json
from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from gateway import __version__
from gateway.config import ModelSpec
from gateway.serve.applications import ServeApp
from gateway.serve.replica import AppReplica, GatewayReplica, ModelReplica
from gateway.serve.settings import DOOR, QUIET, replica_environment

_UNLIMITED = 100_000
"""Serve's own limits answer in plain text, so ours (429, in OpenAI's shape) must come first."""


def build(app: ServeApp) -> Application:
    """The application for `serve.run_many`."""
    return globals()[app.builder]({**app.args, "user_config": app.user_config, "replicas": app.replicas})


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
