"""What the text of a chat answer holds: thoughts, words and calls, told apart as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

Kind = Literal["reasoning", "content", "name", "arguments"]


class Said(NamedTuple):
    """A piece of an answer's message."""

    kind: Kind
    """`name` begins a call; `arguments` are pieces of its JSON."""
    text: str
    call: int = 0
    """Which of the answer's calls, from 0."""


class Reader(Protocol):
    """Reads one answer, from its first character to its last."""

    def push(self, text: str) -> list[Said]:
        """What this text adds, as far as it can be told yet."""
        ...

    def flush(self) -> list[Said]:
        """What was held back, at the answer's end."""
        ...


class Joined:
    """One reader after another: what the first calls content is the second's text."""

    def __init__(self, first: Reader, second: Reader) -> None:
        self._first = first
        self._second = second

    def push(self, text: str) -> list[Said]:
        return self._on(self._first.push(text))

    def flush(self) -> list[Said]:
        return [*self._on(self._first.flush()), *self._second.flush()]

    def _on(self, said: Sequence[Said]) -> list[Said]:
        found: list[Said] = []
        for each in said:
            found += self._second.push(each.text) if each.kind == "content" else [each]
        return found


def overlap(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0
