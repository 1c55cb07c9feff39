"""What passes on the way back: the name the client asked for instead of the target's, usage read and, where the client
had not asked for it, taken out again. Works on bytes; an event is decoded only if it holds usage."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway.types import Usage

_EVENT_END = b"\n\n"
_USAGE_MARK = b'"usage":{'
_DATA = b"data:"


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    def counts(self) -> Usage:
        return Usage(self.prompt_tokens or self.input_tokens or 0, self.completion_tokens or self.output_tokens or 0)


class _Inner(msgspec.Struct):
    usage: _Usage | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None
    response: _Inner | None = None
    """Where /v1/responses' events carry it."""
    choices: list[msgspec.Raw] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


class AnswerFilter:
    """One answer's bytes in, the client's bytes out. `found` is called with each usage that passes."""

    __slots__ = ("_drop_usage", "_found", "_new_name", "_old_name", "_tail")

    def __init__(self, asked: str, target: str, *, drop_usage: bool, found: Callable[[Usage], None]) -> None:
        # The pattern cannot occur inside a JSON string: there its quotes would be escaped.
        self._old_name = b'"model":' + msgspec.json.encode(target) if asked and asked != target else b""
        self._new_name = b'"model":' + msgspec.json.encode(asked) if self._old_name else b""
        self._drop_usage = drop_usage
        self._found = found
        self._tail = b""
        """The beginning of an event whose end has not come yet."""

    def whole(self, body: bytes) -> bytes:
        """A whole JSON answer."""
        if _USAGE_MARK in body or b'"usage": {' in body:
            self._read(body)
        return self._rename(body)

    def chunk(self, chunk: bytes, *, last: bool = False) -> bytes:
        """Some events of a stream. Whole events leave at once; half of one waits for its other half."""
        if self._tail:
            chunk = self._tail + chunk
            self._tail = b""
        if not last and not chunk.endswith(_EVENT_END):
            end = chunk.rfind(_EVENT_END) + 2
            if end == 1:
                # Line ends of the other kind, or no events at all: not ours to cut.
                if b"\r\n\r\n" in chunk:
                    return chunk
                self._tail = chunk
                return b""
            self._tail = chunk[end:]
            chunk = chunk[:end]
        if _USAGE_MARK in chunk:
            chunk = b"".join(event for event in _split(chunk) if self._keep(event))
        return self._rename(chunk)

    def _rename(self, data: bytes) -> bytes:
        return data.replace(self._old_name, self._new_name) if self._old_name else data

    def _keep(self, event: bytes) -> bool:
        if _USAGE_MARK not in event:
            return True
        start = event.find(_DATA) + len(_DATA)
        answer = self._read(event[start:])
        return not (self._drop_usage and answer is not None and answer.choices == [])

    def _read(self, data: bytes) -> _Answer | None:
        try:
            answer = _ANSWER.decode(data)
        except msgspec.DecodeError:
            # Another dialect's usage: passed on, not counted.
            return None
        usage = answer.usage or (answer.response.usage if answer.response is not None else None)
        if usage is not None:
            self._found(usage.counts())
        return answer


def _split(chunk: bytes) -> list[bytes]:
    return [event + _EVENT_END for event in chunk.split(_EVENT_END) if event]
