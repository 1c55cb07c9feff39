"""Is an adapter better than its base? Both are asked one suite, sample by sample, and the registry keeps the verdict.

Knows no terminal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.adapters.registry import Registry
from gateway.adapters.version import AdapterVersion
from gateway_evals.compare import ComparedMetric, Comparison, compare
from gateway_evals.errors import EvaluationError
from gateway_evals.evaluation import AddBar, EvaluationPlan, evaluate_suite, prepare
from gateway_evals.saved import read_results

Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of it."""

    version: AdapterVersion
    against: str
    """The model that was asked without the adapter."""
    comparison: Comparison
    counted: tuple[ComparedMetric, ...]
    """What the verdict rests on: the first metric of every task, or the one that was named."""

    @property
    def verdict(self) -> Verdict:
        """`worse` where anything that counts is, `better` where something is and nothing is worse."""
        found = {row.verdict(1 - self.comparison.level) for row in self.counted}
        return "worse" if "worse" in found else "better" if "better" in found else "undecided"

    def view(self) -> dict[str, Any]:
        """For programs, and as it is kept."""
        first, second = self.comparison.first, self.comparison.second
        return {
            "verdict": self.verdict,
            "suite": first.suite,
            "against": self.against,
            "at": round(time.time(), 3),
            "runs": [first.run, second.run],
            "rows": [_row(row, 1 - self.comparison.level) for row in self.counted],
        }


async def prove(
    plan: EvaluationPlan, registry: Registry, version: AdapterVersion, metric: str | None, add_bar: AddBar | None = None
) -> Proof:
    """Run `plan`, whose models are the base and the adapter in this order, and write the verdict to the registry.

    Raises EvaluationError where either answered nothing: that says nothing of which is better.
    """
    async with plan.client() as client:
        _, results = await evaluate_suite(plan, client, prepare(plan), add_bar)
    for result in results:
        for task in result.tasks:
            if not task.answered:
                failures = task.run.failures
                why = failures[min(failures)] if failures else "no sample has an answer"
                raise EvaluationError(f"{result.model.name} answered nothing of {task.run.task.name}: {why}")
    base, adapted = (read_results(result.files[0]) for result in results)
    comparison = compare(base, adapted, seed=plan.seed)
    proof = Proof(version, plan.models[0], comparison, tuple(_counted(comparison, metric)))
    await registry.set_verdict(version, joined(version.verdict, proof.view()))
    return proof


def joined(before: Mapping[str, Any], proof: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict over the latest proof of every suite and engine: `worse` on one is worse."""
    proofs = [each for each in before.get("proofs", []) if (each["suite"], each["against"]) != _place(proof)]
    proofs.append(dict(proof))
    verdicts = {each["verdict"] for each in proofs}
    whole = "worse" if "worse" in verdicts else "better" if "better" in verdicts else "undecided"
    return {"verdict": whole, "proofs": proofs}


def _place(proof: Mapping[str, Any]) -> tuple[str, str]:
    return proof["suite"], proof["against"]


def _counted(comparison: Comparison, metric: str | None) -> list[ComparedMetric]:
    """Rows that the verdict rests on. Raises EvaluationError where there are none."""
    rows = [row for row in comparison.rows if metric in (None, row.metric) and row.paired is not None]
    if not rows:
        there = ", ".join(dict.fromkeys(row.metric for row in comparison.rows if row.paired is not None)) or "none"
        raise EvaluationError(f"no metric {metric!r} with a value for each sample; there are: {there}")
    first: dict[str, ComparedMetric] = {}
    for row in rows:
        first.setdefault(row.task, row)
    return list(first.values())


def _row(row: ComparedMetric, alpha: float) -> dict[str, Any]:
    pair = row.paired
    if pair is None:
        raise EvaluationError(f"{row.task}:{row.key} has no pairs")
    interval = [pair.interval.low, pair.interval.high] if pair.interval else None
    return {
        "task": row.task,
        "metric": row.metric,
        "samples": pair.count,
        "base": pair.first,
        "adapter": pair.second,
        "difference": pair.difference,
        "interval": interval,
        "p_value": pair.p_value,
        "adjusted_p": row.adjusted_p,
        "test": pair.test,
        "effect": pair.effect,
        "wins": pair.wins,
        "losses": pair.losses,
        "verdict": row.verdict(alpha),
    }
