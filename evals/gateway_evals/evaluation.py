"""A whole run: a suite, some models, a gateway; from checking everything first to files on disk. Knows no terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gateway_evals.client import GatewayClient, ServedModel
from gateway_evals.errors import EvaluationError
from gateway_evals.journal import Journal
from gateway_evals.measuring import measure
from gateway_evals.offers import Judge, Offers
from gateway_evals.results import ModelResult, RunFacts, folder_of, write_results
from gateway_evals.runner import Progress, run_model
from gateway_evals.suite import Suite
from gateway_evals.task import Task, build_tasks

AddBar = Callable[[str, int], Progress]
"""Called with a model's name and its number of samples; gives what to call after each."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What is to be run, and how."""

    suite: Suite
    models: Sequence[str]
    base_url: str = "http://127.0.0.1:8000"
    api_key: str | None = field(default=None, repr=False)
    output: Path = Path("results")
    limit: float | None = None
    concurrency: int = 16
    seed: int = 1234
    timeout_s: float = 120.0
    fail_on_error: float | None = None


def prepare(plan: EvaluationPlan, offers: Offers | None = None) -> list[tuple[Task, Judge]]:
    """Tasks with their data, scorers and metrics. Everything that can be wrong without a gateway is found here."""
    tasks = build_tasks(plan.suite, limit=plan.limit, seed=plan.seed)
    offers = offers or Offers()
    return [(task, offers.judge(task)) for task in tasks]


async def evaluate_suite(
    plan: EvaluationPlan, client: GatewayClient, tasks: Sequence[tuple[Task, Judge]], add_bar: AddBar | None = None
) -> tuple[RunFacts, list[ModelResult]]:
    """One model after the other, so that their times can be compared. Raises EvaluationError."""
    served = await choose_models(client, plan.models)
    facts = RunFacts(plan.suite, client.root, plan.limit, plan.concurrency, plan.seed, datetime.now(UTC))
    total = sum(task.count for task, _ in tasks)
    progress = [add_bar(model.name, total) if add_bar else None for model in served]
    results: list[ModelResult] = []
    for model, advance in zip(served, progress, strict=True):
        results.append(await _one_model(plan, facts, client, model, tasks, advance))
    if not any(task.answered for result in results for task in result.tasks):
        failures = results[0].tasks[0].run.failures
        raise EvaluationError(f"no sample was answered; the first one: {failures[min(failures)]}")
    return facts, results


async def choose_models(client: GatewayClient, names: Sequence[str]) -> list[ServedModel]:
    """Raises EvaluationError that lists what is served."""
    served = await client.models()
    unknown = [name for name in names if name not in served]
    if unknown:
        there = ", ".join(sorted(served)) or "none"
        raise EvaluationError(f"no model {', '.join(map(repr, unknown))} at {client.root}; there are: {there}")
    return [served[name] for name in dict.fromkeys(names)]


async def _one_model(
    plan: EvaluationPlan,
    facts: RunFacts,
    client: GatewayClient,
    model: ServedModel,
    tasks: Sequence[tuple[Task, Judge]],
    progress: Progress | None,
) -> ModelResult:
    path = folder_of(plan.output, model.name) / f"journal_{facts.stamp}.jsonl"
    try:
        journal = Journal(path)
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written: {error.strerror}; choose another folder with --output"
        ) from error
    with journal:
        started = time.perf_counter()
        runs = await run_model(
            client,
            model,
            tasks,
            journal,
            concurrency=plan.concurrency,
            seed=plan.seed,
            fail_on_error=plan.fail_on_error,
            progress=progress,
        )
        seconds = time.perf_counter() - started
        measured = [measure(run, plan.seed) for run in runs]
        result = write_results(plan.output, facts, model, measured, seconds, journal)
    # All that it held stands in the samples now; the journal of a run that was cut short stays.
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return result
