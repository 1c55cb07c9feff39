"""Tasks written in Python, which plugins offer by `register_tasks`: what a YAML would say, and rows from code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from gateway.errors import PluginError
from gateway.plugins import Plugins, Shelf, load
from gateway_evals.errors import SuiteError
from gateway_evals.spec import Rows


@dataclass(frozen=True, slots=True)
class PythonTask:
    """What a factory given to `register_tasks` returns."""

    spec: Mapping[str, Any]
    """As in a task's YAML; `task`, `dataset_path` and what a suite writes beside `python: NAME` need not stand here."""
    rows: Rows
    """Called with the suite's `dataset_kwargs` as keywords; gives rows by split. The same keywords, the same rows."""


def shelf(plugins: Plugins | None = None) -> Shelf[Callable[[], object]]:
    """All offered tasks. Raises PluginError where two plugins offer one name."""
    found: Shelf[Callable[[], object]] = Shelf("task")
    manager = (plugins or load()).manager
    named = [(name, plugin) for name, plugin in manager.list_name_plugin() if plugin is not None]
    for name, plugin in named:
        others = [other for _, other in named if other is not plugin]

        def put(task: str, factory: Callable[[], object], by: str = name) -> None:
            found.put(task, factory, by)

        manager.subset_hook_caller("register_tasks", others)(register=put)
    return found


def expanded(entry: Mapping[str, Any], where: str, plugins: Plugins | None = None) -> dict[str, Any]:
    """`python: NAME` with what stands beside it, as a whole task. Raises SuiteError."""
    name = entry["python"]
    plugins = plugins or load()
    try:
        made = shelf(plugins).get(str(name), plugins.broken)()
    except PluginError as error:
        raise SuiteError(f"{where}.python: {error.message}") from error
    if not isinstance(made, PythonTask):
        raise SuiteError(f"{where}.python: {name!r} is offered as a {type(made).__name__}, expected a PythonTask")
    keywords: dict[str, Any] = {**made.spec.get("dataset_kwargs", {}), **(entry.get("dataset_kwargs") or {})}
    _check(made, keywords, where)
    beside = {key: value for key, value in entry.items() if key not in {"python", "dataset_kwargs"}}
    return {
        "task": name,
        **made.spec,
        **beside,
        "dataset_path": "python",
        "dataset_kwargs": keywords,
        "rows": made.rows,
    }


def _check(task: PythonTask, keywords: Mapping[str, Any], where: str) -> None:
    parameters = inspect.signature(task.rows).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    unknown = [key for key in keywords if key not in parameters]
    if unknown:
        known = ", ".join(cast("Mapping[str, Any]", parameters)) or "none"
        raise SuiteError(f"{where}.dataset_kwargs: unknown setting {', '.join(unknown)}; there are: {known}")
