"""Structured outputs: what must parse parses, what must match matches, at any temperature."""

from __future__ import annotations

import json
import re
from typing import Any

from gateway.testing.conformance.chat import CHAT, chunks_of
from gateway.testing.conformance.check import Group, expect, refuses, same
from gateway.testing.conformance.completions import COMPLETIONS
from gateway.testing.served import Served, chat_body

GROUP = Group("guided")
FEATURE = "response_format|structured_outputs|json|regex|choice|guided"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Paris", "Rome"]},
        "capital": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string", "enum": ["big", "old"]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["city", "capital", "tags"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": SCHEMA}}


def check_city(text: str) -> None:
    """A text that obeys SCHEMA."""
    value = json.loads(text)
    same(set(value), {"city", "capital", "tags"}, "the object's names")
    expect(value["city"] in {"Paris", "Rome"}, f"the city {value['city']!r} is not in the enumeration")
    expect(isinstance(value["capital"], bool), f"{value['capital']!r} is no boolean")
    expect(set(value["tags"]) <= {"big", "old"} and 1 <= len(value["tags"]) <= 2, f"the tags are {value['tags']!r}")


@GROUP.check("json_object", FEATURE)
async def json_object(served: Served) -> None:
    question = "Answer with a short JSON object that has the key `capital`. What is the capital of France?"
    finished = 0
    # Nothing in an open grammar makes a small model come to an end: a few tries, of which one must.
    for seed in range(4):
        body = await served.chat(
            question, response_format={"type": "json_object"}, max_tokens=120, temperature=0.8 * (seed > 0), seed=seed
        )
        choice = body["choices"][0]
        expect(choice["message"]["content"].lstrip().startswith("{"), f"no object: {choice['message']['content']!r}")
        if choice["finish_reason"] == "stop":
            finished += 1
            expect(isinstance(json.loads(choice["message"]["content"]), dict), "the JSON is no object")
            break
    expect(finished, "four tries came to no end of the object")


@GROUP.check("json_schema", FEATURE)
async def json_schema(served: Served) -> None:
    for fields in ({}, {"temperature": 1.5, "seed": 1}, {"temperature": 1.5, "seed": 2}):
        body = await served.chat("Tell me of a city.", response_format=FORMAT, max_tokens=60, **fields)
        same(body["choices"][0]["finish_reason"], "stop", "`finish_reason`: the text has no end; it")
        check_city(body["choices"][0]["message"]["content"])
    fields = {"response_format": FORMAT, "max_tokens": 60}
    chunks = chunks_of(await served.stream(CHAT, **chat_body("Tell me of a city.", fields)))
    check_city("".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]))
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}
    await refuses(served, CHAT, 400, **chat_body("a", {"response_format": bad, "max_tokens": 4}))
    await refuses(served, CHAT, 400, **chat_body("a", {"response_format": {"type": "nothing"}, "max_tokens": 4}))


@GROUP.check("regex", FEATURE)
async def regex(served: Served) -> None:
    pattern = r"[A-Z]{3}-[0-9]{4}"
    for path in (CHAT, COMPLETIONS):
        for fields in ({"temperature": 0}, {"temperature": 1.5, "seed": 3}):
            asked: dict[str, Any] = {"structured_outputs": {"regex": pattern}, "max_tokens": 30, **fields}
            text = await _text(served, path, asked)
            expect(re.fullmatch(pattern, text), f"{text!r} does not match {pattern}")
    await refuses(served, CHAT, 400, **chat_body("a", {"structured_outputs": {"regex": "(("}, "max_tokens": 4}))


@GROUP.check("choice", FEATURE)
async def choice(served: Served) -> None:
    choices = ["positive", "negative", "neither"]
    for path in (CHAT, COMPLETIONS):
        for fields in ({"temperature": 0}, {"temperature": 1.5, "seed": 3}):
            asked: dict[str, Any] = {"structured_outputs": {"choice": choices}, "max_tokens": 20, **fields}
            text = await _text(served, path, asked)
            expect(text in choices, f"{text!r} is none of {choices}")
    await refuses(served, CHAT, 400, **chat_body("a", {"structured_outputs": {"choice": []}, "max_tokens": 4}))


async def _text(served: Served, path: str, fields: dict[str, Any]) -> str:
    prompt = "Is this a good day? A code for it:"
    if path == CHAT:
        return (await served.chat(prompt, **fields))["choices"][0]["message"]["content"]
    return (await served.complete(prompt, **fields))["choices"][0]["text"]
