"""A task ready to run: its samples rendered, few-shot examples drawn by seed. Knows nothing of models and HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from gateway_evals.dataset import load_rows
from gateway_evals.dialogue import Message, Turn, as_messages, as_text, example, joined, question
from gateway_evals.errors import SuiteError
from gateway_evals.fewshot import drawn
from gateway_evals.prompt import (
    Row,
    conversation,
    doc_to_choice,
    doc_to_target,
    doc_to_text,
    target_choices,
    text_of,
    user_turns,
)
from gateway_evals.spec import TaskSpec
from gateway_evals.suite import Suite


@dataclass(frozen=True, slots=True)
class Sample:
    """One question, rendered."""

    doc_id: int
    """The row's place in its data set, from 0."""
    doc: Row
    prompt: str
    """As one text; for a chat, what would be asked without a template."""
    targets: tuple[str, ...]
    """The texts that are right; for multiple choice the right choices. For log-likelihoods the text that is scored."""
    choices: tuple[str, ...] = ()
    golds: tuple[int, ...] = ()
    """Indices of the right choices, usually one."""
    messages: tuple[Message, ...] = ()
    """The same as a chat, where the task is asked as one."""
    turns: tuple[str, ...] = ()
    """What the user says after the model's first answer, turn by turn."""
    cluster: str = ""
    """What this row shares with others, where the task says."""

    @property
    def gold(self) -> int | None:
        return self.golds[0] if self.golds else None


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
    shots: list[tuple[int, ...]]
    """For each row that is asked, the places of its examples."""

    @property
    def name(self) -> str:
        return self.spec.task

    def samples(self) -> Iterator[Sample]:
        """In the data set's order. Raises SuiteError where a row does not fit the templates."""
        for doc_id in range(self.count):
            yield self.sample(doc_id)

    def sample(self, doc_id: int) -> Sample:
        """Raises SuiteError."""
        spec, row = self.spec, self.rows[doc_id]
        where = f"{self.where} (row {doc_id})"
        turns, later = self._turns(doc_id, where)
        prompt = as_text(turns)
        if not prompt.strip() and spec.output_type != "loglikelihood_rolling":
            raise SuiteError(f"{where}.doc_to_text: the prompt is empty")
        choices: list[str] = doc_to_choice(spec, row, where) if spec.doc_to_choice is not None else []
        golds: tuple[int, ...] = ()
        if choices:
            golds = target_choices(spec, row, choices, where)
            targets = [choices[gold] for gold in golds]
        else:
            targets = doc_to_target(spec, row, where)
        if spec.output_type.startswith("loglikelihood") and not targets[0].strip():
            raise SuiteError(f"{where}.doc_to_target: the text to score is empty")
        return Sample(
            doc_id,
            row,
            prompt,
            tuple(targets),
            choices=tuple(choices) if spec.output_type == "multiple_choice" else (),
            golds=golds if spec.output_type == "multiple_choice" else (),
            messages=tuple(as_messages(turns, multiturn=spec.fewshot_as_multiturn)) if spec.chats else (),
            turns=tuple(later),
            cluster=text_of(spec.cluster, row, f"{where}.cluster") if spec.cluster else "",
        )

    def _turns(self, doc_id: int, where: str) -> tuple[list[Turn], list[str]]:
        """All that is asked at first, and what the user says later."""
        spec, row = self.spec, self.rows[doc_id]
        description = text_of(spec.description, row, f"{where}.description") if spec.description else ""
        system = joined(spec.system_instruction or "", description, spec.fewshot_delimiter)
        turns = [Turn("system", system)] if system else []
        for place in self.shots[doc_id]:
            turns += self._example(place)
        if spec.doc_to_messages:
            told = conversation(spec.doc_to_messages, row, f"{where}.doc_to_messages")
            return turns + [Turn(message["role"], message["content"], "\n") for message in told], []
        prefix = text_of(spec.gen_prefix, row, f"{where}.gen_prefix") if spec.gen_prefix else ""
        if spec.doc_to_turns:
            first, *later = user_turns(spec.doc_to_turns, row, f"{where}.doc_to_turns")
            return turns + question(first, delimiter=spec.target_delimiter, prefix=prefix), later
        text = doc_to_text(spec, row, where) if spec.doc_to_text else ""
        return turns + question(text, delimiter=spec.target_delimiter, prefix=prefix), []

    def _example(self, place: int) -> list[Turn]:
        spec, own = self.spec, self.spec.fewshot_config
        row, where = self.examples[place], f"{self.where} (example {place})"
        text = doc_to_text(spec, row, where, own.doc_to_text)
        if spec.doc_to_choice is not None or own.doc_to_choice is not None:
            choices = doc_to_choice(spec, row, where, own.doc_to_choice)
            target = choices[target_choices(spec, row, choices, where, own.doc_to_target)[0]]
        else:
            target = doc_to_target(spec, row, where, own.doc_to_target)[0]
        source = spec.gen_prefix if own.gen_prefix is None else own.gen_prefix
        return example(
            text,
            target,
            delimiter=spec.target_delimiter if own.target_delimiter is None else own.target_delimiter,
            end=spec.fewshot_delimiter if own.fewshot_delimiter is None else own.fewshot_delimiter,
            prefix=text_of(source, row, f"{where}.gen_prefix") if source else "",
        )


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
    apart = examples is rows
    spare = len(examples) - apart
    if spec.num_fewshot > spare:
        raise SuiteError(f"{where}.num_fewshot: {spec.num_fewshot} examples asked, {spare} rows to draw from")
    count = len(rows)
    if limit is not None:
        count = min(count, max(1, round(limit * len(rows)) if limit < 1 else int(limit)))
    first = spec.fewshot_config.sampler == "first_n"
    try:
        shots = drawn(examples, rows[:count], spec.num_fewshot, seed=seed, first=first, apart=apart)
    except ValueError as error:
        raise SuiteError(
            f"{where}.num_fewshot: {spec.num_fewshot} examples asked, but rows that are the same leave fewer: {error}"
        ) from error
    task = Task(spec, rows, examples, count, seed, where, shots)
    for _ in task.samples():
        pass
    return task


def digest(value: object) -> str:
    """sha256 of a JSON value with sorted keys: lm-eval's `doc_hash`, `prompt_hash`, `target_hash` are of this kind."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()
