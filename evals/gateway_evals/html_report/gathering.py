"""What a report shows, out of finished runs: figures with intervals, times, tokens, memory, differences. No HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, cast

from gateway_evals.compare import Comparison, compare
from gateway_evals.errors import EvaluationError
from gateway_evals.front import overall
from gateway_evals.html_report.embedding import Samples
from gateway_evals.saved import SavedFigure, SavedResult, SavedTask
from gateway_evals.statistics import interval_of_mean, normal_interval, quantile

_MOST_PAIRS = 6


@dataclass(frozen=True, slots=True)
class Cell:
    """One model's figure."""

    model: str
    value: float | None
    low: float | None
    high: float | None
    method: str
    answered: int
    no_answer: int
    failed: int


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One metric of one task over all models."""

    task: str
    title: str
    metric: str
    higher_is_better: bool
    cells: tuple[Cell, ...]

    @property
    def domain(self) -> tuple[float, float]:
        """What the intervals are drawn on: 0 to 1 where all of them fit."""
        ends = [end for cell in self.cells for end in (cell.low, cell.high, cell.value) if end is not None]
        if not ends or (min(ends) >= 0 and max(ends) <= 1):
            return 0.0, 1.0
        return min(0.0, *ends), max(ends)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model gave, and what for."""

    name: str
    result: SavedResult
    score: float | None
    score_error: float
    tasks: int
    latency_p50_s: float | None
    latency_p95_s: float | None
    first_token_p50_s: float | None
    prompt_tokens: float | None
    """A sample, on average."""
    completion_tokens: float | None
    tokens_per_s: float | None
    """Generated, over the run's whole time, with all its samples in flight."""
    samples_per_s: float | None
    memory_gib: float | None

    @property
    def engine(self) -> str:
        facts = self.result.facts
        return ", ".join(str(facts[key]) for key in ("backend", "dtype") if facts.get(key))


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything on the page."""

    title: str
    models: tuple[ModelFacts, ...]
    rows: tuple[FigureRow, ...]
    comparisons: tuple[Comparison, ...]
    not_compared: tuple[str, ...]
    """Why a pair could not be compared."""
    samples: Samples
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _Spent:
    """Sums over one model's samples."""

    latencies: list[float] = field(default_factory=list[float])
    first_tokens: list[float] = field(default_factory=list[float])
    prompt_tokens: int = 0
    completion_tokens: int = 0
    asked: int = 0

    def add(self, told: Mapping[str, Any]) -> None:
        self.asked += 1
        if (latency := told.get("latency_s")) is not None:
            self.latencies.append(float(latency))
        if (first := told.get("ttft_s")) is not None:
            self.first_tokens.append(float(first))
        self.prompt_tokens += int(told.get("prompt_tokens") or 0)
        self.completion_tokens += int(told.get("completion_tokens") or 0)


def gather(results: Sequence[SavedResult], *, seed: int = 1234) -> ReportData:
    """Raises EvaluationError where a file cannot be read."""
    names = _names(results)
    samples = Samples(names)
    models: list[ModelFacts] = []
    cells: dict[tuple[str, str], list[Cell]] = {}
    problems: list[str] = []
    for place, (name, result) in enumerate(zip(names, results, strict=True)):
        spent = _Spent()
        for task in result.tasks.values():
            if task.samples is None:
                problems.append(f"the samples of {task.name} ({name}) are not beside its results")
            values, groups = _read(task, place, samples, spent)
            for figure in task.figures:
                cell = _cell(name, task, figure, values.get(figure.key, {}), groups, seed)
                cells.setdefault((task.name, figure.key), []).append(cell)
        models.append(_facts(name, result, spent))
    comparisons, not_compared = _compared(results, seed)
    return ReportData(
        title=", ".join(dict.fromkeys(result.suite for result in results if result.suite)) or "evaluation",
        models=tuple(models),
        rows=tuple(_rows(results, cells)),
        comparisons=tuple(comparisons),
        not_compared=tuple(not_compared),
        samples=samples,
        problems=tuple(problems),
    )


def _names(results: Sequence[SavedResult]) -> list[str]:
    """A model that stands twice is told apart by its run."""
    plain = [result.model for result in results]
    return [
        result.model if plain.count(result.model) == 1 else f"{result.model} ({result.run[:19]})" for result in results
    ]


def _read(
    task: SavedTask, place: int, samples: Samples, spent: _Spent
) -> tuple[dict[str, dict[int, float]], dict[int, str]]:
    """`metric,filter` to row to value, and each row's source; the file is read once."""
    values: dict[str, dict[int, float]] = {}
    groups: dict[int, str] = {}
    seen = -1
    for row in task.rows() if task.samples is not None else ():
        doc_id: int = row["doc_id"]
        if doc_id != seen:
            spent.add(row["gateway"])
            seen = doc_id
        if source := row["gateway"].get("cluster"):
            groups[doc_id] = str(source)
        for metric in row.get("metrics", ()):
            values.setdefault(f"{metric},{row['filter']}", {})[doc_id] = float(row[metric])
        samples.add(task, place, row)
    return values, groups


def _cell(
    name: str, task: SavedTask, figure: SavedFigure, values: Mapping[int, float], groups: Mapping[int, str], seed: int
) -> Cell:
    interval = None
    if values:
        sources = [groups.get(doc_id) or f"row {doc_id}" for doc_id in values] if groups else None
        interval = interval_of_mean(list(values.values()), sources, seed=seed)
    low, high, method = (interval.low, interval.high, interval.method) if interval else (None, None, "")
    if interval is None and figure.value is not None and figure.stderr is not None:
        # The standard error of what only the whole has comes by bootstrap.
        around = normal_interval(figure.value, figure.stderr)
        low, high, method = around.low, around.high, "bootstrap"
        if 0 <= figure.value <= 1 and task.facts.get("no_answer") is not None and figure.higher_is_better:
            low, high = max(0.0, low), min(1.0, high)
    return Cell(
        model=name,
        value=figure.value,
        low=low,
        high=high,
        method=method,
        answered=int(task.facts.get("answered") or len(values)),
        no_answer=int(cast("dict[str, int]", task.facts.get("no_answer") or {}).get(figure.filter, 0)),
        failed=int(task.facts.get("failed") or 0),
    )


def _rows(results: Sequence[SavedResult], cells: Mapping[tuple[str, str], list[Cell]]) -> Iterator[FigureRow]:
    seen: set[tuple[str, str]] = set()
    for result in results:
        for task in result.tasks.values():
            for figure in task.figures:
                key = (task.name, figure.key)
                if key in seen:
                    continue
                seen.add(key)
                metric = figure.metric if figure.filter == "none" else f"{figure.metric} ({figure.filter})"
                yield FigureRow(task.name, task.alias, metric, figure.higher_is_better, tuple(cells[key]))


def _facts(name: str, result: SavedResult, spent: _Spent) -> ModelFacts:
    score = overall(result)
    latencies, first = spent.latencies, spent.first_tokens
    count = len(latencies)
    memory = result.memory_bytes
    # What came from the cache took no time of this run's: rates would tell of the disk.
    cached = any(task.facts.get("cached") for task in result.tasks.values())
    seconds = None if cached else result.seconds
    return ModelFacts(
        name=name,
        result=result,
        score=score[0] if score else None,
        score_error=score[1] if score else 0.0,
        tasks=score[2] if score else 0,
        latency_p50_s=quantile(latencies, 0.5),
        latency_p95_s=quantile(latencies, 0.95),
        first_token_p50_s=quantile(first, 0.5),
        prompt_tokens=spent.prompt_tokens / count if count else None,
        completion_tokens=spent.completion_tokens / count if count else None,
        tokens_per_s=spent.completion_tokens / seconds if seconds else None,
        samples_per_s=count / seconds if seconds else None,
        memory_gib=float(memory) / 2**30 if memory else None,
    )


def _compared(results: Sequence[SavedResult], seed: int) -> tuple[list[Comparison], list[str]]:
    """All pairs of a few, else all others against the first."""
    pairs = list(combinations(results, 2))
    if len(pairs) > _MOST_PAIRS:
        pairs = [(results[0], other) for other in results[1:]]
    found: list[Comparison] = []
    problems: list[str] = []
    for first, second in pairs:
        try:
            found.append(compare(first, second, seed=seed))
        except EvaluationError as error:
            problems.append(error.message)
    return found, problems
