"""Tasks that are run together, as people write them. Reads no file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from gateway_evals.spec import (
    FilterSpec,
    FilterStep,
    GenerationKwargs,
    MetricSpec,
    Name,
    Strict,
    TaskMetadata,
    TaskSpec,
)

__all__ = [
    "FilterSpec", "FilterStep", "GenerationKwargs", "GroupMetric", "MetricSpec", "Name", "Suite", "TaskMetadata",
    "TaskSpec",
]  # fmt: skip


class GroupMetric(Strict):
    """One number over all tasks, as in lm-eval's groups."""

    metric: str
    aggregation: Literal["mean"] = "mean"
    weight_by_size: bool = True
    """Whether each sample counts the same, or each task."""
    filter_list: str | list[str] = "none"
    """Filters whose figures are averaged."""

    @property
    def filters(self) -> list[str]:
        return [self.filter_list] if isinstance(self.filter_list, str) else self.filter_list


class Suite(Strict):
    """Tasks that are run together."""

    suite: Name
    description: str = ""
    licence: str = ""
    """Of its rows, and where they come from."""
    questions: int | None = Field(default=None, gt=0)
    """How many rows its tasks have together."""
    minutes: float | None = Field(default=None, gt=0)
    """Expected time for one small model on two cores."""
    known: dict[str, Any] = Field(default_factory=dict)
    """Scores of the default model: task to `metric,filter` to value, with `measured` (date, engine, limit)."""
    tasks: list[TaskSpec] = Field(min_length=1)
    aggregate_metric_list: list[GroupMetric] = Field(default_factory=list[GroupMetric])
    path: Path = Field(default=Path(), exclude=True)
    """Set by the reader: the file."""

    @model_validator(mode="after")
    def _names_differ(self) -> Suite:
        names = [task.task for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"tasks: {', '.join(twice)} stands twice; task names must differ")
        return self
