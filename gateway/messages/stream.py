"""Chat's chunks as Anthropic's events, one for one as they come: nothing is held back but the last word on usage."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.messages.answer import ChatAnswer, Choice, Usage, error_body, head, why

_chat = msgspec.json.Decoder(ChatAnswer)
_encode = msgspec.json.Encoder().encode
_END = b"\n\n"
_DATA = b"data:"


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **fields}))


class MessageStream:
    """One answer's events."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._tail = b""
        self._begun = False
        self._over = False
        self._open: tuple[str, int] | None = None
        """The block being written: its kind, and for a tool the number of its call."""
        self._blocks = 0
        self._called = False
        self._last = Choice()
        self._usage = Usage()

    def push(self, chunk: bytes) -> bytes:
        """The events that these bytes make."""
        *events, self._tail = (self._tail + chunk).replace(b"\r\n", b"\n").split(_END)
        return b"".join([self._one(event) for event in events])

    def end(self) -> bytes:
        """After the last bytes; b"" where the stream has ended properly."""
        if self._over:
            return b""
        return self._fail(b'{"error":{"message":"the model ended its answer too early"}}')

    def _one(self, event: bytes) -> bytes:
        at = event.find(_DATA)
        if self._over or at < 0:
            return b""
        data = event[at + len(_DATA) :].strip()
        if data == b"[DONE]":
            return self._finish()
        try:
            answer = _chat.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._fail(b'{"error":{"message":"the model sent an event that is no chunk of a chat"}}')
        if answer.error is not None:
            return self._fail(data)
        if answer.usage is not None:
            self._usage = answer.usage
        found = b"" if self._begun else self._start(answer)
        for choice in answer.choices:
            found += self._said(choice)
        return found

    def _start(self, answer: ChatAnswer) -> bytes:
        self._begun = True
        usage = {"input_tokens": self._usage.prompt_tokens, "output_tokens": 0}
        message: dict[str, Any] = {
            **head(answer),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return _event("message_start", message=message)

    def _said(self, choice: Choice) -> bytes:
        delta, found = choice.delta, b""
        if delta.reasoning_content:
            found += self._block("thinking", 0, {"type": "thinking", "thinking": "", "signature": ""})
            found += self._delta({"type": "thinking_delta", "thinking": delta.reasoning_content})
        if delta.content:
            found += self._block("text", 0, {"type": "text", "text": ""})
            found += self._delta({"type": "text_delta", "text": delta.content})
        for call in delta.tool_calls or ():
            self._called = True
            block: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.function.name, "input": {}}
            found += self._block("tool_use", call.index, block)
            if call.function.arguments:
                found += self._delta({"type": "input_json_delta", "partial_json": call.function.arguments})
        if choice.finish_reason is not None:
            self._last = choice
        return found

    def _block(self, kind: str, number: int, block: dict[str, Any]) -> bytes:
        if self._open == (kind, number):
            return b""
        found = self._close()
        self._open = (kind, number)
        return found + _event("content_block_start", index=self._blocks, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._blocks, delta=delta)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        self._blocks += 1
        return _event("content_block_stop", index=self._blocks - 1)

    def _finish(self) -> bytes:
        self._over = True
        found = b"" if self._begun else self._start(ChatAnswer())
        found += self._close()
        reason, sequence = why(self._last, called=self._called)
        usage = {"input_tokens": self._usage.prompt_tokens, "output_tokens": self._usage.completion_tokens}
        found += _event("message_delta", delta={"stop_reason": reason, "stop_sequence": sequence}, usage=usage)
        return found + _event("message_stop")

    def _fail(self, data: bytes) -> bytes:
        self._over = True
        # The status it would have had, if the answer had not begun.
        status = 503 if b'"code":"unavailable"' in data else 429 if b'"type":"rate_limit_error"' in data else 500
        return b"event: error\ndata: %b\n\n" % error_body(status, data, self._request_id)
