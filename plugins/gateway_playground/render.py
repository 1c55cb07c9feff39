"""Turns of a conversation as the page shows them: text that can run nothing and fetch nothing, and a line of facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gateway_playground.conversation import Turn

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_SIGN = re.compile(r"([\\`*_\[\]~|])")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_ESCAPED = re.compile(r"&(lt|amp|#33);")
_ESCAPES = {"lt": "<", "amp": "&", "#33": "!"}


def safe(text: str) -> str:
    """Markdown in which HTML is text and an image is a link that waits for a click.

    Code keeps its signs as they are: Markdown itself shows them as text there. Where this and the page's Markdown
    reader differ about what is code, the page's sanitizer and its Content-Security-Policy still stand behind.
    """
    return _changed(text, _escape)


def unsafe(shown: str) -> str:
    """The text behind what `safe` gave, where the page hands back what it shows: of a message that was edited."""
    return _changed(shown, lambda prose: _ESCAPED.sub(lambda found: _ESCAPES[found[1]], prose))


def _changed(text: str, change: Callable[[str], str]) -> str:
    """The text with everything changed that is no code."""
    shown: list[str] = []
    prose: list[str] = []
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            shown.append(line)
            if mark and mark[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
        elif mark:
            shown += _prose(prose, change)
            prose = []
            shown.append(line)
            fence = mark[1]
        else:
            prose.append(line)
    shown += _prose(prose, change)
    return "\n".join(shown)


def _prose(lines: list[str], change: Callable[[str], str]) -> list[str]:
    if not lines:
        return []
    text = "\n".join(lines)
    parts: list[str] = []
    end = 0
    for span in _CODE_SPAN.finditer(text):
        parts += [change(text[end : span.start()]), span[0]]
        end = span.end()
    return ["".join([*parts, change(text[end:])])]


def _escape(text: str) -> str:
    # Only what could be a tag or an entity: `a < b` stays itself for whoever copies it.
    text = _TAG.sub("&lt;", _ENTITY.sub("&amp;", text))
    return text.replace("![", "&#33;[")


def _plain(text: str) -> str:
    """Text on one line in which no sign means anything to Markdown."""
    return _SIGN.sub(r"\\\1", _escape(" ".join(text.split())))


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
