"""Two results of the same questions, sample by sample. Refuses what cannot be compared. Knows no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gateway_evals.errors import EvaluationError
from gateway_evals.saved import SavedFigure, SavedResult, SavedTask
from gateway_evals.statistics import PairedResult, compare_pairs, holm


@dataclass(frozen=True, slots=True)
class ComparedMetric:
    """One metric of one task, of both."""

    task: str
    metric: str
    filter: str
    higher_is_better: bool
    first: float | None
    """As reported: over all samples that this one answered."""
    second: float | None
    paired: PairedResult | None
    """Over the samples that both answered; None for a metric without a value for each sample."""
    adjusted_p: float | None = None
    """Holm's, over all rows of the comparison."""
    alone: tuple[int, int] = (0, 0)
    """Samples that only the first, and only the second answered: they are in no pair."""

    @property
    def key(self) -> str:
        return f"{self.metric},{self.filter}"

    def verdict(self, alpha: float = 0.05) -> str:
        """Of the second: `better`, `worse`, or `no difference shown`; `not paired` where nothing can be said."""
        if self.paired is None or self.adjusted_p is None:
            return "not paired"
        if self.adjusted_p >= alpha or self.paired.difference == 0:
            return "no difference shown"
        return "better" if (self.paired.difference > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second against the first: differences are second minus first."""

    first: SavedResult
    second: SavedResult
    rows: tuple[ComparedMetric, ...]
    level: float = 0.95

    def row(self, task: str, metric: str, filter: str | None = None) -> ComparedMetric:
        """Raises EvaluationError that lists what there is."""
        for row in self.rows:
            if (row.task, row.metric) == (task, metric) and filter in (None, row.filter):
                return row
        there = ", ".join(f"{row.task}:{row.key}" for row in self.rows) or "none"
        raise EvaluationError(f"no {task}:{metric} in both; there are: {there}")

    def view(self) -> dict[str, Any]:
        """For programs: plain JSON."""
        return {
            "first": _side(self.first),
            "second": _side(self.second),
            "level": self.level,
            "rows": [{**asdict(row), "verdict": row.verdict(1 - self.level)} for row in self.rows],
        }


def compare(first: SavedResult, second: SavedResult, *, seed: int = 1234, level: float = 0.95) -> Comparison:
    """Pair samples by row, metric by metric. Raises EvaluationError where the two were not asked the same."""
    problems = list(differences(first, second))
    if problems:
        raise EvaluationError(
            f"{first.model} ({first.run}) and {second.model} ({second.run}) were not asked the same:\n"
            + "\n".join(problems)
        )
    rows: list[ComparedMetric] = []
    for name, task in first.tasks.items():
        rows += _rows(task, second.tasks[name], seed, level)
    tested = [place for place, row in enumerate(rows) if row.paired is not None and row.paired.p_value is not None]
    adjusted = holm([row.paired.p_value for row in rows if row.paired is not None and row.paired.p_value is not None])
    for place, value in zip(tested, adjusted, strict=True):
        rows[place] = replace(rows[place], adjusted_p=value)
    return Comparison(first, second, tuple(rows), level)


def differences(first: SavedResult, second: SavedResult) -> Iterator[str]:
    """What keeps two results from being compared, a line each."""
    if first.suite != second.suite:
        yield f"suite: {first.suite!r} and {second.suite!r}"
    if first.seed != second.seed:
        yield f"seed: {first.seed} and {second.seed}"
    if first.limit != second.limit:
        yield f"limit: {_told(first.limit)} and {_told(second.limit)}"
    for key in sorted({*first.settings, *second.settings}):
        ours, theirs = first.settings.get(key), second.settings.get(key)
        if ours != theirs:
            yield f"{key}: {_told(ours)} and {_told(theirs)}"
    for name in dict.fromkeys((*first.tasks, *second.tasks)):
        ours, theirs = first.tasks.get(name), second.tasks.get(name)
        if ours is None or theirs is None:
            yield f"task {name}: only in {(first if theirs is None else second).run}"
        elif ours.version != theirs.version:
            yield f"task {name}: versions {ours.version} and {theirs.version}"
        elif ours.shots != theirs.shots:
            yield f"task {name}: {ours.shots} and {theirs.shots} few-shot examples"
        elif ours.facts.get("digest") != theirs.facts.get("digest"):
            yield f"task {name}: its rows or its settings have changed between the two runs"


def _told(value: object) -> str:
    return "none" if value is None else str(value)


def _side(result: SavedResult) -> dict[str, Any]:
    return {"run": result.run, "model": result.model, "path": str(result.path), "facts": dict(result.facts)}


def _rows(first: SavedTask, second: SavedTask, seed: int, level: float) -> Iterator[ComparedMetric]:
    ours, theirs = _values(first), _values(second)
    groups = first.groups()
    for figure in first.figures:
        other = next((each for each in second.figures if each.key == figure.key), None)
        if other is None:
            continue
        pair = (ours.get(figure.key, {}), theirs.get(figure.key, {}))
        yield _row(first.name, figure, other, pair, groups, seed, level)


def _values(task: SavedTask) -> dict[str, dict[int, float]]:
    """`metric,filter` to row to value; the file is read once."""
    found: dict[str, dict[int, float]] = {}
    for row in task.rows():
        for metric in row.get("metrics", ()):
            found.setdefault(f"{metric},{row['filter']}", {})[row["doc_id"]] = float(row[metric])
    return found


def _row(
    task: str,
    figure: SavedFigure,
    other: SavedFigure,
    pair: tuple[Mapping[int, float], Mapping[int, float]],
    groups: Mapping[int, str],
    seed: int,
    level: float,
) -> ComparedMetric:
    ours, theirs = pair
    both = sorted(ours.keys() & theirs.keys())
    paired = None
    if both:
        # A row that names no source is one of its own.
        sources = [groups.get(doc_id) or f"row {doc_id}" for doc_id in both] if groups else None
        paired = compare_pairs(
            [ours[place] for place in both], [theirs[place] for place in both], sources, seed=seed, level=level
        )
    return ComparedMetric(
        task=task,
        metric=figure.metric,
        filter=figure.filter,
        higher_is_better=figure.higher_is_better,
        first=figure.value,
        second=other.value,
        paired=paired,
        alone=(len(ours.keys() - theirs.keys()), len(theirs.keys() - ours.keys())),
    )
