"""Reads a suite's YAML into strict models; each problem names its YAML path. Knows nothing of models, data or HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from gateway_evals.errors import SuiteError
from gateway_evals.suite import Suite, TaskSpec


def load_suite(path: Path) -> Suite:
    """Read a suite, or a single task as a suite of one. Raises SuiteError with every problem at once."""
    data = read_mapping(path)
    if "tasks" not in data:
        if "task" not in data:
            raise SuiteError(f"{path}: expected `tasks:` (a suite) or `task:` (a single task)")
        data = {"suite": path.stem, "tasks": [data]}
    tasks: Any = data["tasks"]
    if isinstance(tasks, list):
        entries = cast("list[Any]", tasks)
        data = {**data, "tasks": [_entry(path, index, entry) for index, entry in enumerate(entries)]}
    data.setdefault("suite", path.stem)
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        raise SuiteError("\n".join(f"{path}: {line}" for line in _lines(error))) from error
    return suite.model_copy(update={"path": path})


def _entry(path: Path, index: int, entry: Any) -> Any:
    """`- other.yaml` takes a task from its own file beside the suite; its data is then looked for beside that file."""
    if isinstance(entry, dict):
        return _placed(cast("dict[str, Any]", entry), path.parent)
    if not isinstance(entry, str):
        return entry
    file = path.parent / entry
    if not file.is_file():
        raise SuiteError(f"{path}: tasks[{index}]: no file {file}")
    data = _placed(read_mapping(file), file.parent)
    try:
        return TaskSpec.model_validate(data)
    except ValidationError as error:
        raise SuiteError("\n".join(f"{file}: {line}" for line in _lines(error))) from error


def _placed(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    # The models' own fields for places are ours to set; in a file they are unknown settings like any other.
    return {(f"{key} (in a file)" if key == "folder" else key): value for key, value in task.items()} | {
        "folder": folder
    }


def read_mapping(path: Path) -> dict[str, Any]:
    """The file's top-level mapping. Raises SuiteError where it cannot be read or is something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    try:
        data: Any = yaml.load(text, Loader=_SuiteLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise SuiteError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise SuiteError(f"{path}: expected a mapping with `tasks:`, found {type(data).__name__}")
    return cast("dict[str, Any]", data)


def _lines(error: ValidationError) -> list[str]:
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        where = ""
        for part in problem["loc"]:
            where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
        if problem["type"] == "value_error":
            what = str(problem.get("ctx", {}).get("error", problem["msg"]))
        elif problem["type"] == "extra_forbidden":
            what = "unknown setting"
        else:
            what = f"{problem['msg']} (found {problem['input']!r:.80})"
        lines += [f"{where}: {line}" if where else line for line in what.splitlines()]
    return lines


class _SuiteLoader(yaml.SafeLoader):
    """A SafeLoader that refuses what would be lost or run: a key that stands twice, a tag such as `!function`."""


def _mapping(loader: _SuiteLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key: Any = loader.construct_object(key_node, deep=True)  # pyright: ignore[reportUnknownMemberType]
        if isinstance(key, str | int | float | bool) and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", key_node.start_mark)
        seen.add(str(key) if not isinstance(key, str | int | float | bool) else key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _refuse_tag(loader: _SuiteLoader, suffix: str, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(
        None, None, f"the tag !{suffix} is not read here: a suite is data and runs no Python", node.start_mark
    )


_SuiteLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_SuiteLoader.add_multi_constructor("!", _refuse_tag)  # pyright: ignore[reportUnknownMemberType]
