"""Asks one served model what parity looks at: greedy tokens and scores for each prompt. Compares nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import ConfigError
from gateway.testing.served import Rejected, Served


class PromptFile(msgspec.Struct, forbid_unknown_fields=True):
    """A line of a prompt file: a text, or messages for the model's chat template."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None

    def label(self) -> str:
        """A few words of it, for tables."""
        text = self.prompt if self.prompt is not None else str((self.messages or [{}])[-1].get("content", ""))
        return " ".join(text.split())[:40]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one model made of one prompt."""

    prompt: Sequence[int]
    """Its ids."""
    scores: Sequence[float]
    """Natural-log probability of every prompt token but the first."""
    texts: Sequence[str]
    """What follows it greedily, token by token."""
    logprobs: Sequence[float]
    """Natural-log probability of each of them."""
    ids: Sequence[int] | None = None
    """Their ids, where the server tells them."""


def load_prompts(path: Path | None = None) -> list[PromptFile]:
    """A file's prompts, or ours. Raises ConfigError naming the line that is wrong."""
    source = files("gateway.parity") / "prompts.jsonl" if path is None else path
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    prompts: list[PromptFile] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompt = msgspec.json.decode(line, type=PromptFile)
        except msgspec.DecodeError as error:
            raise ConfigError(f"{path}:{number}: {error}") from error
        if (prompt.prompt is None) == (prompt.messages is None):
            raise ConfigError(f"{path}:{number}: one of `prompt` and `messages` is needed")
        prompts.append(prompt)
    if not prompts:
        raise ConfigError(f"{path} holds no prompt")
    return prompts


async def tokenize(served: Served, prompts: Sequence[PromptFile]) -> list[list[int]]:
    """Each prompt as the model reads it. Raises ConfigError where it does not say."""
    with _comparable(served):
        return [await _ids(served, prompt) for prompt in prompts]


async def read(
    served: Served,
    prompts: Sequence[PromptFile],
    tokens: Sequence[list[int]],
    max_tokens: int,
    done: Callable[[str], None] | None = None,
) -> list[Reading]:
    """All prompts, one after the other: what runs beside a prompt may change its numbers. `done(label)` after each.

    `tokens`: each prompt's, as `tokenize` gives them. Raises ConfigError where the model cannot score.
    """
    readings: list[Reading] = []
    with_ids = True
    for prompt, ids in zip(prompts, tokens, strict=True):
        with _comparable(served):
            if with_ids:
                try:
                    readings.append(await _read(served, ids, max_tokens, return_token_ids=True))
                except Rejected as rejected:
                    if rejected.reply.status != 400:
                        raise
                    with_ids = False
            if not with_ids:
                readings.append(await _read(served, ids, max_tokens))
        if done is not None:
            done(prompt.label())
    return readings


@contextmanager
def _comparable(served: Served) -> Generator[None]:
    """What the model refuses or answers in another shape inside the block is the reader's business: a ConfigError."""
    try:
        yield
    except Rejected as rejected:
        raise ConfigError(f"{served.model} cannot be compared: {rejected}") from rejected
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{served.model} cannot be compared, its answer has another shape: {type(error).__name__} {error}"
        ) from error


async def _ids(served: Served, prompt: PromptFile) -> list[int]:
    asked = {"messages": prompt.messages} if prompt.messages is not None else {"prompt": prompt.prompt}
    return (await served.post("/tokenize", **asked))["tokens"]


async def _read(served: Served, ids: list[int], max_tokens: int, **fields: Any) -> Reading:
    room = max_tokens if served.max_model_len is None else min(max_tokens, served.max_model_len - len(ids))
    made = (await served.complete(ids, max_tokens=room, logprobs=0, **fields))["choices"][0]
    # One token is made: some servers score only a prompt that they go on with.
    scored = (await served.complete(ids, max_tokens=1, logprobs=0, echo=True))["choices"][0]["logprobs"]
    scores = scored["token_logprobs"][1 : len(ids)]
    texts, logprobs = made["logprobs"]["tokens"], made["logprobs"]["token_logprobs"]
    made_ids: list[int] | None = made["token_ids"] if fields else None
    if len(scores) != len(ids) - 1 or None in scores or len(logprobs) != len(texts):
        raise ValueError(f"{len(scores)} scores for {len(ids)} prompt tokens, {len(logprobs)} for {len(texts)} made")
    # An end token may be told among the ids and not among the texts.
    return Reading(ids, scores, texts, logprobs, made_ids[: len(texts)] if made_ids is not None else None)
