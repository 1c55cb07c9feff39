"""`/v1/messages`: Anthropic's shape of a conversation, its events and its errors."""

from __future__ import annotations

from typing import Any

from gateway.testing.conformance.chat import QUESTION
from gateway.testing.conformance.check import Group, expect, same
from gateway.testing.conformance.tools import ASK, CITIES, TOOLS
from gateway.testing.served import Rejected, Served

GROUP = Group("messages")
PATH = "/v1/messages"
HEADERS = {"anthropic-version": "2023-06-01"}
ASKED: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]


async def _make(served: Served, path: str = PATH, **fields: Any) -> Any:
    reply = await served.request("POST", path, json=_body(served, fields), headers=HEADERS)
    if reply.status != 200:
        raise Rejected(reply, f"POST {path}")
    return reply.json()


def _body(served: Served, fields: dict[str, Any]) -> dict[str, Any]:
    return {"model": served.model, "messages": ASKED, "temperature": 0, "max_tokens": 40, **fields}


@GROUP.check("messages")
async def messages(served: Served) -> None:
    body = await _make(served)
    same((body["type"], body["role"]), ("message", "assistant"), "`type` and `role`")
    same(body["model"], served.model, "`model`")
    chat = await served.chat(QUESTION, max_tokens=40)
    (block,) = body["content"]
    same(block["type"], "text", "the block's `type`")
    same(block["text"], chat["choices"][0]["message"]["content"], "the text beside a chat's")
    same(body["usage"]["input_tokens"], chat["usage"]["prompt_tokens"], "`input_tokens`")
    same(body["usage"]["output_tokens"], chat["usage"]["completion_tokens"], "`output_tokens`")
    same(
        body["stop_reason"],
        "end_turn" if chat["choices"][0]["finish_reason"] == "stop" else "max_tokens",
        "`stop_reason`",
    )
    blocks = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    same((await _make(served, messages=blocks))["content"], body["content"], "the same question as a block")
    told = await _make(served, system="Be brief.")
    expect(told["usage"]["input_tokens"] != body["usage"]["input_tokens"], "`system` changes nothing")
    same((await _make(served, max_tokens=1))["stop_reason"], "max_tokens", "`stop_reason` at `max_tokens`")
    cut = block["text"][len(block["text"]) // 2 :][:2]
    stopped = await _make(served, stop_sequences=[cut])
    same(stopped["stop_reason"], "stop_sequence", "`stop_reason` at a stop sequence")
    same(stopped["stop_sequence"], cut, "`stop_sequence`")
    reply = await served.request(
        "POST", PATH, json={"model": served.model, "messages": ASKED, "max_tokens": "many"}, headers=HEADERS
    )
    same(reply.status, 400, "the status of a wrong `max_tokens`")
    same(reply.json()["type"], "error", "an error's `type`")
    same(reply.json()["error"]["type"], "invalid_request_error", "the error's own `type`")
    expect("max_tokens" in reply.json()["error"]["message"], "the error does not name `max_tokens`")


@GROUP.check("messages stream", "stream")
async def messages_stream(served: Served) -> None:
    whole = await _make(served)
    reply = await served.request("POST", PATH, json=_body(served, {"stream": True}), headers=HEADERS)
    if reply.status != 200:
        raise Rejected(reply, f"POST {PATH} (stream)")
    events = [event for event in reply.events() if event.name != "ping"]
    for event in events:
        same(event.name, event.data["type"], "the `event:` line")
    kinds = [event.name for event in events]
    same(kinds[:2], ["message_start", "content_block_start"], "the first events")
    same(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"], "the last events")
    same(set(kinds[2:-3]), {"content_block_delta"}, "the events between")
    text = "".join(event.data["delta"]["text"] for event in events if event.name == "content_block_delta")
    same(text, whole["content"][0]["text"], "the streamed text")
    same(events[-2].data["delta"]["stop_reason"], whole["stop_reason"], "`stop_reason`")
    same(events[-2].data["usage"]["output_tokens"], whole["usage"]["output_tokens"], "`output_tokens`")
    start = events[0].data["message"]
    same(start["role"], "assistant", "the `role` of the message that starts")
    expect(not start["content"], "the message that starts holds content")


@GROUP.check("count_tokens")
async def count_tokens(served: Served) -> None:
    used = (await _make(served, max_tokens=1))["usage"]["input_tokens"]
    reply = await served.request(
        "POST", f"{PATH}/count_tokens", json={"model": served.model, "messages": ASKED}, headers=HEADERS
    )
    if reply.status != 200:
        raise Rejected(reply, f"POST {PATH}/count_tokens")
    same(reply.json()["input_tokens"], used, "`input_tokens` beside the message's own count")


@GROUP.check("messages tools", "tool")
async def messages_tools(served: Served) -> None:
    tools = [
        {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
        for one in (tool["function"] for tool in TOOLS)
    ]
    asked = [{"role": "user", "content": ASK}]
    fields: dict[str, Any] = {"tools": tools, "max_tokens": 200}
    body = await _make(served, messages=asked, tool_choice={"type": "any"}, **fields)
    same(body["stop_reason"], "tool_use", "`stop_reason`")
    uses = [block for block in body["content"] if block["type"] == "tool_use"]
    expect(uses, "no `tool_use`")
    for use in uses:
        expect(use["id"] and use["name"] in {"get_weather", "get_time"}, f"a call of {use['name']!r}")
        expect(use["input"]["city"] in CITIES and isinstance(use["input"]["metric"], bool), f"the input {use['input']}")
    results = [{"type": "tool_result", "tool_use_id": use["id"], "content": "sunny"} for use in uses]
    told = [*asked, {"role": "assistant", "content": uses}, {"role": "user", "content": results}]
    after = await _make(served, messages=told, tools=tools, tool_choice={"type": "none"})
    expect(after["content"], "no words after the result")
