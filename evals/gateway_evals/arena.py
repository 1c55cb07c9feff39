"""Models against each other on what they answered in finished runs: a judge compares, in both orders, pair by pair."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

from gateway.arena.strength import Battle, Strength, strengths
from gateway_evals.checks.judge import JudgeSettings, compare, judge_of
from gateway_evals.client import GatewayClient
from gateway_evals.errors import EvaluationError, SampleFailed
from gateway_evals.saved import SavedResult

Answers = Mapping[tuple[str, int], tuple[str, str]]
"""(task, row) to what was asked and what the model answered."""


@dataclass(frozen=True, slots=True)
class Arena:
    """What all comparisons came to."""

    ranking: Sequence[Strength]
    """The strongest first, with bootstrap intervals (Bradley-Terry)."""
    judged: int
    agreed: int
    """Pairs of which the order of the answers changed nothing."""
    unreadable: int
    """Pairs of which a verdict could not be read: no battle."""
    failed: int
    """Pairs that the judge did not answer: no battle."""

    @property
    def agreement(self) -> float | None:
        readable = self.judged - self.unreadable
        return self.agreed / readable if readable else None


def answers_of(result: SavedResult) -> Answers:
    """Of its tasks that generate text; an answer that failed is left out. Raises EvaluationError."""
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for name, task in result.tasks.items():
        for row in task.rows():
            arguments = cast("dict[str, dict[str, Any]]", row.get("arguments") or {})
            asked = next(iter(arguments.values()), None) or {}
            # Only what was generated has stop texts; log-likelihoods are asked otherwise.
            if "until" in (asked.get("arg_1") or "") and row["resps"]:
                found.setdefault((name, row["doc_id"]), (_told(asked["arg_0"]), str(row["resps"][0][0])))
    return found


async def battle(
    client: GatewayClient,
    results: Sequence[SavedResult],
    settings: JudgeSettings,
    *,
    limit: int | None = None,
    seed: int = 1234,
    concurrency: int = 8,
) -> Arena:
    """Every two models over every question that both answered; the first `limit` questions of each task.

    What the order decided is a tie. Raises EvaluationError where there is nothing to compare or no judge.
    """
    names = [result.model for result in results]
    if len(set(names)) != len(names) or len(names) < 2:
        raise EvaluationError(f"an arena needs two or more models, each once; there are: {', '.join(names)}")
    judge = await judge_of(client, settings.model)
    said = {result.model: answers_of(result) for result in results}
    pairs = [
        (first, second, place)
        for first, second in combinations(names, 2)
        for place in said[first]
        if place in said[second] and (limit is None or place[1] < limit)
    ]
    if not pairs:
        raise EvaluationError(f"{', '.join(names)} answered no question in common with text")
    free = asyncio.Semaphore(concurrency)
    battles: Counter[Battle] = Counter()
    counts: Counter[str] = Counter()
    problems: list[str] = []

    async def one(first: str, second: str, place: tuple[str, int]) -> None:
        question, ours = said[first][place]
        async with free:
            try:
                found = await compare(client, judge, question, ours, said[second][place][1], settings)
            except SampleFailed as error:
                counts["failed"] += 1
                problems.append(error.message)
                return
        counts["judged"] += 1
        counts["agreed"] += found.agrees
        counts["unreadable"] += not found.readable
        if found.readable:
            battles[(first, second, found.preference)] += 1

    async with asyncio.TaskGroup() as group:
        for pair in pairs:
            group.create_task(one(*pair))
    if counts["failed"] == len(pairs):
        raise EvaluationError(f"no pair was judged; the first one: {problems[0]}")
    return Arena(
        strengths(battles, seed=seed), counts["judged"], counts["agreed"], counts["unreadable"], counts["failed"]
    )


def _told(asked: Any) -> str:
    """What the user said last, of a chat."""
    if not isinstance(asked, list):
        return str(asked)
    messages = cast("list[dict[str, str]]", asked)
    return next((each["content"] for each in reversed(messages) if each["role"] == "user"), "")
