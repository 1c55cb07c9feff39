"""What a run must reach: `task:metric>=0.3`, and not being worse than a baseline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from gateway_evals.compare import compare
from gateway_evals.errors import EvaluationError
from gateway_evals.saved import SavedResult, SavedTask
from gateway_evals.statistics import Interval, interval_of_mean, normal_interval

Bound = Literal["value", "lower", "upper"]
_GATE = re.compile(
    r"(?P<task>[^:\s]+):(?:(?P<bound>lower|upper)\((?P<inner>[^()]+)\)|(?P<plain>[^()<>=]+))\s*"
    r"(?P<sign>>=|<=|>|<)\s*(?P<limit>[-+.\deE]+)"
)


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition on one task's metric."""

    text: str
    """As written."""
    task: str
    metric: str
    filter: str | None
    bound: Bound
    """`value`: the figure as reported. `lower`, `upper`: that end of its 95 % interval."""
    sign: str
    limit: float

    def holds(self, value: float) -> bool:
        return {">=": value >= self.limit, "<=": value <= self.limit, ">": value > self.limit, "<": value < self.limit}[
            self.sign
        ]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate and what a model made of it."""

    gate: str
    model: str
    task: str
    passed: bool
    value: float | None
    """What was compared; None where no sample was answered."""
    reason: str
    """A sentence with the numbers."""


def parse_gate(text: str) -> Gate:
    """Raises EvaluationError with an example."""
    found = _GATE.fullmatch(text.strip())
    try:
        limit = float(found["limit"]) if found else None
    except ValueError:
        limit = None
    if found is None or limit is None:
        raise EvaluationError(
            f"{text!r} is no gate: write 'gsm8k:exact_match>=0.30' or 'gsm8k:lower(exact_match)>=0.3'"
        )
    metric, _, chain = (found["inner"] or found["plain"]).strip().partition(",")
    bound = cast("Bound", found["bound"] or "value")
    return Gate(text.strip(), found["task"], metric, chain or None, bound, found["sign"], limit)


def check_gates(results: Sequence[SavedResult], gates: Sequence[Gate]) -> list[Verdict]:
    """Every gate for every model. Raises EvaluationError for tasks and metrics that are not there."""
    return [_check(result, gate) for result in results for gate in gates]


def _check(result: SavedResult, gate: Gate) -> Verdict:
    task = result.task(gate.task)
    figure = task.figure(gate.metric, gate.filter)
    value, shown = figure.value, f"{figure.key} is {_number(figure.value)}"
    if gate.bound != "value" and value is not None:
        interval = interval_of(task, figure.metric, figure.filter)
        if interval is None:
            return Verdict(gate.text, result.model, gate.task, False, None, f"{shown}: too few samples for an interval")
        value = interval.low if gate.bound == "lower" else interval.high
        shown += (
            f"; the {gate.bound} bound of its {interval.level:.0%} interval ({interval.method}) is {_number(value)}"
        )
    if value is None:
        return Verdict(gate.text, result.model, gate.task, False, None, "no sample was answered")
    passed = gate.holds(value)
    reason = f"{shown}, {'as wanted' if passed else 'wanted'} {gate.sign} {gate.limit:g}"
    failed = task.facts.get("failed")
    if failed:
        reason += f" ({failed} samples failed and count in no figure)"
    return Verdict(gate.text, result.model, gate.task, passed, value, reason)


def interval_of(task: SavedTask, metric: str, chain: str) -> Interval | None:
    """95 %, from the samples; by the standard error where the metric knows only the whole. None for too few samples."""
    values = task.values(metric, chain)
    if values:
        groups = task.groups()
        rows = sorted(values)
        sources = [groups.get(row) or f"row {row}" for row in rows] if groups else None
        return interval_of_mean([values[row] for row in rows], sources)
    figure = task.figure(metric, chain)
    if figure.value is None or figure.stderr is None:
        return None
    return normal_interval(figure.value, figure.stderr)


def check_baseline(results: Sequence[SavedResult], baseline: Sequence[SavedResult], no_worse: float) -> list[Verdict]:
    """Non-inferiority of each task's first metric: the paired 95 % interval rules out being worse by `no_worse`.

    A baseline of several models is compared by name. Raises EvaluationError where the two were not asked the same.
    """
    verdicts: list[Verdict] = []
    for result in results:
        other = _partner(result, baseline)
        found = compare(other, result)
        for name, task in result.tasks.items():
            row = found.row(name, task.figures[0].metric, task.figures[0].filter)
            gate = f"{name}:{row.key} no worse than {other.model} of {other.run} by {no_worse:g}"
            if row.paired is None or row.paired.interval is None:
                reason = "too few samples that both answered, or a metric without a value for each"
                verdicts.append(Verdict(gate, result.model, name, False, None, reason))
                continue
            pair, interval = row.paired, row.paired.interval
            worst = interval.low if row.higher_is_better else -interval.high
            passed = worst >= -no_worse
            reason = (
                f"difference {pair.difference:+.4f} ({interval.low:+.4f} … {interval.high:+.4f}, paired 95 %, "
                f"{pair.count} samples): {'not' if passed else 'may be'} worse by more than {no_worse:g}"
            )
            verdicts.append(Verdict(gate, result.model, name, passed, worst, reason))
    return verdicts


def _partner(result: SavedResult, baseline: Sequence[SavedResult]) -> SavedResult:
    if len(baseline) == 1:
        return baseline[0]
    for other in baseline:
        if other.model == result.model:
            return other
    names = ", ".join(other.model for other in baseline)
    raise EvaluationError(f"the baseline has several models and none is {result.model}: say RUN:MODEL of {names}")


def _number(value: float | None) -> str:
    return "N/A" if value is None else f"{value:.4f}"
