"""A finished run on disk, in lm-eval's layout and keys: DIR/MODEL/results_TIME.json and samples_TASK_TIME.jsonl."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway_evals.client import ServedModel
from gateway_evals.groups import grouped
from gateway_evals.identity import task_digest
from gateway_evals.journal import Journal, dump
from gateway_evals.limits import Limit
from gateway_evals.measuring import TaskResult
from gateway_evals.samples import failed_entry
from gateway_evals.statistics import quantile
from gateway_evals.suite import Suite


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run was: enough to do it again."""

    suite: Suite
    base_url: str
    limit: Limit | None
    concurrency: int
    seed: int
    started: datetime
    """With a time zone."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What a command line changed of the suite's tasks."""

    @property
    def stamp(self) -> str:
        """The part of file names that tells runs apart, as lm-eval writes it."""
        return self.started.replace(tzinfo=None).isoformat().replace(":", "-")


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model's part of a run."""

    model: ServedModel
    tasks: Sequence[TaskResult]
    seconds: float
    files: tuple[Path, ...] = ()
    """The results file first, then one of samples for each task."""
    memory_bytes: int | None = None
    """Of one replica, right after the run; None where the gateway does not tell."""


def folder_of(output: Path, model: str) -> Path:
    return output / re.sub(r"[^A-Za-z0-9._-]+", "__", model)


def write_results(
    output: Path,
    facts: RunFacts,
    model: ServedModel,
    tasks: Sequence[TaskResult],
    seconds: float,
    journal: Journal,
    memory_bytes: int | None = None,
) -> ModelResult:
    """Write both kinds of file, whole or not at all."""
    folder = folder_of(output, model.name)
    results = folder / f"results_{facts.stamp}.json"
    samples = [folder / f"samples_{task.run.task.name}_{facts.stamp}.jsonl" for task in tasks]
    for path, task in zip(samples, tasks, strict=True):
        _write(path, (dump(row) + "\n" for row in _sample_rows(task, journal)))
    result = ModelResult(model, tasks, seconds, (results, *samples), memory_bytes)
    _write(results, [dump(results_body(facts, result)) + "\n"])
    return result


def results_body(facts: RunFacts, result: ModelResult) -> dict[str, Any]:
    """lm-eval's keys; what is ours stands under `gateway`."""
    specs = {task.run.task.name: task.run.task.spec for task in result.tasks}
    name = result.model.name
    groups = grouped(facts.suite, result.tasks)
    return {
        "results": {task.run.task.name: _figures(task) for task in result.tasks},
        **({"groups": {facts.suite.suite: {"alias": facts.suite.suite, **groups}}} if groups else {}),
        "group_subtasks": {task: [] for task in specs} | ({facts.suite.suite: list(specs)} if groups else {}),
        "configs": {task: spec.model_dump(mode="json", exclude_defaults=True) for task, spec in specs.items()},
        "versions": {task: spec.metadata.version for task, spec in specs.items()},
        "n-shot": {task: spec.num_fewshot for task, spec in specs.items()},
        "higher_is_better": {
            task.run.task.name: {figure.metric: figure.higher_is_better for figure in task.figures}
            for task in result.tasks
        },
        "n-samples": {
            task.run.task.name: {"original": len(task.run.task.rows), "effective": task.answered}
            for task in result.tasks
        },
        "config": {
            "model": "model-gateway",
            "model_args": {"base_url": facts.base_url, "model": name},
            "limit": facts.limit,
            "random_seed": facts.seed,
            "fewshot_seed": facts.seed,
        },
        "date": facts.started.timestamp(),
        "model_source": "model-gateway",
        "model_name": name,
        "model_name_sanitized": folder_of(Path(), name).name,
        "total_evaluation_time_seconds": str(round(result.seconds, 3)),
        "gateway": {
            "version": __version__,
            "suite": facts.suite.suite,
            "run": facts.stamp,
            "settings": dict(facts.settings),
            "url": result.model.url,
            "concurrency": facts.concurrency,
            "model": dict(result.model.facts),
            "memory_bytes": result.memory_bytes,
            "tasks": {task.run.task.name: _facts(task) for task in result.tasks},
        },
    }


def _figures(task: TaskResult) -> dict[str, Any]:
    found: dict[str, Any] = {"alias": task.run.task.spec.shown}
    for figure in task.figures:
        found[figure.key] = figure.value if figure.value is not None else "N/A"
        found[figure.stderr_key] = figure.stderr if figure.stderr is not None else "N/A"
    return found


def _facts(task: TaskResult) -> dict[str, Any]:
    failures = task.run.failures
    run = task.run
    return {
        "digest": task_digest(run.task),
        "asked": run.asked,
        "answered": task.answered,
        "failed": task.failed,
        "first_failure": failures[min(failures)] if failures else None,
        "no_answer": dict(task.unanswered),
        "cached": run.cached,
        "latency_p50_s": _quantile(run.latencies_s, 0.5),
        "latency_p95_s": _quantile(run.latencies_s, 0.95),
        "ttft_p50_s": _quantile(run.ttfts_s, 0.5),
        "ttft_p95_s": _quantile(run.ttfts_s, 0.95),
        "overhead_p50_ms": _quantile(run.overheads_ms, 0.5),
        "prompt_tokens": run.prompt_tokens,
        "completion_tokens": run.completion_tokens,
    }


def _quantile(values: Sequence[float], share: float) -> float | None:
    found = quantile(values, share)
    return None if found is None else round(found, 6)


def _sample_rows(task: TaskResult, journal: Journal) -> Iterator[Mapping[str, Any]]:
    for entry in journal.in_order(task.run.task.name):
        if "error" in entry:
            yield failed_entry(task.run.task.sample(entry["doc_id"]), entry["error"])
        for row in entry["rows"]:
            values = task.each[row["filter"]][entry["doc_id"]]
            yield {**row, "metrics": list(values), **values}


def program_view(facts: RunFacts, results: Sequence[ModelResult]) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "run": facts.stamp,
        "suite": facts.suite.suite,
        "seed": facts.seed,
        "limit": facts.limit,
        "models": {
            result.model.name: {
                "results": {task.run.task.name: _figures(task) for task in result.tasks},
                "tasks": {task.run.task.name: _facts(task) for task in result.tasks},
                "figures": [
                    {"task": task.run.task.name, **asdict(figure)} for task in result.tasks for figure in task.figures
                ],
                "seconds": round(result.seconds, 3),
                "memory_bytes": result.memory_bytes,
                "files": [str(path) for path in result.files],
            }
            for result in results
        },
    }


def _write(path: Path, parts: Iterator[str] | list[str]) -> None:
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
