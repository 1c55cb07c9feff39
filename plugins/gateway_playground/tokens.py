"""Tokens with their probabilities, read from the API's answers, and as coloured pieces of HTML. Knows no Gradio."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from gateway.tabs import AskError


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text."""

    text: str
    logprob: float | None = None
    """Natural logarithm of its probability; None where nothing stood before it."""
    others: tuple[tuple[str, float], ...] = ()
    """(text, logprob) of the likeliest tokens in this place, the likeliest first."""
    raw: bytes | None = None
    """Its bytes, where the text alone cannot say them (part of a character)."""


def of_chat(answer: Any) -> list[Token]:
    """The tokens of a chat completion that was asked for with `logprobs`. Raises AskError where it has none."""
    try:
        content = answer["choices"][0]["logprobs"]["content"]
        return [
            Token(
                str(one["token"]),
                float(one["logprob"]),
                tuple((str(other["token"]), float(other["logprob"])) for other in one["top_logprobs"]),
                bytes(one["bytes"]) if one.get("bytes") else None,
            )
            for one in content
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise AskError("This model gives no log-probabilities for chat.") from error


def of_echo(answer: Any) -> list[Token]:
    """The tokens of a completion with `echo` and `logprobs`. Raises AskError where it has none."""
    try:
        found = answer["choices"][0]["logprobs"]
        tops: Iterable[dict[str, float] | None] = found.get("top_logprobs") or [None] * len(found["tokens"])
        return [
            Token(
                str(text),
                None if logprob is None else float(logprob),
                tuple(sorted(((str(name), float(value)) for name, value in (top or {}).items()), key=lambda p: -p[1])),
            )
            for text, logprob, top in zip(found["tokens"], found["token_logprobs"], tops, strict=True)
        ]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise AskError("This model gives no log-probabilities for prompts.") from error


def prefix(tokens: Sequence[Token]) -> str:
    """The text of tokens, characters that span several of them put together."""
    if any(token.raw is not None for token in tokens):
        joined = b"".join(token.text.encode() if token.raw is None else token.raw for token in tokens)
        return joined.decode("utf-8", errors="replace")
    return "".join(token.text for token in tokens)


def heat_map(tokens: Sequence[Token], *, pickable: bool) -> str:
    """Each token as a piece whose colour is its probability and whose tip names what could have stood there."""
    pieces: list[str] = []
    for index, token in enumerate(tokens):
        level = "none" if token.logprob is None else str(min(9, int(10 * math.exp(token.logprob))))
        tip = escape(_tip(token))
        body = f'class="token heat-{level}" title="{tip}" aria-label="{tip}"'
        shown = _visible(token.text)
        if pickable:
            pieces.append(f'<button type="button" data-token="{index}" {body}>{shown}</button>')
        else:
            pieces.append(f'<span tabindex="0" role="img" {body}>{shown}</span>')
    return f'<div class="tokens">{"".join(pieces)}</div>'


def summary(tokens: Sequence[Token]) -> str:
    """How likely a text was, as HTML: sum of log-probabilities, mean, perplexity."""
    known = [token.logprob for token in tokens if token.logprob is not None]
    if not known:
        return "<p>One token alone has no likelihood: nothing stands before it.</p>"
    total = sum(known)
    mean = total / len(known)
    return (
        f'<p class="facts">log-likelihood {total:.3f} · {len(known)} scored tokens · '
        f"{mean:.3f} per token · perplexity {math.exp(min(-mean, 700)):,.2f}</p>"
    )


def boundaries(texts: Sequence[str], ids: Sequence[int]) -> str:
    """A tokenized text as HTML: every token in one of four colours, its id under it."""
    pieces = [
        f'<span class="token cut-{index % 4}" title="id {number}">{_visible(text)}<small>{number}</small></span>'
        for index, (text, number) in enumerate(zip(texts, ids, strict=True))
    ]
    return f'<div class="tokens ids">{"".join(pieces)}</div>'


def choices(token: Token) -> list[tuple[str, str]]:
    """(what a person reads, the text) of the alternatives in a token's place."""
    return [(f"{_named(text)}  {_percent(logprob)}", text) for text, logprob in token.others]


def _tip(token: Token) -> str:
    if token.logprob is None:
        return f"{_named(token.text)}: the first token has no probability"
    others = ", ".join(f"{_named(text)} {_percent(logprob)}" for text, logprob in token.others)
    return f"{_named(token.text)} {_percent(token.logprob)}" + (f" | {others}" if others else "")


def _percent(logprob: float) -> str:
    return f"{100 * math.exp(logprob):.1f} %"


def _named(text: str) -> str:
    return repr(text)


def _visible(text: str) -> str:
    return escape(text).replace("\n", "↵<br>") or "∅"
