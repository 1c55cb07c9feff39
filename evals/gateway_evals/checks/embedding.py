"""How near an answer is to a right one in meaning: the cosine of their embeddings, made by a served model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from gateway_evals.asking import Output
from gateway_evals.checks.judge import judge_of
from gateway_evals.client import GatewayClient, ServedModel
from gateway_evals.errors import EvaluationError, SampleFailed, SuiteError
from gateway_evals.scorers import Score
from gateway_evals.task import Sample, Task


class EmbeddingScorer:
    """`similarity`: the largest over the right texts, from -1 to 1. `scorer_kwargs: {model: NAME}` answers
    `/v1/embeddings` at the same gateway."""

    def __init__(self, task: Task) -> None:
        settings = task.spec.scorer_kwargs
        if set(settings) != {"model"} or not isinstance(settings["model"], str):
            raise SuiteError(f"{task.where}.scorer_kwargs: expected `model`, an embedding model, and nothing else")
        self._name: str = settings["model"]
        self._where = task.where
        self._client: GatewayClient | None = None
        self._model: ServedModel | None = None

    async def ready(self, client: GatewayClient) -> None:
        self._client, self._model = client, await judge_of(client, self._name)

    async def __call__(self, sample: Sample, output: Output) -> list[Score]:
        if self._client is None or self._model is None:
            raise EvaluationError(f"{self._where}.scorer: the embedding model was not made ready")
        if not output.text.strip():
            return [Score({"answer": output.text, "similarity": 0.0}, list(sample.targets), False)]
        payload = {"model": self._model.name, "input": [output.text, *sample.targets]}
        answer = await self._client.post(f"{self._model.url}/embeddings", payload)
        ours, *right = vectors(answer.body, 1 + len(sample.targets))
        similarity = max(cosine(ours, each) for each in right)
        return [Score({"answer": output.text, "similarity": similarity}, list(sample.targets))]


def vectors(body: Any, expected: int) -> list[list[float]]:
    """By `index`. Raises SampleFailed."""
    try:
        rows = sorted(cast("list[dict[str, Any]]", body["data"]), key=lambda row: int(row["index"]))
        found = [[float(value) for value in row["embedding"]] for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise SampleFailed(f"the embeddings came in an unexpected shape ({type(error).__name__}: {error})") from error
    if len(found) != expected or len({len(each) for each in found}) != 1:
        raise SampleFailed(f"expected {expected} embeddings of one length, found {len(found)}")
    return found


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """0 where either has no length."""
    lengths = math.hypot(*first) * math.hypot(*second)
    return math.fsum(a * b for a, b in zip(first, second, strict=True)) / lengths if lengths else 0.0
