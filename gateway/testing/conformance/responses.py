"""`/v1/responses`: one answer, its typed events, and what is kept of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from gateway.testing.conformance.chat import QUESTION
from gateway.testing.conformance.check import Group, error_of, expect, refuses, same
from gateway.testing.conformance.guided import SCHEMA, check_city
from gateway.testing.conformance.tools import ASK, TOOLS, check_arguments
from gateway.testing.served import Reply, Served

GROUP = Group("responses")
PATH = "/v1/responses"
ORDER = (
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
)


def text_of(response: Any) -> str:
    """The words of a response."""
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    )


async def _make(served: Served, **fields: Any) -> Any:
    return await served.post(PATH, **{"input": QUESTION, "temperature": 0, "max_output_tokens": 40, **fields})


@GROUP.check("responses")
async def responses(served: Served) -> None:
    body = await _make(served)
    same(body["object"], "response", "`object`")
    same(body["status"], "completed", "`status`")
    same(body["model"], served.model, "`model`")
    expect(body["id"].startswith("resp"), f"the id is {body['id']!r}")
    chat = await served.chat(QUESTION, max_tokens=40)
    same(text_of(body), chat["choices"][0]["message"]["content"], "the text beside a chat's")
    usage = body["usage"]
    same(usage["input_tokens"], chat["usage"]["prompt_tokens"], "`input_tokens` beside a chat's `prompt_tokens`")
    same(usage["output_tokens"], chat["usage"]["completion_tokens"], "`output_tokens`")
    same(usage["total_tokens"], usage["input_tokens"] + usage["output_tokens"], "`total_tokens`")
    items = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]
    same(text_of(await _make(served, input=items)), text_of(body), "the same question as an item")
    told = await _make(served, instructions="Be brief and answer in French, always.")
    expect(told["usage"]["input_tokens"] != usage["input_tokens"], "`instructions` change nothing")
    short = await _make(served, input="Tell me a long story about a dragon", max_output_tokens=2)
    same(short["status"], "incomplete", "`status` at `max_output_tokens`")
    same(short["incomplete_details"]["reason"], "max_output_tokens", "`incomplete_details.reason`")
    await refuses(served, PATH, 400, "input", input=17)


@GROUP.check("responses stream", "stream")
async def responses_stream(served: Served) -> None:
    whole = await _make(served)
    events = [
        event
        for event in await served.stream(PATH, input=QUESTION, temperature=0, max_output_tokens=40)
        if event.data != "[DONE]"
    ]
    kinds = [event.data["type"] for event in events]
    for event in events:
        same(event.name, event.data["type"], "the `event:` line")
    numbers = [event.data["sequence_number"] for event in events]
    same(numbers, list(range(numbers[0], numbers[0] + len(numbers))), "sequence numbers")
    places = [kinds.index(kind) if kind in kinds else -1 for kind in ORDER]
    missing = [kind for kind, place in zip(ORDER, places, strict=True) if place < 0]
    expect(not missing, f"no event {', '.join(missing)}")
    same(places, sorted(places), "the events' order")
    same(kinds[-1], "response.completed", "the last event")
    deltas = "".join(event.data["delta"] for event in events if event.data["type"] == "response.output_text.delta")
    same(deltas, text_of(whole), "the streamed text")
    same(text_of(events[-1].data["response"]), deltas, "the text of `response.completed`")
    same(events[-1].data["response"]["usage"]["output_tokens"], whole["usage"]["output_tokens"], "`output_tokens`")


@GROUP.check("responses chain/retrieve/delete", "previous_response_id|store")
async def responses_kept(served: Served) -> None:
    first = await _make(served, input="My name is Zaphod.")
    again = await served.get(f"{PATH}/{first['id']}")
    same(again["id"], first["id"], "`id`")
    same(text_of(again), text_of(first), "the text, asked for again")
    same(again["usage"], first["usage"], "`usage`, asked for again")
    second = await _make(served, input="What is my name?", previous_response_id=first["id"])
    same(second["previous_response_id"], first["id"], "`previous_response_id`")
    alone = await _make(served, input="What is my name?")
    grown = alone["usage"]["input_tokens"] + first["usage"]["output_tokens"]
    expect(second["usage"]["input_tokens"] >= grown, "the conversation before is not part of the prompt")
    unkept = await _make(served, store=False)
    _is_404(await served.request("GET", f"{PATH}/{unkept['id']}"), "one that was not stored")
    gone = await served.request("DELETE", f"{PATH}/{first['id']}")
    same(gone.status, 200, "the status of a deletion")
    same(gone.json()["deleted"], True, "`deleted`")
    _is_404(await served.request("GET", f"{PATH}/{first['id']}"), "one that was deleted")
    _is_404(await served.request("DELETE", f"{PATH}/{first['id']}"), "the deletion of one that was deleted")
    reply = await served.request(
        "POST", PATH, json={"model": served.model, "input": "a", "previous_response_id": "resp_of_nobody"}
    )
    expect(reply.status in {400, 404}, f"an unknown `previous_response_id` answers {reply.status}")
    error_of(reply)


@GROUP.check("responses cancel", "background|cancel")
async def responses_cancel(served: Served) -> None:
    _is_404(await served.request("POST", f"{PATH}/resp_of_nobody/cancel"), "the cancellation of nothing")
    body = await _make(served, input="Tell me a long story. " * 20, max_output_tokens=1000, background=True)
    expect(body["status"] in {"queued", "in_progress"}, f"a response in the background begins as {body['status']!r}")
    cancelled = await served.request("POST", f"{PATH}/{body['id']}/cancel")
    same(cancelled.status, 200, f"the status of a cancellation ({cancelled.text[:200]})")
    deadline = time.monotonic() + 10
    # One that was over already stays what it was.
    while (status := (await served.get(f"{PATH}/{body['id']}"))["status"]) not in {
        "cancelled",
        "completed",
        "incomplete",
    }:
        expect(time.monotonic() < deadline, f"ten seconds after its cancellation it is {status!r}")
        await asyncio.sleep(0.1)


@GROUP.check("responses tools", "tool")
async def responses_tools(served: Served) -> None:
    tools = [{"type": "function", **tool["function"]} for tool in TOOLS]
    body = await _make(served, input=ASK, tools=tools, tool_choice="required", max_output_tokens=200)
    calls = [item for item in body["output"] if item["type"] == "function_call"]
    expect(calls, f"no call among {[item['type'] for item in body['output']]}")
    for call in calls:
        expect(call["call_id"], "a call without `call_id`")
        expect(call["name"] in {"get_weather", "get_time"}, f"the name {call['name']!r}")
        check_arguments(call["arguments"])
    answered = [
        {"role": "user", "content": ASK},
        calls[0],
        {"type": "function_call_output", "call_id": calls[0]["call_id"], "output": "sunny"},
    ]
    expect(text_of(await _make(served, input=answered, tools=tools, tool_choice="none")), "no words after the result")


@GROUP.check("responses json_schema", "format|json|structured")
async def responses_schema(served: Served) -> None:
    text = {"format": {"type": "json_schema", "name": "city", "strict": True, "schema": SCHEMA}}
    check_city(text_of(await _make(served, input="Tell me of a city.", text=text, max_output_tokens=120)))


def _is_404(reply: Reply, what: str) -> None:
    same(reply.status, 404, f"the status of {what}")
    error_of(reply)
