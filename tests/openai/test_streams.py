"""What leaves, when, and in how many messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.engine import Delta, Generation
from gateway.errors import Unavailable
from gateway.testing.client import parse_events

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
END = 258


def said(events: list[Any]) -> list[str]:
    return [event["choices"][0]["delta"]["content"] for event in events]


async def test_a_delta_leaves_as_one_message_with_an_event_for_each_token(dictate: Any) -> None:
    _, client = dictate(Delta(list(b"abc")), Delta(list(b"de")), Delta([END], finish_reason="stop"))
    answer = await client.post(CHAT, {"messages": MESSAGES, "stream": True})
    assert [len(parse_events(chunk)) for chunk in answer.chunks] == [3, 2, 2]
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.events()
    assert said(events) == ["a", "b", "c", "d", "e", ""]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 5 + ["stop"]
    assert [event["choices"][0]["delta"].get("role") for event in events] == ["assistant"] + [None] * 5
    assert len({event["id"] for event in events}) == 1


async def test_the_finish_reason_joins_the_last_text_of_its_delta(dictate: Any) -> None:
    _, client = dictate(Delta([*b"ab", END], finish_reason="stop"))
    events = (await client.post(CHAT, {"messages": MESSAGES, "stream": True})).events()
    assert said(events) == ["a", "b"]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


async def test_an_empty_answer_is_one_event_with_the_role(dictate: Any) -> None:
    _, client = dictate(Delta([END], finish_reason="stop"))
    events = (await client.post(CHAT, {"messages": MESSAGES, "stream": True})).events()
    assert len(events) == 1
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


async def test_usage_comes_only_when_asked_for_and_last(dictate: Any) -> None:
    _, client = dictate(Delta(list(b"ab"), cached_tokens=3), Delta([END], finish_reason="stop"))
    plain = (await client.post(CHAT, {"messages": MESSAGES, "stream": True})).events()
    assert all("usage" not in event for event in plain)
    options = {"include_usage": True, "continuous_usage_stats": True}
    asked = {"messages": MESSAGES, "stream": True, "stream_options": options}
    *events, last = (await client.post(CHAT, asked)).events()
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    assert [event["usage"]["completion_tokens"] for event in events] == [2, 2, 3]


async def test_a_character_waits_for_all_of_its_bytes(dictate: Any) -> None:
    snowman = list("☃".encode())
    _, client = dictate(Delta(snowman[:1]), Delta(snowman[1:2]), Delta([snowman[2], *b"!"], finish_reason="length"))
    events = (await client.post(CHAT, {"messages": MESSAGES, "stream": True})).events()
    assert said(events) == ["☃", "!"]


async def test_half_a_character_at_the_end_is_shown_as_such(dictate: Any) -> None:
    for stream in (True, False):
        _, client = dictate(Delta([*b"a", 0xE2], finish_reason="length"))
        answer = await client.post(COMPLETIONS, {"prompt": "x", "stream": stream})
        texts = [event["choices"][0]["text"] for event in (answer.events() if stream else [answer.json()])]
        assert "".join(texts) == "a\ufffd"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stop_string_over_several_tokens_and_deltas(dictate: Any, stream: bool) -> None:
    engine, client = dictate(Delta(list(b"one S")), Delta(list(b"TO")), Delta(list(b"P two")), 60.0)
    answer = await client.post(COMPLETIONS, {"prompt": "x", "stop": ["STOP"], "stream": stream, "max_tokens": 50})
    bodies = answer.events() if stream else [answer.json()]
    assert "".join(body["choices"][0]["text"] for body in bodies) == "one "
    assert bodies[-1]["choices"][0]["finish_reason"] == "stop"
    if not stream:
        assert bodies[0]["usage"]["completion_tokens"] == 8
    assert engine.closed == 1


async def test_text_that_only_began_like_a_stop_string_is_shown(dictate: Any) -> None:
    _, client = dictate(Delta(list(b"STO")), Delta(list(b"RM ST")), Delta([END], finish_reason="stop"))
    events = (await client.post(CHAT, {"messages": MESSAGES, "stream": True, "stop": "STOP"})).events()
    assert "".join(said(events)) == "STORM ST"
    assert said(events)[0] == "STOR"


async def test_an_error_before_the_first_event_has_its_status(dictate: Any) -> None:
    _, client = dictate(Unavailable("full", retry_after_s=2))
    answer = await client.post(CHAT, {"messages": MESSAGES, "stream": True})
    assert answer.status == 503
    assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize("error,kind", [(Unavailable("gone"), "gone"), (KeyError("k"), "the engine failed: KeyError")])
async def test_an_error_in_a_stream_is_an_event(dictate: Any, error: Exception, kind: str) -> None:
    _, client = dictate(Delta(list(b"a")), error)
    answer = await client.post(CHAT, {"messages": MESSAGES, "stream": True})
    assert answer.status == 200
    assert answer.events()[-1]["error"]["message"] == kind


async def test_an_engine_that_crashes_or_forgets_to_finish_is_a_502(dictate: Any) -> None:
    for sayings in ([KeyError("k")], [Delta(list(b"a"))]):
        _, client = dictate(*sayings)
        answer = await client.post(CHAT, {"messages": MESSAGES})
        assert answer.status == 502
        assert answer.json()["error"]["code"] == "backend_failed"


@pytest.mark.parametrize("stream", [True, False])
async def test_one_failure_does_not_wait_for_the_others(dictate: Any, stream: bool) -> None:
    def first_fails(generation: Generation) -> Any:
        return Unavailable("gone") if generation.id.endswith("-0") else 60.0

    engine, client = dictate(first_fails)
    asked = {"prompt": "x", "n": 3, "stream": stream}
    answer = await asyncio.wait_for(client.post(COMPLETIONS, asked), timeout=2)
    assert answer.status == 503
    assert engine.running == 0


async def test_copies_stream_side_by_side_and_one_failure_ends_all(dictate: Any) -> None:
    asked = {"prompt": ["x", "y"], "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    _, client = dictate(Delta(list(b"a"), cached_tokens=1), 0.01, Delta([*b"b", END], finish_reason="stop"))
    *events, usage = (await client.post(COMPLETIONS, asked)).events()
    texts = ["", "", "", ""]
    reasons: list[int] = []
    for event in events:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["text"]
        if choice["finish_reason"]:
            reasons.append(choice["index"])
    assert texts == ["ab"] * 4
    assert sorted(reasons) == [0, 1, 2, 3]
    # A prompt is counted once, however many copies continue it.
    counts = {"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16}
    assert usage["usage"] == {**counts, "prompt_tokens_details": {"cached_tokens": 2}}
    engine, client = dictate(Delta(list(b"a")), 0.01, Unavailable("gone"))
    answer = await client.post(COMPLETIONS, asked)
    assert answer.events()[-1]["error"]["message"] == "gone"
    assert (engine.running, engine.closed) == (0, 4)
    assert (await client.post(COMPLETIONS, {**asked, "stream": False})).status == 503
    assert engine.running == 0
