"""A whole run: a suite, some models, a gateway; from checking everything first to files on disk. Knows no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from gateway_evals.client import GatewayClient, ServedModel
from gateway_evals.errors import EvaluationError
from gateway_evals.identity import model_identity, task_digest
from gateway_evals.journal import Journal
from gateway_evals.limits import Limit, bounds
from gateway_evals.manifest import Manifest
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
    limit: Limit | None = None
    concurrency: int = 16
    seed: int = 1234
    timeout_s: float = 120.0
    fail_on_error: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What was changed of the suite's tasks (`overrides`): told in results."""
    cache: Path | None = None
    """Where answers are kept and looked up; None: nowhere."""
    stream: bool = True
    """Texts are streamed, so that the time of the first token is known."""
    resumed: Manifest | None = None
    """The run that is continued."""

    def client(self) -> GatewayClient:
        """One that asks as this plan says."""
        return GatewayClient(
            self.base_url,
            self.api_key,
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            stream=self.stream,
            cache=self.cache,
        )


def prepare(plan: EvaluationPlan, offers: Offers | None = None) -> list[tuple[Task, Judge]]:
    """Tasks with their data, scorers and metrics. Everything that can be wrong without a gateway is found here."""
    first, most = bounds(plan.limit)
    tasks = build_tasks(plan.suite, limit=most, seed=plan.seed)
    for task in tasks:
        if first >= task.count:
            raise EvaluationError(f"{task.where}: --limit {plan.limit} leaves nothing of its {len(task.rows)} rows")
    offers = offers or Offers()
    return [(task, offers.judge(task)) for task in tasks]


def begin(plan: EvaluationPlan, tasks: Sequence[tuple[Task, Judge]], served: Sequence[ServedModel]) -> Manifest:
    """The run's manifest, on disk before anything is asked. Raises EvaluationError where a run that is continued would
    be another one."""
    now = Manifest(
        run=RunFacts(plan.suite, "", None, 1, 0, datetime.now(UTC)).stamp,
        suite=str(plan.suite.path.absolute()) if plan.suite.path != Path() else "",
        models=tuple(model.name for model in served),
        base_url=plan.base_url,
        limit=plan.limit,
        concurrency=plan.concurrency,
        seed=plan.seed,
        timeout_s=plan.timeout_s,
        fail_on_error=plan.fail_on_error,
        settings=plan.settings,
        cache=str(plan.cache) if plan.cache else None,
        stream=plan.stream,
        tasks={task.name: task_digest(task) for task, _ in tasks},
        identities={model.name: model_identity(model.facts) for model in served},
    )
    old = plan.resumed
    if old is not None:
        changed = [f"task {name}: its rows or its settings have changed" for name in {*now.tasks, *old.tasks}
                   if now.tasks.get(name) != old.tasks.get(name)]  # fmt: skip
        changed += [
            f"model {name}: {dict(old.identities.get(name, {}))} then, {dict(now.identities[name])} now"
            for name in now.models
            if now.identities[name] != old.identities.get(name)
        ]
        if changed:
            raise EvaluationError(f"run {old.run} cannot be continued:\n" + "\n".join(sorted(changed)))
        now = replace(now, run=old.run)
    now.write(plan.output)
    return now


async def evaluate_suite(
    plan: EvaluationPlan,
    client: GatewayClient,
    tasks: Sequence[tuple[Task, Judge]],
    add_bar: AddBar | None = None,
    told: Callable[[str], None] | None = None,
) -> tuple[RunFacts, list[ModelResult]]:
    """One model after the other, so that their times can be compared. `told` hears the run's id before the first
    request. Raises EvaluationError."""  # fmt: skip
    served = await choose_models(client, plan.models)
    for _, judge in tasks:
        await make_ready(judge, client)
    manifest = begin(plan, tasks, served)
    if told is not None:
        told(manifest.run)
    facts = RunFacts(
        plan.suite, client.root, plan.limit, plan.concurrency, plan.seed, manifest.started, _asked_otherwise(plan)
    )
    first, _ = bounds(plan.limit)
    total = sum(task.count - first for task, _ in tasks)
    progress = [add_bar(model.name, total) if add_bar else None for model in served]
    results: list[ModelResult] = []
    for model, advance in zip(served, progress, strict=True):
        results.append(await _one_model(plan, facts, manifest, client, model, tasks, advance))
    if not any(task.answered for result in results for task in result.tasks):
        failures = results[0].tasks[0].run.failures
        raise EvaluationError(f"no sample was answered; the first one: {failures[min(failures)]}")
    replace(manifest, finished=True).write(plan.output)
    # Only now: until every model is done, a continued run reads what it has from here.
    for model in served:
        with contextlib.suppress(FileNotFoundError):
            journal_path(plan.output, model.name, facts).unlink()
    return facts, results


def _asked_otherwise(plan: EvaluationPlan) -> dict[str, Any]:
    """What changes questions; where they were found and which were left out does not."""
    return {name: value for name, value in plan.settings.items() if name not in ("tasks", "include_path")}


def journal_path(output: Path, model: str, facts: RunFacts) -> Path:
    return folder_of(output, model) / f"journal_{facts.stamp}.jsonl"


async def make_ready(judge: Judge, client: GatewayClient) -> None:
    """Let a scorer that has a `ready(client)` see the gateway before the first sample; it may refuse the run."""
    ready = cast("Callable[[GatewayClient], Awaitable[None]] | None", getattr(judge.scorer, "ready", None))
    if ready is not None:
        await ready(client)


async def choose_models(client: GatewayClient, names: Sequence[str]) -> list[ServedModel]:
    """An adapter of a served model (`MODEL:NAME@VERSION`) need not be in the list: it may be loaded when it is asked.

    Raises EvaluationError that lists what is served.
    """
    served = await client.models()
    for name in names:
        base = served.get(name.partition(":")[0])
        if name not in served and base is not None:
            served[name] = replace(base, name=name)
    unknown = [name for name in names if name not in served]
    if unknown:
        there = ", ".join(sorted(served)) or "none"
        raise EvaluationError(f"no model {', '.join(map(repr, unknown))} at {client.root}; there are: {there}")
    return [served[name] for name in dict.fromkeys(names)]


async def _one_model(
    plan: EvaluationPlan,
    facts: RunFacts,
    manifest: Manifest,
    client: GatewayClient,
    model: ServedModel,
    tasks: Sequence[tuple[Task, Judge]],
    progress: Progress | None,
) -> ModelResult:
    path = journal_path(plan.output, model.name, facts)
    header = {
        "run": manifest.run,
        "suite": plan.suite.suite,
        "tasks": manifest.tasks,
        "model": model.name,
        "identity": manifest.identities[model.name],
        "seed": plan.seed,
        "limit": plan.limit,
    }
    try:
        journal = Journal(path, header)
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written: {error.strerror}; choose another folder with --output"
        ) from error
    with journal:
        runs = await run_model(
            client,
            model,
            tasks,
            journal,
            concurrency=plan.concurrency,
            seed=plan.seed,
            first=bounds(plan.limit)[0],
            fail_on_error=plan.fail_on_error,
            progress=progress,
        )
        seconds = journal.seconds()
        measured = [measure(run, plan.seed) for run in runs]
        memory = await client.memory_bytes(model)
        return write_results(plan.output, facts, model, measured, seconds, journal, memory)
