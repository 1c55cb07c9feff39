"""A chat completion in the shape of a response: whole, and as the typed events of a stream."""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec

from gateway.errors import BackendFailed
from gateway.messages.answer import ChatAnswer, Choice, Usage
from gateway.responses.request import ResponseRequest

_chat = msgspec.json.Decoder(ChatAnswer)
_encode = msgspec.json.Encoder().encode
_END = b"\n\n"


def new_id(prefix: str) -> str:
    """`resp_…`, `msg_…`, `fc_…`, `rs_…`: 96 random bits, since knowing one is part of being allowed to read it."""
    return f"{prefix}_{secrets.token_hex(12)}"


def begun(asked: ResponseRequest, model: str) -> dict[str, Any]:
    """A response that has been asked for and holds nothing yet."""
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": bool(asked.background),
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "reasoning": {"effort": (asked.reasoning or {}).get("effort"), "summary": None},
        "store": asked.store is not False,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": asked.text or {"format": {"type": "text"}},
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": asked.user,
    }


def complete(response: dict[str, Any], body: bytes) -> None:
    """Fill in what a whole chat completion says. Raises BackendFailed for what is none."""
    try:
        answer = _chat.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackendFailed(f"the model's answer is no chat completion: {error}") from error
    if not answer.choices:
        raise BackendFailed("the model's answer holds no choice")
    choice = answer.choices[0]
    said, output = choice.message, list[dict[str, Any]]()
    if said.reasoning_content:
        output.append(reasoning_item(said.reasoning_content))
    if said.content or not said.tool_calls:
        output.append(message_item(said.content or ""))
    for call in said.tool_calls or ():
        output.append(call_item(call.id or "", call.function.name or "", call.function.arguments or ""))
    response["output"] = output
    close(response, choice.finish_reason, answer.usage)


def close(response: dict[str, Any], finish_reason: str | None, usage: Usage | None) -> None:
    """Its end: why, and what it took."""
    response["status"] = "completed"
    if finish_reason == "length":
        response |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        if response["output"]:
            response["output"][-1]["status"] = "incomplete"
    response["completed_at"] = int(time.time())
    if usage is not None:
        response["usage"] = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }


def fail(response: dict[str, Any], message: str) -> None:
    """What it is when the model fails on its way."""
    response |= {"status": "failed", "error": {"code": "server_error", "message": message}}


def message_item(text: str) -> dict[str, Any]:
    """The model's words."""
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": new_id("msg"), "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def reasoning_item(text: str) -> dict[str, Any]:
    """Its thoughts."""
    part = {"type": "reasoning_text", "text": text}
    return {"id": new_id("rs"), "type": "reasoning", "summary": [], "content": [part], "status": "completed"}


def call_item(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of a tool."""
    return {
        "id": new_id("fc"), "type": "function_call", "status": "completed",
        "call_id": call_id, "name": name, "arguments": arguments,
    }  # fmt: skip


class ResponseStream:
    """One response's events, made of chat's chunks as they come."""

    def __init__(self, response: dict[str, Any]) -> None:
        self.response = response
        self.over = False
        """Whether the last event has been made; the response is whole then."""
        self._tail = b""
        self._number = 0
        self._begun = False
        self._open: tuple[str, int] | None = None
        self._last = Choice()
        self._usage: Usage | None = None

    def push(self, chunk: bytes) -> bytes:
        """The events that these bytes make."""
        *events, self._tail = (self._tail + chunk).replace(b"\r\n", b"\n").split(_END)
        return b"".join([self._one(event) for event in events])

    def end(self) -> bytes:
        """After the last bytes; b"" where the stream has ended properly."""
        return b"" if self.over else self._fail("the model ended its answer too early")

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = _encode({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _one(self, event: bytes) -> bytes:
        at = event.find(b"data:")
        if self.over or at < 0:
            return b""
        data = event[at + 5 :].strip()
        if data == b"[DONE]":
            return self._finish()
        try:
            answer = _chat.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._fail("the model sent an event that is no chunk of a chat")
        if answer.error is not None:
            return self._fail(str(answer.error.get("message") or "the model failed"))
        self._usage = answer.usage or self._usage
        return self._start() + b"".join([self._said(choice) for choice in answer.choices])

    def _start(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return self._event("response.created", response=self.response) + self._event(
            "response.in_progress", response=self.response
        )

    def _said(self, choice: Choice) -> bytes:
        delta, found = choice.delta, b""
        if delta.reasoning_content:
            found += self._turn("reasoning", 0, lambda: reasoning_item(""))
            found += self._add("response.reasoning_text.delta", delta.reasoning_content)
        if delta.content:
            found += self._turn("message", 0, lambda: message_item(""))
            found += self._add("response.output_text.delta", delta.content)
        for call in delta.tool_calls or ():
            found += self._turn(
                "call", call.index, lambda call=call: call_item(call.id or "", call.function.name or "", "")
            )
            if call.function.arguments:
                item = self.response["output"][-1]
                item["arguments"] += call.function.arguments
                found += self._event(
                    "response.function_call_arguments.delta", delta=call.function.arguments, **self._place()
                )
        if choice.finish_reason is not None:
            self._last = choice
        return found

    def _turn(self, kind: str, number: int, make: Any) -> bytes:
        """Begin an item, where it is not the one being written."""
        if self._open == (kind, number):
            return b""
        found = self._close()
        self._open = (kind, number)
        item: dict[str, Any] = make() | {"status": "in_progress"}
        self.response["output"].append(item)
        shown: dict[str, Any] = item if kind == "call" else {**item, "content": []}
        found += self._event("response.output_item.added", output_index=len(self.response["output"]) - 1, item=shown)
        if kind != "call":
            found += self._event(
                "response.content_part.added", content_index=0, part=item["content"][0], **self._place()
            )
        return found

    def _add(self, kind: str, text: str) -> bytes:
        self.response["output"][-1]["content"][0]["text"] += text
        more: dict[str, Any] = {"logprobs": []} if kind == "response.output_text.delta" else {}
        return self._event(kind, content_index=0, delta=text, **more, **self._place())

    def _place(self) -> dict[str, Any]:
        output = self.response["output"]
        return {"item_id": output[-1]["id"], "output_index": len(output) - 1}

    def _close(self, status: str = "completed") -> bytes:
        if self._open is None:
            return b""
        kind, item, place = self._open[0], self.response["output"][-1], self._place()
        self._open = None
        item["status"] = status
        if kind == "call":
            found = self._event(
                "response.function_call_arguments.done", arguments=item["arguments"], name=item["name"], **place
            )
        else:
            part = item["content"][0]
            done = "response.output_text.done" if kind == "message" else "response.reasoning_text.done"
            more: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
            found = self._event(done, content_index=0, text=part["text"], **more, **place)
            found += self._event("response.content_part.done", content_index=0, part=part, **place)
        return found + self._event("response.output_item.done", output_index=place["output_index"], item=item)

    def _finish(self) -> bytes:
        found = self._start()
        if not self.response["output"]:
            found += self._turn("message", 0, lambda: message_item(""))
        found += self._close("incomplete" if self._last.finish_reason == "length" else "completed")
        close(self.response, self._last.finish_reason, self._usage)
        self.over = True
        return found + self._event(f"response.{self.response['status']}", response=self.response)

    def _fail(self, message: str) -> bytes:
        found = self._start()
        self.over = True
        fail(self.response, message)
        return found + self._event("response.failed", response=self.response)
