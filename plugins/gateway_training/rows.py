"""A file of training rows, line by line: what each says, and what is wrong with those that cannot be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.errors import ConfigError

SHOWN = 5
"""Bad rows that are named one by one."""


class ChatMessage(BaseModel):
    """One message; further fields (`tool_calls`, …) go to the model's template as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None


class ChatRow(BaseModel):
    """A conversation; every assistant's message in it is learned, but those with `weight: 0`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    messages: list[ChatMessage]
    tools: list[Any] | None = None


class TextRow(BaseModel):
    """A text and how it goes on."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class BadRow:
    line: int
    """Counted from 1."""
    reason: str


@dataclass(slots=True)
class Rows:
    """One file, read."""

    path: Path
    digest: str
    """sha256 of the file."""
    good: list[tuple[int, ChatRow | TextRow]]
    """With their lines."""
    bad: list[BadRow] = field(default_factory=list[BadRow])

    @property
    def count(self) -> int:
        return len(self.good) + len(self.bad)

    def refuse_too_many_bad(self, share: float) -> None:
        """Raise ConfigError, with the first bad lines, where more than this share cannot be used, or all."""
        if not self.count:
            raise ConfigError(f"{self.path}: holds no rows")
        if not self.good or len(self.bad) > share * self.count:
            told = "; all of them" if not self.good else f", more than --max-bad {share:g}"
            raise ConfigError(f"{self.path}: {len(self.bad)} of {self.count} rows are bad{told}\n" + self.listing())

    def listing(self) -> str:
        """The first bad rows, one a line."""
        ordered = sorted(self.bad, key=lambda row: row.line)
        lines = [f"{self.path}:{row.line}: {row.reason}" for row in ordered[:SHOWN]]
        if len(self.bad) > SHOWN:
            lines.append(f"… and {len(self.bad) - SHOWN} more")
        return "\n".join(lines)


def read_rows(path: Path) -> Rows:
    """Blank lines are no rows. Raises ConfigError where the file cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    rows = Rows(path, hashlib.sha256(content).hexdigest(), [])
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.good.append((number, _read(line)))
        except ValidationError as error:
            rows.bad.append(BadRow(number, _told(error)))
        except ValueError as error:
            rows.bad.append(BadRow(number, str(error)))
    return rows


def _read(line: bytes) -> ChatRow | TextRow:
    try:
        value: Any = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start + 1} of the line)") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"is no JSON object but {type(value).__name__}")
    keys = cast(dict[str, Any], value)
    if "messages" in keys and "prompt" in keys:
        raise ValueError("has both `messages` and `prompt`: one row is one or the other")
    if "messages" in keys:
        row = ChatRow.model_validate(keys)
        _check_turns(row.messages)
        return row
    if "prompt" in keys or "completion" in keys:
        text = TextRow.model_validate(keys)
        if not text.completion.strip():
            raise ValueError("completion: is empty: there is nothing to learn")
        return text
    raise ValueError(
        f"has neither `messages` nor `prompt` and `completion` (it has: {', '.join(keys)[:80] or 'nothing'})"
    )


def _check_turns(messages: Sequence[ChatMessage]) -> None:
    if not messages:
        raise ValueError("messages: is empty")
    if messages[-1].role != "assistant":
        raise ValueError(f"messages: the last one is the {messages[-1].role}'s: an assistant's answer must end a row")
    last = messages[-1]
    if not (last.content or "").strip() and not (last.model_extra or {}).get("tool_calls"):
        raise ValueError("messages: the last answer is empty: there is nothing to learn")


def _told(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}"
