"""Finished runs, read from disk: figures, and samples by row. What reports, comparisons, gates and other plugins read.

A run is all results with one stamp (its id) below a folder; each model's part is a SavedResult. Samples are read when
they are asked for, one at a time. Knows no HTTP and no terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from gateway_evals.errors import EvaluationError


@dataclass(frozen=True, slots=True)
class SavedFigure:
    """One number of one task."""

    metric: str
    filter: str
    value: float | None
    """None where no sample was answered."""
    stderr: float | None
    higher_is_better: bool = True

    @property
    def key(self) -> str:
        """lm-eval's: `acc,none`."""
        return f"{self.metric},{self.filter}"


@dataclass(frozen=True, slots=True)
class SavedTask:
    """One task of one model's run."""

    name: str
    alias: str
    version: str
    shots: int
    figures: tuple[SavedFigure, ...]
    facts: Mapping[str, Any]
    """`asked`, `answered`, `failed`, `no_answer`, `digest`, times and tokens."""
    samples: Path | None
    """Its samples file; None where there is none."""

    def figure(self, metric: str, filter: str | None = None) -> SavedFigure:
        """Of a metric; without a filter the first that has it. Raises EvaluationError that lists what there is."""
        for figure in self.figures:
            if figure.metric == metric and filter in (None, figure.filter):
                return figure
        there = ", ".join(figure.key for figure in self.figures) or "none"
        wanted = metric if filter is None else f"{metric},{filter}"
        raise EvaluationError(f"task {self.name} has no metric {wanted!r}; there are: {there}")

    def rows(self) -> Iterator[dict[str, Any]]:
        """Lines of the samples file, in order: one for each row and filter. Raises EvaluationError."""
        if self.samples is None:
            raise EvaluationError(f"the samples of {self.name} are not beside its results: samples_{self.name}_*.jsonl")
        try:
            with self.samples.open(encoding="utf-8") as file:
                for line in file:
                    yield json.loads(line)
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{self.samples} cannot be read: {error}") from error

    def values(self, metric: str, filter: str = "none") -> dict[int, float]:
        """doc_id to the metric's value; empty for a metric that knows only the whole."""
        return {
            row["doc_id"]: float(row[metric])
            for row in self.rows()
            if row["filter"] == filter and metric in row.get("metrics", ())
        }

    def groups(self) -> dict[int, str]:
        """doc_id to the source that the row shares with others; empty where the task names none."""
        return {
            row["doc_id"]: str(row["gateway"]["cluster"]) for row in self.rows() if row["gateway"].get("cluster", "")
        }


@dataclass(frozen=True, slots=True)
class SavedResult:
    """One model's part of a run."""

    path: Path
    run: str
    """The run's id."""
    suite: str
    model: str
    facts: Mapping[str, Any]
    """What the gateway said of the model: backend, dtype, digest, …"""
    seed: int | None
    limit: float | str | None
    settings: Mapping[str, Any]
    """What else decides what was asked: system instruction, chat template, generation settings."""
    seconds: float
    tasks: Mapping[str, SavedTask]
    body: Mapping[str, Any] = field(repr=False)
    """The whole results file."""

    @property
    def memory_bytes(self) -> int | None:
        """Of one replica, right after the run; None where the gateway did not tell."""
        own = cast("dict[str, Any]", self.body.get("gateway") or {})
        return own.get("memory_bytes")

    def task(self, name: str) -> SavedTask:
        """Raises EvaluationError that lists what there is."""
        if name not in self.tasks:
            raise EvaluationError(f"{self.path} has no task {name!r}; there are: {', '.join(self.tasks) or 'none'}")
        return self.tasks[name]


def read_results(path: Path) -> SavedResult:
    """One results_*.json. Raises EvaluationError where it cannot be read or is something else."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return _result(path, body)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"{path} holds no results of an evaluation ({type(error).__name__}: {error})") from error


def _result(path: Path, body: dict[str, Any]) -> SavedResult:
    stamp = stamp_of(path)
    own = cast("dict[str, Any]", body.get("gateway") or {})
    config = cast("dict[str, Any]", body.get("config") or {})
    higher = cast("dict[str, dict[str, bool]]", body.get("higher_is_better") or {})
    tasks: dict[str, SavedTask] = {}
    for name, found in cast("dict[str, dict[str, Any]]", body["results"]).items():
        samples = path.with_name(f"samples_{name}_{stamp}.jsonl")
        tasks[name] = SavedTask(
            name=name,
            alias=str(found.get("alias", name)),
            version=str(body["versions"].get(name, "")),
            shots=int(body["n-shot"].get(name, 0)),
            figures=tuple(_figures(found, higher.get(name, {}))),
            facts=cast("dict[str, Any]", own.get("tasks", {})).get(name, {}),
            samples=samples if samples.is_file() else None,
        )
    return SavedResult(
        path=path,
        run=stamp,
        suite=str(own.get("suite", "")),
        model=str(body["model_name"]),
        facts=own.get("model", {}),
        seed=config.get("random_seed"),
        limit=config.get("limit"),
        settings=own.get("settings", {}),
        seconds=float(body.get("total_evaluation_time_seconds") or 0),
        tasks=tasks,
        body=body,
    )


def _figures(found: Mapping[str, Any], higher: Mapping[str, bool]) -> Iterator[SavedFigure]:
    for key, value in found.items():
        metric, comma, chain = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        stderr = found.get(f"{metric}_stderr,{chain}")
        yield SavedFigure(
            metric=metric,
            filter=chain,
            value=float(value) if isinstance(value, int | float) else None,
            stderr=float(stderr) if isinstance(stderr, int | float) else None,
            higher_is_better=bool(higher.get(metric, True)),
        )


def stamp_of(path: Path) -> str:
    """The run's id in the name of one of its files."""
    return path.name.removeprefix("results_").removesuffix(".json")


def runs_in(root: Path) -> dict[str, list[Path]]:
    """Run id to its models' results files; the newest run first."""
    found: dict[str, list[Path]] = {}
    for path in root.rglob("results_*.json"):
        found.setdefault(stamp_of(path), []).append(path)
    return {stamp: sorted(found[stamp]) for stamp in sorted(found, reverse=True)}


def find_run(reference: str, root: Path) -> list[SavedResult]:
    """The results of a run: by id (or the beginning of one, or `last`), by folder (its newest run), or by file.

    Raises EvaluationError that says what there is.
    """
    path = Path(reference)
    if path.is_file():
        return [read_results(path)]
    if path.is_dir():
        root, reference = path, "last"
    stamps = runs_in(root)
    if reference == "last" and stamps:
        reference = next(iter(stamps))
    matching = [stamp for stamp in stamps if stamp.startswith(reference)] if reference else []
    if len(matching) != 1:
        newest = ", ".join(list(stamps)[:5]) or "none"
        problem = "several runs begin with" if matching else "no file, folder or run"
        raise EvaluationError(f"{problem} {reference!r} in {root}; the newest are: {newest}")
    return [read_results(file) for file in stamps[matching[0]]]


def find_result(reference: str, root: Path, within: str | None = None) -> SavedResult:
    """One model's results: RUN where it has one model, RUN:MODEL, a file, a folder, or MODEL of the run `within` (by
    default the newest that has it). Raises EvaluationError that says what there is."""
    name, colon, model = reference.rpartition(":")
    if colon and not Path(reference).exists() and (Path(name).exists() or name == "last" or _begins(name, root)):
        return _of_model(find_run(name, root), model)
    if not Path(reference).exists() and reference != "last" and not _begins(reference, root):
        places = [within] if within else list(runs_in(root))
        for place in places:
            for result in find_run(place, root):
                if result.model == reference:
                    return result
        known = ", ".join(list(runs_in(root))[:5]) or "none"
        raise EvaluationError(
            f"no file, no run and no model {reference!r} in {within or root}; the newest runs are: {known}"
        )
    return _of_model(find_run(reference, root), None)


def _of_model(results: list[SavedResult], model: str | None) -> SavedResult:
    chosen = [result for result in results if model in (None, result.model)]
    if len(chosen) != 1:
        names = ", ".join(result.model for result in results)
        raise EvaluationError(f"run {results[0].run}: say which model as RUN:MODEL; there are: {names}")
    return chosen[0]


def _begins(reference: str, root: Path) -> bool:
    return bool(reference) and any(stamp.startswith(reference) for stamp in runs_in(root))
