"""From what a command line names to a suite: a file, a shipped suite, or tasks by name from shipped and own folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway_evals import catalog
from gateway_evals.errors import SuiteError
from gateway_evals.overrides import change
from gateway_evals.suite import Suite, TaskSpec
from gateway_evals.suite_file import load_suite


def choose_suite(reference: str | None, settings: Mapping[str, Any]) -> Suite:
    """With `settings` applied: `tasks`, `include_path` and what `overrides` knows. Without a reference, `tasks` names
    suites or tasks. Raises SuiteError that lists what there is."""
    folders = [Path(folder) for folder in settings.get("include_path") or ()]
    for folder in folders:
        if not folder.is_dir():
            raise SuiteError(f"--include_path: no folder {folder}")
    names: Sequence[str] = settings.get("tasks") or ()
    if reference:
        return change(load_suite(_file(reference, folders)), settings)
    if not names:
        raise SuiteError("name a SUITE (`gateway eval ls` lists them), or tasks with --tasks")
    suites = list(_suites(folders))
    if len(names) == 1 and names[0] in (known := {suite.suite: suite for suite in suites}):
        return change(known[names[0]], {**settings, "tasks": None})
    tasks = [task for name in names for task in _named(name, suites)]
    suite = Suite(suite="tasks", tasks=list({task.task: task for task in tasks}.values()))
    return change(suite, {**settings, "tasks": None})


def _file(reference: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        for candidate in (folder / f"{reference}.yaml", folder / reference):
            if candidate.is_file():
                return candidate
    return catalog.find(reference)


def _suites(folders: Sequence[Path]) -> Iterator[Suite]:
    """A file of an own folder that cannot be read is an error; a shipped one is passed over, as it is nobody's wish."""
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            yield load_suite(path)
    for each in catalog.listing():
        if each.suite is not None:
            yield each.suite


def _named(name: str, suites: Sequence[Suite]) -> list[TaskSpec]:
    for suite in suites:
        if suite.suite == name:
            return list(suite.tasks)
        for task in suite.tasks:
            if task.task == name:
                return [task]
    there = ", ".join(dict.fromkeys(task.task for suite in suites for task in suite.tasks))
    raise SuiteError(f"--tasks: no task and no suite {name!r}; tasks: {there}")
