"""What people write for one task, as strict pydantic models: lm-eval's spellings where it has one. Reads no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""Task names become parts of file names."""

OutputType = Literal["generate_until", "multiple_choice", "loglikelihood", "loglikelihood_rolling"]

Rows = Callable[..., Mapping[str, Sequence[Mapping[str, Any]]]]
"""A Python task's rows by split; its keywords are what `dataset_kwargs` may hold."""


class Strict(BaseModel):
    """Refuses what it does not know; never changes."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class DatasetKwargs(BaseModel):
    """Where the rows are. For a Python task: its own keywords."""

    model_config = ConfigDict(extra="allow", frozen=True)

    data_files: str | list[str] | dict[str, str | list[str]] = []
    """Files, or files by split: beside the task's YAML, in the working directory, or `package:DISTRIBUTION/FILE`."""
    data_dir: str | None = None
    """Folder before each of `data_files`."""
    field: str | None = None
    """json: the key of the top-level object under which the rows stand."""
    encoding: str = "utf-8"
    delimiter: str | None = None
    """csv: what stands between columns; default: a comma."""
    sep: str | None = None
    """csv: the same."""

    @property
    def keywords(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class FilterStep(BaseModel):
    """One step from a model's texts to its answers; further keys are the step's own settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    function: str

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class FilterSpec(Strict):
    """A named chain of steps; its scores are reported as `metric,name`."""

    name: Name
    filter: list[FilterStep] = Field(min_length=1)


class MetricSpec(BaseModel):
    """One metric; further keys are handed to the metric (`ignore_case`, …), which refuses unknown ones."""

    model_config = ConfigDict(extra="allow", frozen=True)

    metric: str
    aggregation: str | None = None
    """How samples become one number. A metric knows one way; another name is an error."""
    higher_is_better: bool | None = None
    """Default: as the metric says of itself."""

    @property
    def settings(self) -> dict[str, Any]:
        return {key: value for key, value in (self.model_extra or {}).items() if key != "hf_evaluate"}


_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class GenerationKwargs(Strict):
    """How answers are made. Greedy unless said otherwise."""

    until: str | list[str] | None = None
    """Texts that end an answer; default: the few-shot delimiter."""
    max_gen_toks: int = Field(default=256, ge=1)
    """Also spelt max_new_tokens, max_tokens, max_completion_tokens."""
    do_sample: bool | None = None
    """Default: whether the temperature is above 0."""
    temperature: float = Field(default=0.0, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given: dict[str, Any] = {**value}  # pyright: ignore[reportUnknownVariableType]
        found = [given.pop(name) for name in _LENGTHS if given.get(name) is not None]
        return given | ({"max_gen_toks": found[0]} if found else {})

    @model_validator(mode="after")
    def _sampling_meets(self) -> GenerationKwargs:
        if self.do_sample is False and self.temperature > 0:
            raise ValueError("temperature above 0 needs do_sample: true")
        return self

    @property
    def samples(self) -> bool:
        return self.temperature > 0 if self.do_sample is None else self.do_sample

    @property
    def sampling(self) -> dict[str, Any]:
        """What goes into a request beside temperature and length."""
        names = ["repetition_penalty", "presence_penalty", "frequency_penalty"]
        names += ["top_p", "top_k", "min_p"] if self.samples else []
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class FewshotConfig(Strict):
    """Where examples come from, and how they differ from the question."""

    sampler: Literal["default", "first_n"] = "default"
    """default: drawn by seed, for each row anew; first_n: the first rows, in order."""
    split: str | None = None
    """As `fewshot_split`."""
    samples: list[dict[str, Any]] | None = None
    """The examples themselves."""
    doc_to_text: str | None = None
    doc_to_target: str | int | list[str] | None = None
    doc_to_choice: str | list[str] | dict[str, str] | None = None
    target_delimiter: str | None = None
    fewshot_delimiter: str | None = None
    gen_prefix: str | None = None


class TaskMetadata(BaseModel):
    """Facts about a task that travel into its results."""

    model_config = ConfigDict(extra="allow", frozen=True)

    version: float | int | str = 0


class TaskSpec(Strict):
    """One task: rows, how to ask, how to judge."""

    task: Name
    task_alias: str | None = None
    """The name shown in tables."""
    tag: str | list[str] | None = None
    """Names under which others find the task; told in the results."""
    group: str | list[str] | None = None
    """lm-eval's older name of `tag`."""
    dataset_path: Literal["json", "csv", "python"]
    """Rows from local files, or from a Python task that a plugin offers."""
    dataset_name: None = None
    dataset_kwargs: DatasetKwargs = DatasetKwargs()
    training_split: str | None = None
    validation_split: str | None = None
    """Split that is asked where there is no `test_split`."""
    test_split: str | None = None
    """Split that is asked; default: the validation split, else `test`, else the only one."""
    fewshot_split: str | None = None
    """Split that examples are drawn from; default: training, else validation, else the asked one."""
    fewshot_config: FewshotConfig = FewshotConfig()
    output_type: OutputType = "generate_until"
    description: str = ""
    """Stands once before everything else; in a chat it is the system message. A column's name or a Jinja template."""
    doc_to_text: str = ""
    """A column's name or a Jinja template."""
    doc_to_target: str | int | list[str] = ""
    """A column's name or a Jinja template; for multiple_choice the right choice, as its index or its text."""
    doc_to_choice: str | list[str] | dict[str, str] | None = None
    """The choices, a column that holds them, or a template that writes them as a list."""
    gen_prefix: str | None = None
    """The beginning of the model's answer."""
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    num_fewshot: Annotated[int, Field(ge=0), BeforeValidator(lambda value: 0 if value is None else value)] = 0
    generation_kwargs: GenerationKwargs = GenerationKwargs()
    filter_list: list[FilterSpec] = []
    metric_list: list[MetricSpec] = []
    repeats: int = Field(default=1, ge=1, le=1024)
    """Answers for each row; filters say what becomes of them."""
    should_decontaminate: bool = False
    """Read and without effect, as in lm-eval."""
    doc_to_decontamination_query: str | None = None
    """Read and without effect."""
    metadata: TaskMetadata = TaskMetadata()
    apply_chat_template: bool = False
    """Ours: ask through the model's chat template (lm-eval has it on its command line)."""
    fewshot_as_multiturn: bool = True
    """Ours: in a chat, examples are turns; false: all in one message."""
    system_instruction: str | None = None
    """Ours: stands before `description`."""
    doc_to_turns: str | None = None
    """Ours: a column (or template) with a list of what the user says, turn by turn; the model answers each, and its
    last answer counts."""
    doc_to_messages: str | None = None
    """Ours: a column with the whole conversation as a list of {role, content}, asked as it stands."""
    cluster: str | None = None
    """Ours: a column (or template); rows of one value share a source, and intervals are widened for it."""
    scorer: str | None = None
    """Ours: name of an installed scorer; default: the one of the output type."""
    scorer_kwargs: dict[str, Any] = {}
    """Ours: settings of that scorer."""
    folder: Path = Field(default=Path(), exclude=True)
    """Set by the reader: the folder of the file the task stands in."""
    rows: Rows | None = Field(default=None, exclude=True)
    """Set by the reader: a Python task's rows."""

    @field_validator("metric_list", mode="after")
    @classmethod
    def _metrics_once(cls, value: list[MetricSpec]) -> list[MetricSpec]:
        names = [metric.metric for metric in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} stands twice")
        return value

    @field_validator("filter_list", "metric_list", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return [] if value is None else value

    @model_validator(mode="after")
    def _fields_meet(self) -> TaskSpec:
        problems: list[str] = []
        generates = self.output_type == "generate_until"
        if self.output_type == "multiple_choice" and self.doc_to_choice is None:
            problems.append("doc_to_choice: multiple_choice needs the choices")
        if self.output_type.startswith("loglikelihood") and self.doc_to_choice is not None:
            problems.append("doc_to_choice: only multiple_choice and generate_until have choices")
        if self.output_type == "loglikelihood_rolling" and (self.num_fewshot or self.apply_chat_template):
            problems.append("output_type: loglikelihood_rolling reads plain text: no examples and no chat template")
        if not generates and self.filter_list:
            problems.append(f"filter_list: {self.output_type} has no text to filter")
        if not generates and self.repeats > 1:
            problems.append(f"repeats: {self.output_type} is the same every time")
        if not generates and (self.doc_to_turns or self.doc_to_messages):
            problems.append("doc_to_turns, doc_to_messages: only generate_until holds conversations")
        if self.doc_to_turns and self.doc_to_messages:
            problems.append("doc_to_turns: the conversation stands in doc_to_messages already")
        asks = self.doc_to_text or self.doc_to_turns or self.doc_to_messages
        if not asks and self.output_type != "loglikelihood_rolling":
            problems.append("doc_to_text: nothing is asked")
        if self.doc_to_target == "" and self.scorer is None:
            problems.append("doc_to_target: nothing to compare an answer with")
        if self.dataset_path != "python":
            known = ", ".join(DatasetKwargs.model_fields)
            strange = set(self.dataset_kwargs.keywords) - {"trust_remote_code"}
            problems += [f"dataset_kwargs.{name}: unknown setting; there are: {known}" for name in sorted(strange)]
        if self.dataset_path == "python" and self.rows is None:
            problems.append("dataset_path: python is a task that a plugin offers: write `python: NAME`")
        names = [chain.name for chain in self.filter_list]
        problems += [f"filter_list: {name!r} stands twice" for name in set(names) if names.count(name) > 1]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def shown(self) -> str:
        return self.task_alias or self.task

    @property
    def chats(self) -> bool:
        """Whether it is asked as a conversation."""
        return self.apply_chat_template or bool(self.doc_to_turns or self.doc_to_messages)

    @property
    def metrics(self) -> list[MetricSpec]:
        """The task's metrics, or those its output type has by default."""
        if self.metric_list:
            return self.metric_list
        return [MetricSpec(metric=name) for name in _DEFAULT_METRICS[self.output_type]]

    @property
    def stops(self) -> list[str]:
        until = self.generation_kwargs.until
        if until is None:
            return [self.fewshot_delimiter]
        return [until] if isinstance(until, str) else until


_DEFAULT_METRICS: dict[str, list[str]] = {
    "generate_until": ["exact_match"],
    "multiple_choice": ["acc", "acc_norm"],
    "loglikelihood": ["perplexity", "acc"],
    "loglikelihood_rolling": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
}
