"""Runs tasks against one model: so many samples at a time, in a fixed order, each journalled when it is done.

One failed sample never ends a run; it is counted. Knows no table and no terminal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway_evals.asking import Output, ask
from gateway_evals.client import GatewayClient, ServedModel
from gateway_evals.errors import EvaluationError, SampleFailed
from gateway_evals.journal import Journal
from gateway_evals.offers import Judge
from gateway_evals.samples import sample_entry
from gateway_evals.scorers import Score
from gateway_evals.task import Sample, Task


@dataclass(slots=True)
class TaskRun:
    """What is kept of one task while it runs: scores by row, not texts."""

    task: Task
    judge: Judge
    scores: dict[int, list[Score]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    completion_tokens: int = 0

    def by_filter(self) -> dict[str, list[tuple[int, Score]]]:
        """Filter name to (row, score), rows in order."""
        found: dict[str, list[tuple[int, Score]]] = {}
        for doc_id in sorted(self.scores):
            for score in self.scores[doc_id]:
                found.setdefault(score.filter, []).append((doc_id, score))
        return found


Progress = Callable[[bool], None]
"""Told of each finished sample whether it was answered."""


async def run_model(
    client: GatewayClient,
    model: ServedModel,
    tasks: Sequence[tuple[Task, Judge]],
    journal: Journal,
    *,
    concurrency: int,
    seed: int,
    fail_on_error: float | None = None,
    progress: Progress | None = None,
) -> list[TaskRun]:
    """Ask every sample of every task. `fail_on_error`: share of failed samples beyond which the run is given up.

    Raises EvaluationError where going on is useless.
    """
    runs = [TaskRun(task, judge) for task, judge in tasks]
    total = sum(run.task.count for run in runs)
    queue = ((run, sample) for run in runs for sample in run.task.samples())
    most = None if fail_on_error is None else fail_on_error * total

    async def work(queue: Iterator[tuple[TaskRun, Sample]]) -> None:
        for run, sample in queue:
            answered = await _one(client, model, run, sample, seed, journal)
            if progress is not None:
                progress(answered)
            failed = sum(len(each.failures) for each in runs)
            if most is not None and failed > most:
                raise EvaluationError(
                    f"{failed} of {total} samples of {model.name} failed, more than --fail-on-error {fail_on_error} "
                    f"allows; the last one: {run.failures.get(sample.doc_id, '')}; what is done is in {journal.path}"
                )

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, total)):
                group.create_task(work(queue))
    except* EvaluationError as errors:
        first = errors.exceptions[0]
        raise (first if isinstance(first, EvaluationError) else EvaluationError(str(first))) from None
    return runs


async def _one(
    client: GatewayClient, model: ServedModel, run: TaskRun, sample: Sample, seed: int, journal: Journal
) -> bool:
    spec = run.task.spec
    try:
        output: Output = await ask(client, model, spec, sample, seed)
    except SampleFailed as error:
        run.failures[sample.doc_id] = error.message
        journal.write(spec.task, sample.doc_id, {"rows": [], "error": error.message})
        return False
    scores = await run.judge.scorer(sample, output)
    run.scores[sample.doc_id] = scores
    run.latencies_s.append(output.latency_s)
    run.completion_tokens += output.completion_tokens
    entry: Mapping[str, Any] = {"rows": [sample_entry(spec, sample, output, score) for score in scores]}
    journal.write(spec.task, sample.doc_id, entry)
    return True
