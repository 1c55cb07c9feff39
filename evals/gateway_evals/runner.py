"""Runs tasks against one model: so many samples at a time, in a fixed order, each journalled when it is done.

One failed sample never ends a run; it is counted. What the journal holds already is not asked again. Knows no table and
no terminal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
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
    """What is kept of one task: scores by row, not texts. Filled from the journal, so that a run that was continued and
    one that was not are measured alike."""

    task: Task
    judge: Judge
    first: int = 0
    """The first row that is asked."""
    scores: dict[int, list[Score]] = field(default_factory=dict[int, "list[Score]"])
    failures: dict[int, str] = field(default_factory=dict[int, str])
    groups: dict[int, str] = field(default_factory=dict[int, str])
    """Row to the source that it shares with others, where the task names one."""
    latencies_s: list[float] = field(default_factory=list[float])
    ttfts_s: list[float] = field(default_factory=list[float])
    overheads_ms: list[float] = field(default_factory=list[float])
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: int = 0
    """Samples that were answered from the cache."""

    @property
    def asked(self) -> int:
        return max(0, self.task.count - self.first)

    def samples(self, leave_out: set[int]) -> Iterator[Sample]:
        for doc_id in range(self.first, self.task.count):
            if doc_id not in leave_out:
                yield self.task.sample(doc_id)

    def by_filter(self) -> dict[str, list[tuple[int, Score]]]:
        """Filter name to (row, score), rows in order."""
        found: dict[str, list[tuple[int, Score]]] = {}
        for doc_id in sorted(self.scores):
            for score in self.scores[doc_id]:
                found.setdefault(score.filter, []).append((doc_id, score))
        return found

    def read(self, journal: Journal) -> None:
        """Everything from the journal."""
        for entry in journal.in_order(self.task.name):
            if "error" in entry:
                self.failures[entry["doc_id"]] = entry["error"]
                continue
            self.scores[entry["doc_id"]] = [Score(**score) for score in entry["scores"]]
            if group := entry["rows"][0]["gateway"].get("cluster"):
                self.groups[entry["doc_id"]] = group
            cost = entry["cost"]
            self.latencies_s.append(cost["latency_s"])
            self.prompt_tokens += cost["prompt_tokens"]
            self.completion_tokens += cost["completion_tokens"]
            self.cached += cost["cached"]
            for times, name in ((self.ttfts_s, "ttft_s"), (self.overheads_ms, "overhead_ms")):
                if cost[name] is not None:
                    times.append(cost[name])


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
    first: int = 0,
    fail_on_error: float | None = None,
    progress: Progress | None = None,
) -> list[TaskRun]:
    """Ask every sample of every task. `first`: the row of each task to begin with. `fail_on_error`: share of failed
    samples beyond which the run is given up. Raises EvaluationError where going on is useless."""
    runs = [TaskRun(task, judge, min(first, task.count)) for task, judge in tasks]
    total = sum(run.asked for run in runs)
    most = None if fail_on_error is None else fail_on_error * total
    done = {run.task.name: journal.answered(run.task.name) for run in runs}
    queue = ((run, sample) for run in runs for sample in run.samples(done[run.task.name]))
    if progress is not None:
        for _ in range(sum(map(len, done.values()))):
            progress(True)
    failed = 0

    async def work(queue: Iterator[tuple[TaskRun, Sample]]) -> None:
        nonlocal failed
        for run, sample in queue:
            problem = await _one(client, model, run, sample, seed, journal)
            failed += problem is not None
            if progress is not None:
                progress(problem is None)
            if most is not None and failed > most:
                raise EvaluationError(
                    f"{failed} of {total} samples of {model.name} failed, more than --fail-on-error {fail_on_error} "
                    f"allows; the last one: {problem or 'answered'}; what is done is in {journal.path}"
                )

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, total)):
                group.create_task(work(queue))
    except* EvaluationError as errors:
        error = errors.exceptions[0]
        raise (error if isinstance(error, EvaluationError) else EvaluationError(str(error))) from None
    for run in runs:
        run.read(journal)
    return runs


async def _one(
    client: GatewayClient, model: ServedModel, run: TaskRun, sample: Sample, seed: int, journal: Journal
) -> str | None:
    """What went wrong, or None."""
    spec = run.task.spec
    try:
        output = await ask(client, model, spec, sample, seed)
        scores = await run.judge.scorer(sample, output)
    except SampleFailed as error:
        journal.write(spec.task, sample.doc_id, {"rows": [], "error": error.message})
        return error.message
    journal.write(
        spec.task,
        sample.doc_id,
        {
            "rows": [sample_entry(spec, sample, output, score) for score in scores],
            "scores": [asdict(score) for score in scores],
            "cost": _cost(output),
        },
    )
    return None


def _cost(output: Output) -> dict[str, Any]:
    return {
        "latency_s": round(output.latency_s, 6),
        "ttft_s": None if output.ttft_s is None else round(output.ttft_s, 6),
        "overhead_ms": output.overhead_ms,
        "prompt_tokens": output.prompt_tokens,
        "completion_tokens": output.completion_tokens,
        "cached": output.cached,
    }
