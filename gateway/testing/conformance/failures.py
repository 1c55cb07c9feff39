"""What cannot be answered: a clear 4xx in OpenAI's shape that names the field, and never a 500."""

from __future__ import annotations

from typing import Any

from gateway.testing.conformance.chat import CHAT
from gateway.testing.conformance.check import Group, NotApplicable, error_of, expect, refuses, same
from gateway.testing.conformance.completions import COMPLETIONS, PROMPT
from gateway.testing.served import Served, chat_body

GROUP = Group("failures")


@GROUP.check("errors", "error")
async def errors(served: Served) -> None:
    broken = await served.request("POST", COMPLETIONS, json=b'{"prompt": ')
    same(broken.status, 400, "the status of a broken body")
    error_of(broken)
    deep = await served.request("POST", COMPLETIONS, json=b"[" * 50_000)
    same(deep.status, 400, "the status of a body that is nested without an end")
    error_of(deep)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"prompt": []}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [[-1]]}, "prompt"),
        ({"stop": 7}, "stop"),
    )
    for fields, param in wrong:
        asked: dict[str, Any] = {"prompt": PROMPT, **fields}
        await refuses(served, COMPLETIONS, 400, None if param == "prompt" else param, **asked)
    await refuses(served, CHAT, 400, "messages", messages="hello")
    await refuses(served, CHAT, 400, "messages", messages=[])
    nobody = await served.request("POST", COMPLETIONS, json={"model": "no-such-model", "prompt": PROMPT})
    same(nobody.status, 404, "the status of an unknown model")
    same(error_of(nobody)["code"], "model_not_found", "`code`")
    page = await served.request("POST", "/v1/no/such/page", json={"model": served.model})
    same(page.status, 404, "the status of an unknown page")
    error_of(page)
    method = await served.request("DELETE", COMPLETIONS)
    expect(method.status in {404, 405}, f"DELETE {COMPLETIONS} answers {method.status}")
    error_of(method)
    # It still answers.
    expect((await served.complete(PROMPT, max_tokens=1))["choices"], "no choices after all this")


@GROUP.check("context overflow", "context")
async def context_overflow(served: Served) -> None:
    if not served.max_model_len:
        raise NotApplicable("the server does not say how long the context is")
    long = "word " * (served.max_model_len + 1)
    too_long: tuple[tuple[str, dict[str, Any]], ...] = (
        (COMPLETIONS, {"prompt": long, "max_tokens": 1}),
        (CHAT, chat_body(long, {"max_tokens": 1})),
        (COMPLETIONS, {"prompt": PROMPT, "max_tokens": served.max_model_len}),
        # Both would fit alone.
        (COMPLETIONS, {"prompt": PROMPT, "max_tokens": served.max_model_len - 1}),
        (CHAT, chat_body(PROMPT, {"max_tokens": served.max_model_len - 1})),
    )
    for path, fields in too_long:
        error = await refuses(served, path, 400, **fields)
        same(error["code"], "context_length_exceeded", "`code`")


@GROUP.check("unknown fields", "unknown")
async def unknown_fields(served: Served) -> None:
    strange: dict[str, Any] = {"user": "u-1", "metadata": {"a": "b"}, "x_unknown": [1, {"y": None}], "stop": []}
    plain = (await served.complete(PROMPT, max_tokens=3))["choices"][0]["text"]
    same((await served.complete(PROMPT, max_tokens=3, **strange))["choices"][0]["text"], plain, "with unknown fields")
    plain = (await served.chat(PROMPT, max_tokens=3))["choices"][0]["message"]["content"]
    with_them = await served.chat(PROMPT, max_tokens=3, service_tier="auto", **strange)
    same(with_them["choices"][0]["message"]["content"], plain, "with unknown fields, in a chat")


@GROUP.check("limits", "limit")
async def limits(served: Served) -> None:
    await refuses(served, COMPLETIONS, 400, "n", prompt=PROMPT, n=1_000_000, max_tokens=1)
    await refuses(served, COMPLETIONS, 400, "logprobs", prompt=PROMPT, logprobs=1_000_000, max_tokens=1)
    await refuses(served, COMPLETIONS, 400, prompt=PROMPT, max_tokens=10**15)
    await refuses(served, COMPLETIONS, 400, prompt=PROMPT, max_tokens=1, stop=[f"s{number}" for number in range(5000)])
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        deep = {"type": "object", "properties": {"a": deep}}
    wide = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(50_000)}}
    for schema in (deep, wide):
        kind: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        await refuses(served, CHAT, 400, **chat_body("a", {"response_format": kind, "max_tokens": 4}))
    regex: dict[str, Any] = {"regex": "(a|b)" * 50_000}
    await refuses(served, CHAT, 400, **chat_body("a", {"structured_outputs": regex, "max_tokens": 4}))
