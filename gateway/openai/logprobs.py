"""Log-probabilities in the shapes of both endpoints: chat's `content` list, completions' four parallel lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.engine import Tokenizer, TokenLogprob
from gateway.openai.choice import Scored

LEAST = -9999.0
"""What stands for minus infinity, which JSON cannot hold; OpenAI's own figure."""


def clamp(logprob: float) -> float:
    return logprob if logprob > LEAST else LEAST


def chat_logprobs(tokens: Sequence[Scored], tokenizer: Tokenizer) -> dict[str, Any]:
    """`choices[].logprobs` of chat."""

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        return {
            "token": tokenizer.token_text(token_id),
            "logprob": clamp(logprob),
            "bytes": list(tokenizer.token_bytes(token_id)),
        }

    content: list[dict[str, Any]] = []
    for token_id, scored, _ in tokens:
        if scored is not None:
            top = [entry(other, logprob) for other, logprob in scored.top]
            content.append({**entry(token_id, scored.logprob), "top_logprobs": top})
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: Sequence[Scored], tokenizer: Tokenizer) -> dict[str, Any]:
    """`choices[].logprobs` of completions: the actual token is always among its position's `top_logprobs`, as the same
    float; of two tokens that look alike the likelier one is shown."""
    texts: list[str] = []
    logprobs: list[float | None] = []
    tops: list[dict[str, float] | None] = []
    text_of = tokenizer.token_text
    for token_id, scored, _ in tokens:
        text = text_of(token_id)
        texts.append(text)
        if scored is None:
            logprobs.append(None)
            tops.append(None)
            continue
        actual = clamp(scored.logprob)
        logprobs.append(actual)
        top: dict[str, float] = {}
        for other, logprob in scored.top:
            # The engine's own float of the actual token is used for both: equality is how harnesses test for greedy.
            shown, value = (text, actual) if other == token_id else (text_of(other), clamp(logprob))
            if value > top.get(shown, -float("inf")):
                top[shown] = value
        if actual > top.get(text, -float("inf")):
            top[text] = actual
        tops.append(top)
    return {
        "tokens": texts,
        "token_logprobs": logprobs,
        "top_logprobs": tops,
        "text_offset": [token.offset for token in tokens],
    }


def prompt_logprobs(
    prompt: Sequence[int], scores: Sequence[TokenLogprob | None], top: int, tokenizer: Tokenizer
) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: for each position the actual token first, then the `top` likeliest others of it."""

    def entry(token_id: int, logprob: float, rank: int | None) -> dict[str, Any]:
        return {"logprob": clamp(logprob), "rank": rank, "decoded_token": tokenizer.token_text(token_id)}

    rows: list[dict[str, Any] | None] = []
    for token_id, score in zip(prompt, scores, strict=True):
        if score is None:
            rows.append(None)
            continue
        row = {str(token_id): entry(token_id, score.logprob, score.rank)}
        for place, (other, logprob) in enumerate(score.top[:top], start=1):
            row.setdefault(str(other), entry(other, logprob, place))
        rows.append(row)
    return rows
