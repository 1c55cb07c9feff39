"""A question with its examples: as one text, or as the messages of a chat, put together as lm-eval does it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

Message = dict[str, str]
"""role and content, as they go over the wire."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says, and what follows it where all is one text."""

    role: str
    content: str
    after: str = ""


def question(text: str, *, delimiter: str, prefix: str = "") -> list[Turn]:
    """What is asked, and the beginning of the answer where there is one."""
    if not prefix:
        return [Turn("user", text)]
    return [Turn("user", text, delimiter if text and _meet(text, prefix) else ""), Turn("assistant", prefix)]


def example(text: str, answer: str, *, delimiter: str, end: str, prefix: str = "") -> list[Turn]:
    """A question with its answer. Without an answer, only the question."""
    if not answer:
        return question(text, delimiter=delimiter, prefix=prefix)
    between = delimiter if not prefix or (text and _meet(text, prefix)) else ""
    return [Turn("user", text, between), Turn("assistant", joined(prefix, answer, " "), end)]


def joined(first: str, second: str, delimiter: str) -> str:
    """Both, with the delimiter where neither is empty nor has a blank where they meet."""
    if not first or not second:
        return first or second
    return first + (delimiter if _meet(first, second) else "") + second


def as_text(turns: Sequence[Turn]) -> str:
    return "".join(turn.content + turn.after for turn in turns)


def as_messages(turns: Sequence[Turn], *, multiturn: bool) -> list[Message]:
    """A chat; where not `multiturn`, all examples and the question stand in one message of the user's."""
    if not multiturn:
        turns = _in_one(turns)
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _in_one(turns: Sequence[Turn]) -> list[Turn]:
    system = [turn for turn in turns[:1] if turn.role == "system"]
    rest = list(turns[len(system) :])
    begun = [rest.pop()] if rest[-1].role == "assistant" else []
    rest[-1] = replace(rest[-1], after="")
    return [*system, Turn("user", as_text(rest)), *begun]


def _meet(first: str, second: str) -> bool:
    """Whether no blank stands where they meet."""
    return not (first[-1].isspace() or second[0].isspace())
