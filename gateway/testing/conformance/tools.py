"""Tools: calls that are asked for are made, named as asked, with arguments that obey their schema."""

from __future__ import annotations

import json
from typing import Any

from gateway.testing.conformance.chat import CHAT, chunks_of
from gateway.testing.conformance.check import Group, expect, refuses, same
from gateway.testing.served import Served, chat_body

GROUP = Group("tools")
CITIES = ("Paris", "Rome", "Berlin")
ASK = "What is the weather in Paris? Use the tool."


def _tool(name: str, description: str) -> dict[str, Any]:
    # Enumerations only: the smallest model comes to an end of its arguments.
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": list(CITIES)}, "metric": {"type": "boolean"}},
        "required": ["city", "metric"],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [_tool("get_weather", "The weather of a city now"), _tool("get_time", "The local time of a city")]


def check_call(call: Any, names: set[str]) -> None:
    """A tool call of OpenAI's shape, of one of these names, with arguments as the schema wants them."""
    same(call["type"], "function", "`type`")
    expect(call["id"], "a call without `id`")
    expect(call["function"]["name"] in names, f"{call['function']['name']!r} is none of {sorted(names)}")
    check_arguments(call["function"]["arguments"])


def check_arguments(text: str) -> None:
    arguments = json.loads(text)
    same(set(arguments), {"city", "metric"}, "the arguments' names")
    expect(arguments["city"] in CITIES, f"the city {arguments['city']!r} is not in the enumeration")
    expect(isinstance(arguments["metric"], bool), f"{arguments['metric']!r} is no boolean")


@GROUP.check("tools: auto", "tool")
async def auto(served: Served) -> None:
    choice = (await served.chat(ASK, tools=TOOLS, tool_choice="auto", max_tokens=48))["choices"][0]
    calls: list[Any] = choice["message"].get("tool_calls") or []
    expect(calls or choice["message"]["content"], "neither a call nor a word")
    if calls:
        same(choice["finish_reason"], "tool_calls", "`finish_reason`")
    for call in calls:
        expect(call["function"]["name"], "a call without a name")
        json.loads(call["function"]["arguments"])


@GROUP.check("tools: none", "tool")
async def none(served: Served) -> None:
    choice = (await served.chat(ASK, tools=TOOLS, tool_choice="none", max_tokens=16))["choices"][0]
    expect(not choice["message"].get("tool_calls"), "a call where none was wanted")
    expect(choice["message"]["content"], "the message is empty")


@GROUP.check("tools: required", "tool")
async def required(served: Served) -> None:
    choice = (await served.chat(ASK, tools=TOOLS, tool_choice="required", max_tokens=200))["choices"][0]
    calls = choice["message"]["tool_calls"]
    expect(calls, "no call")
    same(choice["finish_reason"], "tool_calls", "`finish_reason`")
    for call in calls:
        check_call(call, {"get_weather", "get_time"})
    same(len({call["id"] for call in calls}), len(calls), "different ids")


@GROUP.check("tools: named", "tool")
async def named(served: Served) -> None:
    wanted = {"type": "function", "function": {"name": "get_time"}}
    choice = (await served.chat(ASK, tools=TOOLS, tool_choice=wanted, max_tokens=100))["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    check_call(call, {"get_time"})
    expect(choice["finish_reason"] in {"stop", "tool_calls"}, f"`finish_reason` is {choice['finish_reason']!r}")
    nobody = {"type": "function", "function": {"name": "nobody"}}
    await refuses(served, CHAT, 400, "tool", **chat_body(ASK, {"tools": TOOLS, "tool_choice": nobody}))


@GROUP.check("tools: stream", "tool")
async def stream(served: Served) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 200}
    chunks = chunks_of(await served.stream(CHAT, **chat_body(ASK, fields)))
    calls: dict[int, dict[str, str]] = {}
    pieces = 0
    for chunk in chunks:
        for choice in chunk["choices"]:
            parts: list[dict[str, Any]] = choice["delta"].get("tool_calls") or []
            for piece in parts:
                call = calls.setdefault(piece["index"], {"id": "", "name": "", "arguments": ""})
                if piece.get("id"):
                    expect(call["id"] in {"", piece["id"]}, "one call, two ids")
                    call["id"] = piece["id"]
                function: dict[str, Any] = piece.get("function") or {}
                call["name"] += function.get("name") or ""
                call["arguments"] += function.get("arguments") or ""
                pieces += 1
    expect(calls, "no call")
    for call in calls.values():
        expect(call["id"], "a call without `id`")
        expect(call["name"] in {"get_weather", "get_time"}, f"the streamed name is {call['name']!r}")
        check_arguments(call["arguments"])
    expect(pieces > len(calls), "the arguments came as one piece")
    last = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1]
    same(last, "tool_calls", "the last `finish_reason`")


@GROUP.check("tools: results", "tool")
async def results(served: Served) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris", "metric": true}'},
    }
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees, sunny"},
    ]
    body = await served.chat(messages, tools=TOOLS, tool_choice="none", max_tokens=12)
    expect(body["choices"][0]["message"]["content"], "the message is empty")
