"""Which model is enough: limits on quality, latency and memory, the smallest model within all. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway_evals.errors import EvaluationError
from gateway_evals.front import front, overall
from gateway_evals.saved import SavedFigure, SavedResult
from gateway_evals.statistics import Interval, normal_interval, quantile

MOST_FAILED = 0.01
"""Share of samples without an answer beyond which a model is not advised: its score says nothing of them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model must keep to; None: no matter."""

    max_latency_s: float | None = None
    """For the 95th percentile of a sample's latency, in seconds."""
    max_memory_gib: float | None = None
    """For the resident memory of one replica, in GiB."""
    min_score: float | None = None
    sure: bool = False
    """The lower end of the score's 95 % interval must reach `min_score`, not the score alone."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One measured model."""

    model: str
    run: str
    score: float | None
    """None where no sample was answered."""
    score_error: float
    """Standard error."""
    latency_p50_s: float | None
    latency_p95_s: float | None
    memory_gib: float | None
    """None where the gateway does not tell."""
    answered: int
    failed: int
    reasons: tuple[str, ...] = ()
    """Why it does not pass, one a limit."""

    @property
    def passes(self) -> bool:
        return not self.reasons

    @property
    def interval(self) -> Interval | None:
        """Of the score, 95 %."""
        return None if self.score is None else normal_interval(self.score, self.score_error)


@dataclass(frozen=True, slots=True)
class Advice:
    """All candidates, the smallest first, and which of them to take."""

    candidates: tuple[Candidate, ...]
    limits: Limits
    scored_by: str
    """What the score is."""

    @property
    def chosen(self) -> Candidate | None:
        """The smallest that passes; None where none does."""
        return next((each for each in self.candidates if each.passes), None)

    @property
    def fronts(self) -> dict[str, list[str]]:
        """Cost to the models that none beats in it and in quality (Pareto), by cost."""
        found: dict[str, list[str]] = {}
        for cost in ("latency_p95_s", "memory_gib"):
            points = [
                (each.model, x, each.score)
                for each in self.candidates
                if (x := getattr(each, cost)) is not None and each.score is not None
            ]
            found[cost] = [points[place][0] for place in front([(x, y) for _, x, y in points])]
        return found

    def view(self) -> dict[str, Any]:
        """For programs: plain JSON."""
        return {
            "advice": self.chosen.model if self.chosen else None,
            "scored_by": self.scored_by,
            "limits": {
                "max_latency_s": self.limits.max_latency_s,
                "max_memory_gib": self.limits.max_memory_gib,
                "min_score": self.limits.min_score,
                "sure": self.limits.sure,
            },
            "fronts": self.fronts,
            "models": [
                {
                    "model": each.model,
                    "run": each.run,
                    "score": each.score,
                    "score_low": each.interval.low if each.interval else None,
                    "score_high": each.interval.high if each.interval else None,
                    "latency_p50_s": each.latency_p50_s,
                    "latency_p95_s": each.latency_p95_s,
                    "memory_gib": each.memory_gib,
                    "answered": each.answered,
                    "failed": each.failed,
                    "passes": each.passes,
                    "reasons": list(each.reasons),
                }
                for each in self.candidates
            ],
        }


def advise(results: Sequence[SavedResult], limits: Limits, metric: str | None = None) -> Advice:
    """`metric`: `task:metric`, a task's figure that is the score; None: the mean over tasks of each one's first share.

    Raises EvaluationError where a result has no such figure, or the gateway does not tell what a limit needs.
    """
    wanted = None if metric is None else _named(metric)
    found = [_judged(_measured(result, wanted), limits) for result in results]
    if limits.max_memory_gib is not None and all(each.memory_gib is None for each in found):
        raise EvaluationError("this server does not tell what its models hold in memory: leave --max-memory out")
    # Without its memory, what a model costs is the time it takes.
    found.sort(key=lambda each: (each.memory_gib is None, each.memory_gib or 0.0, each.latency_p95_s or 0.0))
    return Advice(tuple(found), limits, metric or "mean over tasks of each one's first share")


def _named(metric: str) -> tuple[str, str, str | None]:
    task, colon, rest = metric.partition(":")
    name, _, chain = rest.partition(",")
    if not colon or not task or not name:
        raise EvaluationError(f"{metric!r} names no figure: write task:metric, such as gsm8k:exact_match")
    return task, name, chain or None


def _measured(result: SavedResult, wanted: tuple[str, str, str | None] | None) -> Candidate:
    latencies = _latencies(result)
    if wanted is None:
        score = overall(result)
        if score is None and any(task.facts.get("answered") for task in result.tasks.values()):
            raise EvaluationError(f"no task of {result.suite} has a share that is better when higher: name a --metric")
        value, error = (score[0], score[1]) if score else (None, 0.0)
    else:
        figure = _figure(result, *wanted)
        value, error = figure.value, figure.stderr or 0.0
    memory = result.memory_bytes
    return Candidate(
        model=result.model,
        run=result.run,
        score=value,
        score_error=error,
        latency_p50_s=quantile(latencies, 0.5),
        latency_p95_s=quantile(latencies, 0.95),
        memory_gib=None if memory is None else memory / 2**30,
        answered=sum(int(task.facts.get("answered") or 0) for task in result.tasks.values()),
        failed=sum(int(task.facts.get("failed") or 0) for task in result.tasks.values()),
    )


def _figure(result: SavedResult, task: str, metric: str, chain: str | None) -> SavedFigure:
    figure = result.task(task).figure(metric, chain)
    if not figure.higher_is_better:
        raise EvaluationError(
            f"{task}:{figure.key} is better when lower: a score is a figure that is better when higher"
        )
    return figure


def _latencies(result: SavedResult) -> list[float]:
    """One a sample, though several filters read it."""
    seen: dict[tuple[str, int], float] = {}
    for task in result.tasks.values():
        for row in task.rows():
            if (told := row["gateway"].get("latency_s")) is not None:
                seen[task.name, row["doc_id"]] = float(told)
    return list(seen.values())


def _judged(each: Candidate, limits: Limits) -> Candidate:
    reasons: list[str] = []
    if limits.min_score is not None:
        value, name = each.score, "the score"
        if limits.sure and each.interval is not None:
            value, name = each.interval.low, "the score's lower bound"
        if value is None:
            reasons.append("no sample was answered")
        elif value < limits.min_score:
            reasons.append(f"{name} is {value:.3f}, below {limits.min_score:g}")
    elif each.score is None:
        reasons.append("no sample was answered")
    if each.failed > MOST_FAILED * (each.failed + each.answered) and each.answered:
        reasons.append(f"{each.failed} of {each.failed + each.answered} samples failed")
    for value, most, name, unit in (
        (each.latency_p95_s, limits.max_latency_s, "p95 latency", "s"),
        (each.memory_gib, limits.max_memory_gib, "memory", "GiB"),
    ):
        if most is None:
            continue
        if value is None:
            reasons.append(f"its {name} is not known")
        elif value > most:
            reasons.append(f"{name} is {value:.2f} {unit}, above {most:g}")
    return replace(each, reasons=tuple(reasons))
