"""Turns of a conversation as the page shows them: text that can run nothing and fetch nothing, and a line of facts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from gateway_playground.conversation import Turn

_JOINER = "\u2060"
"""Has no width and breaks no line. Behind a tag's first sign it makes text of it, in prose, code and formulas."""
_LIVE = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)|!(?=\[)|(?:`{3,}|~{3,})[ \t]*(?=mermaid)", re.IGNORECASE)
_SIGN = re.compile(r"([\\`*_\[\]~|])")


def safe(text: str) -> str:
    """Markdown in which HTML is text, an image is a link that waits for a click, and a diagram is its source.

    It does not ask what is code: whoever would answer that otherwise than the page's Markdown reader leaves a hole. The
    page takes the joiners out of what people copy (`page.CLEAN_COPIES`); its sanitizer and its Content-Security-Policy
    stand behind.
    """
    return _LIVE.sub(lambda found: found[0] + _JOINER, text)


def unsafe(shown: str) -> str:
    """The text behind what `safe` gave, where the page hands back what it shows: of a message that was edited."""
    return shown.replace(_JOINER, "")


def _plain(text: str) -> str:
    """Text on one line in which no sign means anything to Markdown."""
    return _SIGN.sub(r"\\\1", safe(" ".join(text.split())))


def facts(turn: Turn) -> str:
    """Speed, first token, length and who answered, for the line under an answer."""
    said: list[str] = []
    if turn.tokens_per_s is not None:
        said.append(f"{turn.tokens_per_s:,.1f} tokens/s")
    if turn.first_token_s is not None:
        said.append(f"first token {_span(turn.first_token_s)}")
    if turn.tokens:
        about = "" if turn.completion_tokens is not None else "about "
        said.append(f"{about}{turn.tokens:,} token{'' if turn.tokens == 1 else 's'}")
    if turn.prompt_tokens is not None:
        said.append(f"prompt {turn.prompt_tokens:,}")
    said.append(turn.target or turn.model)
    if turn.stopped:
        said.append("stopped")
    elif turn.length_limited:
        said.append("ended at max tokens")
    return " · ".join(said)


def _span(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def messages(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """The Chatbot's value: for each turn the question, the reasoning if there is any, the answer and its facts.

    Facts are italics and failures bold in a part of their own, by which style.css knows them: what people copy from the
    page is then text, not HTML.
    """
    shown: list[dict[str, Any]] = []
    for turn in turns:
        shown.append({"role": "user", "content": safe(turn.question)})
        if turn.reasoning:
            status = "done" if turn.answer or turn.done else "pending"
            thought = {"title": "Reasoning", "status": status}
            shown.append({"role": "assistant", "content": safe(turn.reasoning), "metadata": thought})
        parts = [safe(turn.answer)] if turn.answer else []
        if turn.failure:
            parts.append(f"**{_plain(turn.failure)}**")
        elif turn.done:
            parts.append(f"*{_plain(facts(turn))}*")
        if parts:
            shown.append({"role": "assistant", "content": parts})
    return shown


def turn_of(turns: Sequence[Turn], at: Any) -> int | None:
    """Which turn's question the message at `at` of `messages(turns)` is; None where it is another message."""
    position = 0
    for number, turn in enumerate(turns):
        if position == at:
            return number
        position += len(messages([turn]))
    return None
