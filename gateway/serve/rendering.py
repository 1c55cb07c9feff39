"""A config → a Ray Serve config file: what `serve deploy` and KubeRay's RayService take. Imports no ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from gateway import plugins
from gateway.config import load
from gateway.ingress.auth import hash_keys
from gateway.serve import preflight
from gateway.serve.applications import applications
from gateway.serve.settings import QUIET, replica_environment


def render(path: Path) -> str:
    """The Serve config file as YAML text. Raises ConfigError for a config that could not be served."""
    config = load(path)
    preflight.require(config, plugins.load())
    key_hashes = hash_keys([*config.server.api_keys, *os.environ.get("GATEWAY_API_KEYS", "").split(",")])
    preflight.require_host(config, key_hashes)
    rendered: list[dict[str, Any]] = []
    for app in applications(config, key_hashes):
        environment = replica_environment(config.models[app.args["name"]]) if app.builder == "model" else QUIET
        rendered.append(
            {
                "name": app.name,
                "route_prefix": app.route_prefix,
                "import_path": f"gateway.serve.build:{app.builder}",
                "runtime_env": {"env_vars": environment},
                "args": {**app.args, "user_config": app.user_config, "replicas": app.replicas},
            }
        )
    document = {
        "proxy_location": "EveryNode",
        "http_options": {"host": config.server.host, "port": config.server.port, "keep_alive_timeout_s": 600},
        "applications": rendered,
    }
    header = (
        f"# Rendered from {path.name} by `gateway render`: a change belongs there.\n"
        "# Start Ray with RAY_SERVE_ENABLE_HA_PROXY=1 and RAY_SERVE_THROUGHPUT_OPTIMIZED=1 on every node.\n"
    )
    return header + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
