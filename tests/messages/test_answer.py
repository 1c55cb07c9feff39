"""Whole answers of chat as messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import BackendFailed
from gateway.messages import message_of


def message(said: dict[str, Any], reason: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": reason}
    return json.loads(message_of(json.dumps({"id": "chatcmpl-1", "model": "m", "choices": [choice]}).encode()))


def test_calls_are_blocks_with_parsed_input() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    found = message({"content": None, "reasoning_content": "hm", "tool_calls": [call]}, "tool_calls")
    assert found["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "tool_use", "id": "c", "name": "weather", "input": {"city": "Paris"}},
    ]
    assert found["stop_reason"] == "tool_use"


@pytest.mark.parametrize("arguments", ['{"ci', "[1]"])
def test_input_is_always_an_object(arguments: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    found = message({"tool_calls": [call]}, "length")
    assert found["content"][0]["input"] == {"arguments": arguments}
    assert found["stop_reason"] == "max_tokens"


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b'{"choices": []}', b'{"choices": [5]}', b"\xff"])
def test_what_is_no_chat_completion_is_the_backends_fault(body: bytes) -> None:
    with pytest.raises(BackendFailed):
        message_of(body)
