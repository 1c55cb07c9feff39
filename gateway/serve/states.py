"""What the cluster says of its applications: whether they run, with how many replicas, and if not, why."""

# Ray's own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.serve.context import _get_global_client  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True, slots=True)
class ApplicationState:
    """One application's."""

    status: str
    """`DEPLOYING`, `RUNNING`, `DEPLOY_FAILED`, `UNHEALTHY`, `DELETING`, …"""
    message: str
    deployment_messages: tuple[str, ...]
    """Where a replica has failed: its traceback."""
    replicas: Mapping[str, int]
    """How many, by their state: `RUNNING`, `STARTING`, …"""


def application_states() -> dict[str, ApplicationState]:
    """Of every application, by name; none where Serve has not begun. Blocks. Raises what Ray raises.

    `serve.status()` says the same, and takes a dozen times as much of this process: it makes every deployment's whole
    configuration again out of what the controller answers, with the code of its router pickled.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return {}
    applications: dict[str, dict[str, Any]] = client.get_serve_details()["applications"]
    return {name: _state(said) for name, said in applications.items()}


def _state(said: Mapping[str, Any]) -> ApplicationState:
    deployments: list[dict[str, Any]] = list(said["deployments"].values())
    replicas = Counter(str(replica["state"].value) for each in deployments for replica in each["replicas"])
    return ApplicationState(
        str(said["status"].value), str(said["message"]), tuple(str(each["message"]) for each in deployments), replicas
    )
