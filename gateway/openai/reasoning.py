"""Thoughts that a model writes between marks before it answers, such as `<think>…</think>`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.openai.reading import Said, overlap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gateway.engine import Constraint, Tokenizer

MARKS: Final[dict[str, tuple[str, str]]] = {
    "deepseek_r1": ("<think>", "</think>"),
    "qwen3": ("<think>", "</think>"),
    "seed_oss": ("<seed:think>", "</seed:think>"),
}
"""Begin and end, by the parser's name; vLLM knows them by the same names."""

_ALWAYS_THINKS = frozenset({"deepseek_r1"})
"""Models that begin with a thought whether or not they, or their template, write the mark."""


class ReasoningReader:
    """`reading.Reader` for one answer."""

    def __init__(self, parser: str, prompt: str) -> None:
        """`parser`: one of `MARKS`. `prompt`: as its template wrote it; it may have opened the thought already."""
        self._begin, self.end = MARKS[parser]
        self.inside = prompt.rstrip().endswith(self._begin) or parser in _ALWAYS_THINKS
        """Whether the answer begins within a thought."""
        self._thinking = self.inside
        self._begun = False
        self._over = False
        self._held: str = ""

    def push(self, text: str) -> list[Said]:
        if self._over:
            return [Said("content", text)] if text else []
        text = self._held + text
        self._held = ""
        if not self._begun:
            # Some models write the mark that their template wrote already.
            start = text.lstrip()
            if not start or (len(start) < len(self._begin) and self._begin.startswith(start)):
                self._held = text
                return []
            self._begun = True
            if start.startswith(self._begin):
                self._thinking = True
                text = start[len(self._begin) :]
        if not self._thinking:
            self._over = True
            return [Said("content", text)]
        thought, mark, rest = text.partition(self.end)
        if mark:
            self._over = True
            return [each for each in (Said("reasoning", thought), Said("content", rest)) if each.text]
        kept = overlap(text, self.end)
        if kept:
            self._held = text[-kept:]
            text = text[:-kept]
        return [Said("reasoning", text)] if text else []

    def flush(self) -> list[Said]:
        held, self._held = self._held, ""
        return [Said("reasoning" if self._thinking else "content", held)] if held else []


class AfterThought:
    """A `gateway.engine.Constraint` that begins to hold once a thought is over. The rest of the token that ended it,
    if any, is not judged."""

    def __init__(self, constraint: Constraint, end: str, tokenizer: Tokenizer) -> None:
        self._constraint = constraint
        self._end = end.encode()
        self._tokenizer = tokenizer
        self._last = b""
        self._over = False

    def allow(self, mask: NDArray[np.int32]) -> None:
        if self._over:
            self._constraint.allow(mask)
            return
        words, bits = divmod(self._tokenizer.vocab_size, 32)
        mask[:words] = -1
        if words < len(mask):
            mask[words:] = 0
            mask[words] = (1 << bits) - 1

    def accept(self, token_id: int) -> None:
        if self._over:
            self._constraint.accept(token_id)
            return
        self._last += self._tokenizer.token_bytes(token_id)
        self._over = self._end in self._last
        self._last = self._last[-len(self._end) :]
