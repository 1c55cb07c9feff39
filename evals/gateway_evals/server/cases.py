"""Test cases that people add by hand: suites of their own in the state folder, none in the package. No HTTP."""

from __future__ import annotations

import fcntl
import json
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.errors import Conflict, InvalidRequest
from gateway_evals import catalog
from gateway_evals.errors import SuiteError
from gateway_evals.suite_file import load_suite
from gateway_evals.task import build_tasks

_SUITE = """\
# Test cases that were added by hand, one JSON object a line in {name}.jsonl. Yours to change.
suite: {name}
description: Test cases added by hand
tasks:
  - task: {name}
    dataset_path: json
    dataset_kwargs:
      data_files: {name}.jsonl
    output_type: generate_until
    apply_chat_template: true
    doc_to_text: question
    doc_to_target: answers
    generation_kwargs:
      until: []
      max_gen_toks: 128
    metric_list:
      - metric: exact_match
        ignore_case: true
        ignore_punctuation: true
      - metric: f1
    metadata:
      version: 1
"""


def add_case(name: str, question: str, answers: list[str]) -> dict[str, Any]:
    """Add a case to the person's suite `name`, which is made if need be; whole or not at all.

    Returns the suite's name, its number of cases and its file. Raises Conflict where the suite is no such suite or has
    the case already, InvalidRequest where the case cannot be asked.
    """
    if name in catalog.shipped():
        raise Conflict(f"{name!r} ships with the package and stays as it is: add the case to a suite of another name")
    folder = catalog.own_folder()
    folder.mkdir(parents=True, exist_ok=True)
    suite, data = folder / f"{name}.yaml", folder / f"{name}.jsonl"
    with _locked(folder):
        text = suite.read_text(encoding="utf-8") if suite.exists() else _SUITE.format(name=name)
        lines = data.read_text(encoding="utf-8").splitlines() if data.exists() else []
        case = {"question": question, "answers": answers}
        if any(json.loads(line) == case for line in lines):
            raise Conflict(f"the suite {name!r} has this case already")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as made:
            _write(Path(made), name, text, [*lines, json.dumps(case, ensure_ascii=False)])
            (Path(made) / data.name).replace(data)
            # Data first: a suite that can be found can be run.
            if not suite.exists():
                (Path(made) / suite.name).replace(suite)
    return {"suite": name, "samples": len(lines) + 1, "path": str(suite)}


def _write(folder: Path, name: str, text: str, lines: list[str]) -> None:
    """Write both files and do with them what a run does: what it would refuse is never kept."""
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    try:
        suite = load_suite(folder / f"{name}.yaml")
        if [task.dataset_kwargs.data_files for task in suite.tasks] != [f"{name}.jsonl"]:
            raise Conflict(f"the suite {name!r} was changed by hand: its cases are no longer those of {name}.jsonl")
        build_tasks(suite)
    except SuiteError as error:
        raise InvalidRequest(f"this case cannot be asked: {error.message.replace(str(folder), '')}") from error


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """One writer at a time, also where several gateways share the folder."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
