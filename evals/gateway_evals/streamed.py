"""A streamed answer put together as if it had come whole, and when its first token came. Knows no HTTP client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

_NOT_TEXT = frozenset(
    {"best_of", "echo", "functions", "logprobs", "prompt_logprobs", "stream", "tools", "top_logprobs"}
)


def can_stream(payload: Mapping[str, Any]) -> bool:
    """Whether a request is for one text and nothing else, so that its chunks can be put together without loss."""
    if "max_tokens" not in payload or payload.get("n") not in (None, 1):
        return False
    return isinstance(payload.get("prompt", ""), str) and not payload.keys() & _NOT_TEXT


class BrokenStreamError(Exception):
    """The stream told of an error, or ended before its end."""


class StreamedAnswer:
    """Fed with bytes as they come; `body` afterwards."""

    def __init__(self) -> None:
        self._rest = b""
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._chat = False
        self._reason: str | None = None
        self._usage: Any = None
        self.ended = False
        """`data: [DONE]` has come."""
        self.begun = False
        """Text has come: the first token is there."""

    def feed(self, data: bytes) -> None:
        """Raises BrokenStreamError for an error inside the stream."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip())

    def body(self) -> dict[str, Any]:
        """As a whole answer has it. Raises BrokenStreamError where the end has not come."""
        if not self.ended:
            raise BrokenStreamError("the stream ended before its end")
        text = "".join(self._texts)
        choice: dict[str, Any] = {"index": 0, "finish_reason": self._reason}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": text}
            if self._reasoning:
                choice["message"]["reasoning_content"] = "".join(self._reasoning)
        else:
            choice["text"] = text
        return {"choices": [choice], "usage": self._usage}

    def _event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.ended = True
            return
        try:
            event: Any = msgspec.json.decode(data)
            if "error" in event:
                error = event["error"]
                raise BrokenStreamError(str(error.get("message", error) if isinstance(error, dict) else error))  # pyright: ignore
            self._usage = event.get("usage") or self._usage
            for choice in event.get("choices") or ():
                self._chunk(cast("dict[str, Any]", choice))
        except (AttributeError, TypeError, ValueError, msgspec.DecodeError) as error:
            raise BrokenStreamError(f"an event has an unexpected shape ({type(error).__name__}: {error})") from error

    def _chunk(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        self._chat = self._chat or delta is not None
        text = choice.get("text") if delta is None else delta.get("content")
        thought = None if delta is None else delta.get("reasoning_content") or delta.get("reasoning")
        if text:
            self._texts.append(text)
        if thought:
            self._reasoning.append(thought)
        self.begun = self.begun or bool(text or thought)
        self._reason = choice.get("finish_reason") or self._reason
