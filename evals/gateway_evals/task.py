"""A task ready to run: its samples rendered, few-shot examples drawn by seed. Knows nothing of models and HTTP."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from gateway_evals.dataset import load_rows
from gateway_evals.errors import SuiteError
from gateway_evals.prompt import Row, doc_to_choice, doc_to_target, doc_to_text, target_choice
from gateway_evals.suite import Suite, TaskSpec


@dataclass(frozen=True, slots=True)
class Sample:
    """One question, rendered."""

    doc_id: int
    """The row's place in its data set, from 0."""
    doc: Row
    prompt: str
    targets: tuple[str, ...]
    """The texts that are right; for multiple choice the one right choice."""
    choices: tuple[str, ...] = ()
    gold: int | None = None
    """Index of the right choice."""


@dataclass(frozen=True, slots=True)
class Task:
    """A spec and its rows. Samples are rendered when asked for, so that a large set is not held twice."""

    spec: TaskSpec
    rows: list[Row]
    examples: list[Row]
    count: int
    """How many rows are asked: all, or what a limit leaves."""
    seed: int
    where: str
    """File and YAML path, for errors."""

    @property
    def name(self) -> str:
        return self.spec.task

    def samples(self) -> Iterator[Sample]:
        """In the data set's order. Raises SuiteError where a row does not fit the templates."""
        for doc_id in range(self.count):
            yield self.sample(doc_id)

    def sample(self, doc_id: int) -> Sample:
        row = self.rows[doc_id]
        where = f"{self.where} (row {doc_id})"
        prompt = self.spec.description + self._shots(doc_id) + doc_to_text(self.spec, row, where)
        if not prompt.strip():
            raise SuiteError(f"{where}.doc_to_text: the prompt is empty")
        if self.spec.output_type == "multiple_choice":
            choices = doc_to_choice(self.spec, row, where)
            gold = target_choice(self.spec, row, choices, where)
            return Sample(doc_id, row, prompt, (choices[gold],), tuple(choices), gold)
        return Sample(doc_id, row, prompt, tuple(doc_to_target(self.spec, row, where)))

    def _shots(self, doc_id: int) -> str:
        wanted = self.spec.num_fewshot
        if not wanted:
            return ""
        places = list(range(len(self.examples)))
        if self.examples is self.rows:
            places.remove(doc_id)
        # A generator of its own for each row: a limit or another order changes no prompt.
        drawn = random.Random(f"{self.seed}:{doc_id}").sample(places, wanted)  # noqa: S311 (no secret)
        return "".join(self._shot(place) for place in drawn)

    def _shot(self, place: int) -> str:
        row, where = self.examples[place], f"{self.where} (example {place})"
        text = doc_to_text(self.spec, row, where)
        if self.spec.output_type == "multiple_choice":
            choices = doc_to_choice(self.spec, row, where)
            target = choices[target_choice(self.spec, row, choices, where)]
        else:
            target = doc_to_target(self.spec, row, where)[0]
        return f"{text}{self.spec.target_delimiter}{target}{self.spec.fewshot_delimiter}"


def build_tasks(suite: Suite, *, limit: float | None = None, seed: int = 1234) -> list[Task]:
    """All tasks of a suite with their data. `limit`: rows a task (1 or more), or a share (below 1).

    Every sample is rendered once, so that a bad row is known before anything is asked. Raises SuiteError, for all.
    """
    tasks: list[Task] = []
    problems: list[str] = []
    for index, spec in enumerate(suite.tasks):
        where = f"{suite.path}: tasks[{index}]"
        try:
            tasks.append(_build(spec, where, limit, seed))
        except SuiteError as error:
            problems.append(error.message)
    if problems:
        raise SuiteError("\n".join(problems))
    return tasks


def _build(spec: TaskSpec, where: str, limit: float | None, seed: int) -> Task:
    rows, examples = load_rows(spec, where)
    spare = len(examples) - (examples is rows)
    if spec.num_fewshot > spare:
        raise SuiteError(f"{where}.num_fewshot: {spec.num_fewshot} examples asked, {spare} rows to draw from")
    count = len(rows)
    if limit is not None:
        count = min(count, max(1, round(limit * len(rows)) if limit < 1 else int(limit)))
    task = Task(spec, rows, examples, count, seed, where)
    for _ in task.samples():
        pass
    return task


def digest(value: object) -> str:
    """sha256 of a JSON value with sorted keys: lm-eval's `doc_hash`, `prompt_hash`, `target_hash` are of this kind."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()
