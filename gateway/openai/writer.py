"""The bytes of one answer, whole or as events: what stays the same is encoded once, a token costs its text alone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from gateway.engine import Tokenizer
from gateway.openai.choice import Choice, Piece, Scored, Step
from gateway.openai.logprobs import chat_logprobs, completion_logprobs, prompt_logprobs
from gateway.openai.reading import Said
from gateway.openai.requests import GenerateRequest

_json = msgspec.json.Encoder().encode
_NO_REASON = b'"finish_reason":null'


class Shape(NamedTuple):
    """How an endpoint's answers differ from the other's, as fragments of JSON around the text."""

    id_prefix: bytes
    whole: bytes
    """`object` of a whole answer."""
    chunk: bytes
    """`object` of an event."""
    message: bytes
    """Before a whole answer's text."""
    first: bytes
    """Before the text of a choice's first event: the role travels with it, since an event of its own would be timed as
    the first token."""
    more: bytes
    """Before the text of its later events."""
    close: bytes
    """After the text."""
    logprobs: Callable[[Sequence[Scored], Tokenizer], dict[str, Any]]


CHAT = Shape(
    id_prefix=b"chatcmpl-",
    whole=b"chat.completion",
    chunk=b"chat.completion.chunk",
    message=b'"message":{"role":"assistant","content":',
    first=b'"delta":{"role":"assistant","content":',
    more=b'"delta":{"content":',
    close=b"}",
    logprobs=chat_logprobs,
)
COMPLETION = Shape(
    id_prefix=b"cmpl-",
    whole=b"text_completion",
    chunk=b"text_completion",
    message=b'"text":',
    first=b'"text":',
    more=b'"text":',
    close=b"",
    logprobs=completion_logprobs,
)


class Writer:
    """One answer's writer."""

    def __init__(
        self,
        shape: Shape,
        request: GenerateRequest,
        model: bytes,
        prompt_tokens: int,
        tokenizer: Tokenizer,
        copies: int = 1,
    ) -> None:
        """`model` is the name as JSON; `prompt_tokens` counts every prompt once; `copies` is the request's `n`."""
        options = request.stream_options
        self.id = b"%b%024x" % (shape.id_prefix, random.getrandbits(96))
        self._shape = shape
        self._tokenizer = tokenizer
        self._prompt_tokens = prompt_tokens
        self._copies = copies
        self._prompt_logprobs = request.prompt_logprobs
        self._include_usage = options is not None and bool(options.include_usage)
        self._continuous = options is not None and bool(options.continuous_usage_stats)
        kind = shape.chunk if request.stream else shape.whole
        now = int(time.time())
        self._head = b'{"id":"%b","object":"%b","created":%d,"model":%b,"choices":[' % (self.id, kind, now, model)

    def events(self, choice: Choice, step: Step) -> bytes:
        """The stream's events for this step's pieces; the last bears its finish reason."""
        shape = self._shape
        start = b'data: %b{"index":%d,' % (self._head, choice.index)
        if choice.reads:
            return self._said_events(choice, step, start)
        before = start + shape.more
        usage = b""
        if self._continuous:
            usage = b',"usage":' + usage_json(self._prompt_tokens, step.completion_tokens)
        after = shape.close + b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        pieces = step.pieces
        if choice.prefix is not None and not choice.started:
            shown = choice.prefix
            pieces = [Piece(shown.text + pieces[0].text, [*shown.tokens, *pieces[0].tokens]), *pieces[1:]]
        # The loop that runs once a token: where there is nothing but text, nothing but text is encoded.
        events = [before + _json(text) + after for text, _, _ in pieces]
        if choice.generation.sampling.logprobs is not None:
            for position, (text, tokens, _) in enumerate(pieces):
                if tokens:
                    logprobs = _json(shape.logprobs(tokens, self._tokenizer))
                    events[position] = before + _json(text) + after.replace(b"null", logprobs, 1)
        if not choice.started:
            choice.started = True
            events[0] = start + shape.first + events[0][len(before) :]
        if step.finish_reason is not None:
            head, _, tail = events[-1].rpartition(_NO_REASON)
            events[-1] = head + _ending(choice) + tail
        return b"".join(events)

    def _said_events(self, choice: Choice, step: Step, start: bytes) -> bytes:
        """The same where the text is told apart into thoughts, words and calls."""
        usage = b""
        if self._continuous:
            usage = b',"usage":' + usage_json(self._prompt_tokens, step.completion_tokens)
        events: list[bytes] = []
        for piece in step.pieces:
            delta = self._delta(choice, piece.said)
            if not choice.started:
                choice.started = True
                delta = {"role": "assistant", **delta}
                # Whatever else comes first, clients expect the key beside the role.
                delta.setdefault("content", None if len(delta) > 1 else "")
            logprobs = _json(self._shape.logprobs(piece.tokens, self._tokenizer)) if piece.tokens else b"null"
            ending = _NO_REASON
            if step.finish_reason is not None and piece is step.pieces[-1]:
                ending = _ending(choice)
            events.append(b'%b"delta":%b,"logprobs":%b,%b}]%b}\n\n' % (start, _json(delta), logprobs, ending, usage))
        return b"".join(events)

    def _delta(self, choice: Choice, said: Sequence[Said]) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        calls: dict[int, dict[str, Any]] = {}
        for kind, text, number in said:
            if kind == "content":
                delta["content"] = delta.get("content", "") + text
            elif kind == "reasoning":
                # Under both names: clients read the one or the other.
                delta["reasoning"] = delta["reasoning_content"] = delta.get("reasoning", "") + text
            elif kind == "name":
                function = {"name": text, "arguments": ""}
                calls[number] = {"index": number, "id": self._call_id(choice, number), "type": "function"}
                calls[number]["function"] = function
            else:
                call = calls.setdefault(number, {"index": number, "function": {"arguments": ""}})
                call["function"]["arguments"] += text
        if calls:
            delta["tool_calls"] = list(calls.values())
        return delta

    def _message(self, choice: Choice, pieces: Sequence[Piece]) -> bytes:
        """The whole answer's message."""
        said = self._delta(choice, [each for piece in pieces for each in piece.said])
        for call in said.get("tool_calls", ()):
            del call["index"]
        content: str | None = said.pop("content", None)
        if content is None and not said.get("tool_calls"):
            content = ""
        return b'"message":' + _json({"role": "assistant", "content": content, **said})

    def _call_id(self, choice: Choice, number: int) -> str:
        return f"call_{self.id.decode().rpartition('-')[2]}{choice.index:x}{number:x}"

    def usage_event(self, choices: Sequence[Choice]) -> bytes:
        """The stream's last event before the end mark; b"" where usage was not asked for."""
        if not self._include_usage:
            return b""
        return b'data: %b],"usage":%b}\n\n' % (self._head, self._usage(choices))

    def body(self, choices: Sequence[Choice], pieces: Sequence[Sequence[Piece]]) -> bytes:
        """The whole answer."""
        shape = self._shape
        rows: list[bytes] = []
        for choice, shown in zip(choices, pieces, strict=True):
            if choice.prefix is not None:
                shown = [choice.prefix, *shown]
            text = shown[0].text if len(shown) == 1 else "".join([piece.text for piece in shown])
            logprobs = b"null"
            if choice.generation.sampling.logprobs is not None:
                tokens = [token for piece in shown for token in piece.tokens]
                logprobs = _json(shape.logprobs(tokens, self._tokenizer))
            message = self._message(choice, shown) if choice.reads else shape.message + _json(text) + shape.close
            prompt = b"" if shape is CHAT else self._prompt(choice)
            rows.append(
                b'{"index":%d,%b,"logprobs":%b,%b%b}' % (choice.index, message, logprobs, _ending(choice), prompt)
            )
        # Chat has one prompt, whatever the number of choices.
        prompt = self._prompt(choices[0]) if shape is CHAT else b""
        return b'%b%b],"usage":%b%b}' % (self._head, b",".join(rows), self._usage(choices), prompt)

    def _prompt(self, choice: Choice) -> bytes:
        """The prompt's log-probabilities, where they were asked for."""
        if self._prompt_logprobs is None or choice.prompt_scores is None:
            return b""
        rows = prompt_logprobs(choice.generation.prompt, choice.prompt_scores, self._prompt_logprobs, self._tokenizer)
        return b',"prompt_logprobs":' + _json(rows)

    def _usage(self, choices: Sequence[Choice]) -> bytes:
        made = sum([choice.completion_tokens for choice in choices])
        cached = sum([choice.cached_tokens for choice in choices[:: self._copies]])
        return usage_json(self._prompt_tokens, made, cached)


def _ending(choice: Choice) -> bytes:
    """`finish_reason` and `stop_reason` of a choice that is over. A call that was cut off is none."""
    reason = choice.finish_reason or "stop"
    if choice.called and reason == "stop":
        return b'"finish_reason":"tool_calls","stop_reason":null'
    stop = b"null" if choice.stop_reason is None else _json(choice.stop_reason)
    return b'"finish_reason":"%b","stop_reason":%b' % (reason.encode(), stop)


def usage_json(prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> bytes:
    """`usage`; the cache's share is told where there is one."""
    total = prompt_tokens + completion_tokens
    details = b',"prompt_tokens_details":{"cached_tokens":%d}' % cached_tokens if cached_tokens else b""
    counts = b'"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d' % (prompt_tokens, completion_tokens, total)
    return b"{%b%b}" % (counts, details)
