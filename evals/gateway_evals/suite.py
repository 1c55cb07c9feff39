"""What people write in a suite, as strict pydantic models: lm-eval's spellings where it has one. Reads no file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""Task names become parts of file names."""

OutputType = Literal["generate_until", "multiple_choice"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class DatasetKwargs(_Strict):
    """Where the rows are."""

    data_files: str | list[str] | dict[str, str | list[str]]
    """Files, or files by split; looked for beside the task's YAML, then in the working directory."""


class FilterStep(BaseModel):
    """One step from a model's text to its answer; further keys are the step's own settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    function: str
    """`regex`, `remove_whitespace`, `lowercase`, `uppercase` or `take_first`."""

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class FilterSpec(_Strict):
    """A named chain of steps; its scores are reported as `metric,name`."""

    name: Name
    filter: list[FilterStep] = Field(min_length=1)


class MetricSpec(BaseModel):
    """One metric; further keys are handed to the metric (`ignore_case`, …), which refuses unknown ones."""

    model_config = ConfigDict(extra="allow", frozen=True)

    metric: str
    aggregation: Literal["mean"] = "mean"
    higher_is_better: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class GenerationKwargs(_Strict):
    """How answers are made. Greedy unless said otherwise."""

    until: str | list[str] | None = None
    """Texts that end an answer; default: the few-shot delimiter."""
    max_gen_toks: int = Field(default=256, ge=1)
    do_sample: bool = False
    temperature: float = Field(default=0.0, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _sampling_meets(self) -> GenerationKwargs:
        if not self.do_sample and self.temperature > 0:
            raise ValueError("temperature above 0 needs do_sample: true")
        return self


class TaskMetadata(BaseModel):
    """Facts about a task that travel into its results."""

    model_config = ConfigDict(extra="allow", frozen=True)

    version: float | int | str = 0


class TaskSpec(_Strict):
    """One task: rows, how to ask, how to judge."""

    task: Name
    task_alias: str | None = None
    """The name shown in tables."""
    dataset_path: Literal["json", "csv"]
    dataset_kwargs: DatasetKwargs
    test_split: str | None = None
    """Split that is asked; default: `test`, else the only one."""
    fewshot_split: str | None = None
    """Split that examples are drawn from; default: the asked split, without the row being asked."""
    output_type: OutputType = "generate_until"
    description: str = ""
    """Stands once before everything else."""
    doc_to_text: str
    """A column's name or a Jinja template."""
    doc_to_target: str | int
    """A column's name or a Jinja template; for multiple_choice the right choice, as its index or its text."""
    doc_to_choice: str | list[str] | None = None
    """The choices, a column that holds them, or a template that writes them as a list."""
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    num_fewshot: int = Field(default=0, ge=0)
    generation_kwargs: GenerationKwargs = GenerationKwargs()
    filter_list: list[FilterSpec] = []
    metric_list: list[MetricSpec] = []
    metadata: TaskMetadata = TaskMetadata()
    apply_chat_template: bool = False
    """Ours: ask through the chat endpoint, so that the model's own template is applied (generate_until only)."""
    scorer: str | None = None
    """Ours: name of an installed scorer; default: the one of the output type."""
    folder: Path = Field(default=Path(), exclude=True)
    """Set by the reader: the folder of the file the task stands in."""

    @field_validator("metric_list", mode="after")
    @classmethod
    def _metrics_once(cls, value: list[MetricSpec]) -> list[MetricSpec]:
        names = [metric.metric for metric in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} stands twice")
        return value

    @model_validator(mode="after")
    def _fields_meet(self) -> TaskSpec:
        problems: list[str] = []
        if self.output_type == "multiple_choice":
            if self.doc_to_choice is None:
                problems.append("doc_to_choice: multiple_choice needs the choices")
            if self.apply_chat_template:
                problems.append("apply_chat_template: log-likelihoods are measured on plain text; leave it out")
            if self.filter_list:
                problems.append("filter_list: multiple_choice has no text to filter")
        elif self.doc_to_choice is not None:
            problems.append("doc_to_choice: only multiple_choice has choices")
        names = [chain.name for chain in self.filter_list]
        problems += [f"filter_list: {name!r} stands twice" for name in set(names) if names.count(name) > 1]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def shown(self) -> str:
        return self.task_alias or self.task

    @property
    def metrics(self) -> list[MetricSpec]:
        """The task's metrics, or those its output type has by default."""
        if self.metric_list:
            return self.metric_list
        names = ["acc", "acc_norm"] if self.output_type == "multiple_choice" else ["exact_match"]
        return [MetricSpec(metric=name) for name in names]

    @property
    def stops(self) -> list[str]:
        until = self.generation_kwargs.until
        if until is None:
            return [self.fewshot_delimiter]
        return [until] if isinstance(until, str) else until


class Suite(_Strict):
    """Tasks that are run together."""

    suite: Name
    description: str = ""
    licence: str = ""
    minutes: float | None = Field(default=None, gt=0)
    """Expected time for one small model on two cores."""
    tasks: list[TaskSpec] = Field(min_length=1)
    path: Path = Field(default=Path(), exclude=True)
    """Set by the reader: the file."""

    @model_validator(mode="after")
    def _names_differ(self) -> Suite:
        names = [task.task for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"tasks: {', '.join(twice)} stands twice; task names must differ")
        return self
