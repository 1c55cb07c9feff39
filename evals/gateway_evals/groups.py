"""One number over the tasks of a group, as lm-eval's `aggregate_metric_list` says it. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from gateway_evals.measuring import TaskResult
from gateway_evals.suite import Suite


def grouped(suite: Suite, tasks: Sequence[TaskResult]) -> dict[str, float]:
    """`metric,filter` to its mean over the tasks that have it: weighted by answered samples, or each task alike."""
    found: dict[str, float] = {}
    for wanted in suite.aggregate_metric_list:
        for name in wanted.filters:
            key = f"{wanted.metric},{name}"
            parts = [
                (figure.value, task.answered if wanted.weight_by_size else 1)
                for task in tasks
                for figure in task.figures
                if figure.key == key and figure.value is not None
            ]
            weight = sum(size for _, size in parts)
            if weight:
                found[key] = sum(value * size for value, size in parts) / weight
    return found
