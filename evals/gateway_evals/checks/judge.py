"""A served model as the judge: grades an answer, or says which of two is better, in both orders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway_evals.asking import Output
from gateway_evals.client import GatewayClient, ServedModel
from gateway_evals.errors import EvaluationError, SampleFailed, SuiteError
from gateway_evals.likelihood import choices_of
from gateway_evals.prompt import text_of
from gateway_evals.scorers import Score
from gateway_evals.task import Sample, Task

PAIR = """You are an impartial judge. Which answer to the question is better? {rubric}

[Question]
{question}

[Answer A]
{first}

[Answer B]
{second}

Reply with one of [[A]], [[B]] or [[tie]], and nothing else."""

GRADE = """You are an impartial judge. How good is the answer to the question? {rubric}

[Question]
{question}

[Right answer]
{right}

[Answer]
{first}

Reply with a grade from 1 (useless) to 5 (perfect) in double brackets, such as [[3]], and nothing else."""

Verdict = Literal["first", "second", "tie"]
VERDICTS = ("[[A]]", "[[B]]", "[[tie]]")
GRADES = tuple(f"[[{number}]]" for number in range(1, 6))


class JudgeSettings(BaseModel):
    """`scorer_kwargs` of `scorer: judge`."""

    model_config = ConfigDict(extra="forbid")

    model: str
    """A served model, at the same gateway."""
    mode: Literal["pairwise", "grade"] = "pairwise"
    against: str | None = None
    """pairwise: the other answer, as a column or template; default: the task's target."""
    rubric: str = "Judge by how correct, helpful and clear it is."
    max_tokens: int = Field(default=16, ge=1)
    guided: bool = False
    """The judge can say nothing but a verdict (`structured_outputs`): also a small one is read then."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One pair, judged in both orders. None: the judge said nothing that could be read."""

    straight: Verdict | None
    """With ours first."""
    swapped: Verdict | None
    """With ours second; "first" still means ours."""

    @property
    def readable(self) -> bool:
        return self.straight is not None and self.swapped is not None

    @property
    def agrees(self) -> bool:
        """Whether the order made no difference."""
        return self.readable and self.straight == self.swapped

    @property
    def preference(self) -> float:
        """1: ours is better in both orders, 0: the other is, 0.5: a tie, or the order decided."""
        if not self.agrees or self.straight == "tie":
            return 0.5
        return float(self.straight == "first")


def verdict(text: str) -> Verdict | None:
    """What stands last in double brackets; a bare letter alone counts too."""
    found = re.findall(r"\[\[\s*(A|B|tie|C)\s*\]\]", text, re.IGNORECASE)
    bare = re.fullmatch(r"\W*(A|B|tie)\W*", text.strip(), re.IGNORECASE)
    said = found[-1] if found else bare[1] if bare else ""
    words: dict[str, Verdict] = {"a": "first", "b": "second", "tie": "tie", "c": "tie"}
    return words.get(said.lower())


def grade(text: str) -> int | None:
    """From 1 to 5, in double brackets or alone."""
    found = re.findall(r"\[\[\s*([1-5])\s*\]\]", text)
    bare = re.fullmatch(r"\W*([1-5])\W*", text.strip())
    return int(found[-1]) if found else int(bare[1]) if bare else None


async def compare(
    client: GatewayClient, model: ServedModel, question: str, ours: str, other: str, settings: JudgeSettings
) -> Comparison:
    """Ask twice, the second time with the answers swapped. Raises SampleFailed."""
    said: list[Verdict | None] = []
    for first, second in ((ours, other), (other, ours)):
        prompt = PAIR.format(rubric=settings.rubric, question=question, first=first, second=second)
        said.append(verdict(await say(client, model, prompt, settings, VERDICTS)))
    turned: dict[Verdict | None, Verdict | None] = {"first": "second", "second": "first", "tie": "tie", None: None}
    return Comparison(said[0], turned[said[1]])


async def say(
    client: GatewayClient, model: ServedModel, prompt: str, settings: JudgeSettings, choices: Sequence[str]
) -> str:
    """The judge's words, greedily; one of `choices` where it is guided. Raises SampleFailed."""
    payload: dict[str, Any] = {
        "model": model.name,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": settings.max_tokens,
    }
    if settings.guided:
        payload["structured_outputs"] = {"choice": list(choices)}
    answer = await client.post(f"{model.url}/chat/completions", payload)
    try:
        text: Any = choices_of(answer, 1)[0]["message"]["content"]
    except (KeyError, TypeError) as error:
        raise SampleFailed(f"the judge {model.name} answered in an unexpected shape: {error}") from error
    return str(text or "")


async def judge_of(client: GatewayClient, name: str) -> ServedModel:
    """Raises EvaluationError that lists what is served."""
    served = await client.models()
    if name not in served:
        raise EvaluationError(f"no judge {name!r} at {client.root}; there are: {', '.join(sorted(served)) or 'none'}")
    return served[name]


class JudgeScorer:
    """pairwise: `preference` and `agreement` (metrics of the same names); grade: `score`, from 0 to 1.

    A verdict that cannot be read counts as "no answer found": apart from a bad one, and neutral (0.5) in the mean.
    """

    def __init__(self, task: Task) -> None:
        try:
            self._settings = JudgeSettings.model_validate(task.spec.scorer_kwargs)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
            raise SuiteError("\n".join(f"{task.where}.scorer_kwargs.{line}" for line in lines)) from error
        self._where = task.where
        self._client: GatewayClient | None = None
        self._model: ServedModel | None = None

    async def ready(self, client: GatewayClient) -> None:
        self._client, self._model = client, await judge_of(client, self._settings.model)

    async def __call__(self, sample: Sample, output: Output) -> list[Score]:
        if self._client is None or self._model is None:
            raise EvaluationError(f"{self._where}.scorer: the judge was not made ready")
        asked = _question(sample)
        if self._settings.mode == "grade":
            return [await self._grade(self._client, self._model, asked, sample, output)]
        source = self._settings.against
        other = text_of(source, sample.doc, f"{self._where}.scorer_kwargs.against") if source else sample.targets[0]
        found = await compare(self._client, self._model, asked, output.text, other, self._settings)
        answers = {
            "answer": output.text,
            "preference": found.preference,
            "agreement": float(found.agrees),
            "verdicts": [found.straight, found.swapped],
        }
        return [Score(answers, list(sample.targets), found.readable)]

    async def _grade(
        self, client: GatewayClient, model: ServedModel, asked: str, sample: Sample, output: Output
    ) -> Score:
        right = sample.targets[0]
        prompt = GRADE.format(rubric=self._settings.rubric, question=asked, right=right, first=output.text)
        value = grade(await say(client, model, prompt, self._settings, GRADES))
        answers = {"answer": output.text, "score": 0.5 if value is None else (value - 1) / 4, "grade": value}
        return Score(answers, list(sample.targets), value is not None)


def _question(sample: Sample) -> str:
    """What the user said, without examples and instructions where it was a chat."""
    messages = cast("Sequence[dict[str, str]]", sample.messages)
    told = [message["content"] for message in messages if message["role"] == "user"]
    return "\n".join([*told[-1:], *sample.turns]) if told else sample.prompt
