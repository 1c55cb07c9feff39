"""What a task is, in one digest: the same digest, the same questions judged the same way. Reads no file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from gateway_evals.cache import IDENTITY
from gateway_evals.task import Task


def task_digest(task: Task) -> str:
    """sha256 over the task's settings, its rows, its examples, its limit and its seed. Names of files do not count:
    what is in them does."""
    total = hashlib.sha256()
    spec = task.spec.model_dump(mode="json", exclude={"dataset_kwargs", "task_alias"})
    total.update(_bytes([spec, task.count, task.seed]))
    for row in task.rows[: task.count]:
        total.update(_bytes(row))
    if task.spec.num_fewshot:
        for row in task.examples:
            total.update(_bytes(row))
    return total.hexdigest()


def model_identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's facts decides its answers."""
    return {name: facts[name] for name in IDENTITY if facts.get(name)}


def _bytes(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n"
