"""From a file to a Suite: our suites, and lm-eval's tasks and groups. Each problem names its YAML path."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from gateway_evals.errors import SuiteError
from gateway_evals.python_task import expanded
from gateway_evals.spec import DatasetKwargs, FewshotConfig, FilterSpec, GenerationKwargs, TaskSpec
from gateway_evals.suite import GroupMetric, Suite
from gateway_evals.yaml_file import names_in, read_mapping

ELSEWHERE = {
    "process_docs": "change the rows beforehand, or write a Python task (register_tasks)",
    "process_results": "write a scorer (register_scorers)",
    "custom_dataset": "write a Python task (register_tasks)",
    "class": "write a Python task (register_tasks)",
    "doc_to_image": "texts only",
    "doc_to_audio": "texts only",
    "use_prompt": "write the template into doc_to_text",
    "unsafe_code": "code runs by `scorer: code` and --allow-code",
}
"""lm-eval's keys that have no place here, and what does instead."""


def load_suite(path: Path) -> Suite:
    """Read a suite, a single task as a suite of one, or a group of lm-eval's. Raises SuiteError with all problems."""
    data = read_mapping(path)
    if "tasks" in data:
        entries: Any = data["tasks"]
    elif isinstance(data.get("task"), list) and "group" in data:
        data, entries = _group(data), data["task"]
    elif "task" in data or "python" in data:
        data, entries = {}, [data]
    else:
        raise SuiteError(f"{path}: expected `tasks:` (a suite) or `task:` (a single task)")
    if isinstance(entries, list):
        listed = cast("list[Any]", entries)
        entries = [task for index, entry in enumerate(listed) for task in _entries(path, f"tasks[{index}]", entry)]
    return _validated(path, {"suite": path.stem, **data, "tasks": entries})


def python_suite(name: str) -> Suite:
    """A Python task as a suite of one. Raises SuiteError."""
    path = Path(name)
    return _validated(path, {"suite": name, "tasks": [expanded({"python": name}, f"{name}: tasks[0]")]})


def _validated(path: Path, data: dict[str, Any]) -> Suite:
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        raise SuiteError("\n".join(f"{path}: {line}" for line in _lines(error, Suite))) from error
    return suite.model_copy(update={"path": path})


def _group(data: dict[str, Any]) -> dict[str, Any]:
    """lm-eval's group in our words; `group_alias` and its version are told nowhere and may stand."""
    beside = {key: value for key, value in data.items() if key not in {"group", "task", "group_alias", "metadata"}}
    return {**beside, "suite": data["group"]}


def _entries(path: Path, where: str, entry: Any) -> list[Any]:
    """The tasks behind one entry: written here, in a file of its own, by name as lm-eval finds it, or in Python."""
    if isinstance(entry, dict):
        return _written(path, where, cast("dict[str, Any]", entry))
    if not isinstance(entry, str):
        return [entry]
    file = path.parent / entry
    if file.is_file():
        return [_from_file(file)]
    named = [found for name, found in names_in(path.parent) if name == entry]
    if not named or named == [path]:
        raise SuiteError(f"{path}: {where}: no file {file}, and no task, group or tag {entry!r} beside it")
    return [task for found in dict.fromkeys(named) for task in load_suite(found).tasks]


def _written(path: Path, where: str, task: dict[str, Any]) -> list[Any]:
    if "python" in task:
        return [expanded(_placed(task, path.parent), f"{path}: {where}")]
    if isinstance(task.get("task"), list):
        inner = cast("list[Any]", task["task"])
        return [one for index, each in enumerate(inner) for one in _entries(path, f"{where}.task[{index}]", each)]
    if "dataset_path" not in task and isinstance(task.get("task"), str):
        # lm-eval's groups change a task that has a file of its own: `{task: NAME, num_fewshot: 3}`.
        for name, found in names_in(path.parent):
            if name == task["task"] and found != path:
                return [_placed({**read_mapping(found), **task}, found.parent)]
    return [_placed(task, path.parent)]


def _from_file(file: Path) -> TaskSpec:
    data = read_mapping(file)
    data = _placed(data, file.parent)
    if "python" in data:
        data = expanded(data, f"{file}")
    try:
        return TaskSpec.model_validate(data)
    except ValidationError as error:
        raise SuiteError("\n".join(f"{file}: {line}" for line in _lines(error, TaskSpec))) from error


def _placed(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    # The models' own fields for places are ours to set; in a file they are unknown settings like any other.
    ours = {"folder", "rows"}
    return {(f"{key} (in a file)" if key in ours else key): value for key, value in task.items()} | {"folder": folder}


def _lines(error: ValidationError, root: type[BaseModel]) -> list[str]:
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        where = ""
        for part in problem["loc"]:
            where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
        if problem["type"] == "value_error":
            what = str(problem.get("ctx", {}).get("error", problem["msg"]))
        elif problem["type"] == "extra_forbidden":
            what = _unknown(problem["loc"], root)
        elif problem["loc"][-1:] == ("dataset_path",):
            what = f"json and csv are read, from local files; a hub is not asked (found {problem['input']!r:.80})"
        else:
            what = f"{problem['msg']} (found {problem['input']!r:.80})"
        lines += [f"{where}: {line}" if where else line for line in what.splitlines()]
    return lines


_MODELS: dict[str, type[BaseModel]] = {
    "tasks": TaskSpec,
    "generation_kwargs": GenerationKwargs,
    "dataset_kwargs": DatasetKwargs,
    "fewshot_config": FewshotConfig,
    "filter_list": FilterSpec,
    "aggregate_metric_list": GroupMetric,
}


def _unknown(place: tuple[int | str, ...], root: type[BaseModel]) -> str:
    if place[-1] in ELSEWHERE:
        return f"unknown setting: {ELSEWHERE[str(place[-1])]}"
    within = [part for part in place[:-1] if part in _MODELS]
    model = _MODELS[str(within[-1])] if within else root
    known = [name for name in model.model_fields if name not in {"folder", "rows", "path"}]
    return f"unknown setting; there are: {', '.join(known)}"
