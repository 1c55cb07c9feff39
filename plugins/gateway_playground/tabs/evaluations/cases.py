"""Questions and answers of a conversation, to become test cases. Knows no page and no HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

LONGEST = 2_000_000
"""Characters of a pasted export."""


class ConversationProblem(Exception):
    """What was pasted is no conversation. The message says what it should be."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and what was answered to it."""

    question: str
    answer: str
    earlier: int
    """Questions before it in the same conversation: a case is asked without them."""

    @property
    def title(self) -> str:
        """Its question on one short line."""
        line = " ".join(self.question.split())
        return line if len(line) <= 70 else f"{line[:69]}…"


def read(text: str) -> list[Exchange]:
    """The exchanges of an exported conversation (or of several). Raises ConversationProblem."""
    if len(text) > LONGEST:
        raise ConversationProblem(f"That is longer than {LONGEST:,} characters: paste one conversation.")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConversationProblem(
            f"That is not JSON: {error.msg} in line {error.lineno}. Paste what the Chat tab exports."
        ) from None
    except RecursionError:
        raise ConversationProblem("That is nested too deeply.") from None
    return exchanges(data)


def exchanges(data: Any) -> list[Exchange]:
    """The exchanges of a conversation, `{"messages": [{"role", "content"}]}`, of a list of messages, or of several
    conversations. Raises ConversationProblem where there is none."""
    found: list[Exchange] = []
    for messages in _conversations(data):
        asked: list[str] = []
        for message in messages:
            text = _text(message.get("content"))
            if message.get("role") == "user" and text:
                asked.append(text)
                found.append(Exchange(text, "", len(asked) - 1))
            elif message.get("role") == "assistant" and text and asked:
                found[-1] = Exchange(asked[-1], text, len(asked) - 1)
    if not found:
        raise ConversationProblem('There is no question in it: a conversation is {"messages": [{"role": "user", …}]}.')
    return found


def _conversations(data: Any) -> list[list[dict[str, Any]]]:
    if isinstance(data, dict):
        known = cast("dict[str, Any]", data)
        if isinstance(known.get("messages"), list):
            return [_messages(known["messages"])]
        if isinstance(known.get("conversations"), list):
            return [messages for one in known["conversations"] for messages in _conversations(one)]
    if isinstance(data, list):
        rows = cast("list[Any]", data)
        if any(isinstance(row, dict) and "role" in row for row in rows):
            return [_messages(rows)]
        return [messages for row in rows for messages in _conversations(row)]
    return []


def _messages(rows: Any) -> list[dict[str, Any]]:
    return [cast("dict[str, Any]", row) for row in rows if isinstance(row, dict)]


def _text(content: Any) -> str:
    """A message's text: a string, or the text among its parts."""
    if isinstance(content, str):
        return content.strip()
    if isinstance(content, list):
        parts = _messages(cast("list[Any]", content))
        return "\n".join(str(part["text"]) for part in parts if isinstance(part.get("text"), str)).strip()
    return ""
