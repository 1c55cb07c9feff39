"""However a chat stream is cut, the events are the same; tools, thoughts and text are blocks of their own."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.messages import MessageStream

USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    body = {
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason, **more}],
    }
    return b"data: " + json.dumps({**body, "usage": USAGE}).encode() + b"\n\n"


STREAM = b"".join(
    [
        chunk({"role": "assistant", "reasoning_content": "hm"}),
        chunk({"content": "Let me "}),
        chunk({"content": "see 🙂\n\n"}),
        chunk({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "weather", "arguments": ""}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "time", "arguments": "{}"}}]}),
        chunk({}, "tool_calls"),
        b"data: [DONE]\n\n",
    ]
)


def events(stream: bytes, *cuts: int) -> list[dict[str, Any]]:
    translator = MessageStream("r")
    places = [0, *sorted(cuts), len(stream)]
    written = b"".join(translator.push(stream[a:b]) for a, b in pairwise(places))
    written += translator.end()
    found = [json.loads(part.partition(b"data: ")[2]) for part in written.split(b"\n\n") if part]
    assert [part.partition(b"\n")[0] for part in written.split(b"\n\n") if part] == [
        b"event: " + event["type"].encode() for event in found
    ]
    return found


def test_blocks_come_one_after_the_other() -> None:
    found = events(STREAM)
    starts = [event["content_block"] for event in found if event["type"] == "content_block_start"]
    assert [block["type"] for block in starts] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block.get("name") for block in starts[2:]] == ["weather", "time"]
    texts = "".join(e["delta"].get("text", "") for e in found if e["type"] == "content_block_delta")
    assert texts == "Let me see 🙂\n\n"
    json_text = [e["delta"]["partial_json"] for e in found if e.get("delta", {}).get("type") == "input_json_delta"]
    assert json_text == ['{"city":', '"Paris"}', "{}"]
    assert [e["index"] for e in found if e["type"] == "content_block_stop"] == [0, 1, 2, 3]
    assert found[0]["message"]["usage"] == {"input_tokens": 7, "output_tokens": 0}
    assert found[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert found[-2]["usage"] == {"input_tokens": 7, "output_tokens": 3}


@given(cuts=some.lists(some.integers(0, len(STREAM)), max_size=6))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    assert events(STREAM, *cuts) == events(STREAM)


def test_a_stop_string_is_told_where_the_engine_tells_it() -> None:
    last = events(chunk({"content": "x"}) + chunk({}, "stop", stop_reason="!") + b"data: [DONE]\n\n")[-2]
    assert last["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "!"}


def test_a_stream_that_just_ends_is_an_error() -> None:
    assert events(chunk({"content": "x"}))[-1]["type"] == "error"


def test_line_ends_of_the_other_kind_are_line_ends() -> None:
    assert events(STREAM.replace(b"\n\n", b"\r\n\r\n"), 700, 701) == events(STREAM)


def test_what_is_no_chunk_ends_the_stream_with_an_error() -> None:
    assert events(chunk({"content": "x"}) + b"data: {nonsense\n\n")[-1]["type"] == "error"


def test_a_call_that_was_cut_off_is_no_call() -> None:
    begun = chunk({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "weather", "arguments": '{"ci'}}]})
    last = events(begun + chunk({}, "length") + b"data: [DONE]\n\n")[-2]
    assert last["delta"]["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "gone", "type": "server_error", "code": "unavailable"}, "overloaded_error"),
        ({"message": "full", "type": "rate_limit_error", "code": "rate_limit_exceeded"}, "rate_limit_error"),
        ({"message": 'it broke at "code":"unavailable"', "type": "server_error", "code": None}, "api_error"),
    ],
)
def test_an_error_on_the_way_says_whether_to_try_again(error: dict[str, Any], kind: str) -> None:
    body = json.dumps({"error": error}, separators=(",", ":")).encode()
    (_, *_, last) = events(chunk({"content": "a"}) + b"data: " + body + b"\n\n")
    assert (last["type"], last["error"]["type"], last["error"]["message"]) == ("error", kind, error["message"])
