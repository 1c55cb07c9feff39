"""One running gateway for all end-to-end tests: three engines on the real model, echoes beside them, the playground.
It ends with the last of them: what is tested after them gets the machine alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.endtoend.watching import install
from tests.rows import SHARE
from tests.running import Gateway, free_port, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The shipped config, models that fail on demand, and one in two replicas that says which adapter answered."""
    config = yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text())
    for model in config["models"].values():
        model["resources"]["threads"] = SHARE.threads
    weights = {name: config["models"]["smollm2"][name] for name in ("source", "sha256")}
    config["models"]["echo"] = {"backend": "echo"}
    config["models"]["echo-slow"] = {"backend": "echo", "options": {"delay_ms": 50}}
    config["models"]["broken"] = {"backend": "echo", "options": {"fail_after": 1}}
    config["models"]["echo-pair"] = {
        "backend": "echo", **weights, "replicas": 2, "options": {"load_ms": 300, "delay_ms": 10},
        "adapters": {"max_resident": 2, "pinned": ["steady"]},
    }  # fmt: skip
    config["routes"]["backup"] = {"targets": ["broken", "echo"]}
    config["routes"]["shared"] = {"policy": "weighted", "targets": [{"model": "echo"}, {"model": "echo-slow"}]}
    port = free_port()
    folder = tmp_path_factory.mktemp("gateway")
    config["server"] |= {"port": port, "store": f"sqlite:///{folder / 'gateway.db'}"}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    env, _ = install(folder)
    with serving(path, port, env) as running:
        yield running


@pytest.fixture(scope="package")
def notes(gateway: Gateway) -> Path:
    """Where the replicas of that gateway note which adapters came and went."""
    return gateway.config.parent / "notes"
