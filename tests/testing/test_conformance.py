"""The conformance suite itself: it passes what is right, tells a refusal from a failure, and sees through each lie."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from gateway.errors import ConfigError
from gateway.testing.conformance import GROUPS, Result, report, run
from gateway.testing.conformance.run import choose
from gateway.testing.served import find
from gateway.types import ASGIApp, Message, Receive, Scope, Send

CHECKS = {check.name: check for group in GROUPS for check in group.checks}


class Forgetful:
    """A server that ignores fields of every request, as many do."""

    def __init__(self, app: ASGIApp, fields: str) -> None:
        self._app = app
        self._fields = fields.split()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def forgetting() -> Message:
            message = await receive()
            try:
                body = msgspec.json.decode(message.get("body", b""))
            except msgspec.DecodeError:
                return message
            for field in self._fields:
                if isinstance(body, dict):
                    body.pop(field, None)
            return {**message, "body": msgspec.json.encode(body)}

        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        await self._app({**scope, "headers": headers}, forgetting, send)


class Twisted:
    """A server whose answers say something else."""

    def __init__(self, app: ASGIApp, pattern: bytes, instead: bytes) -> None:
        self._app = app
        self._pattern = pattern
        self._instead = instead

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def twisting(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, value) for name, value in message["headers"] if name != b"content-length"]
                message = {**message, "headers": headers}
            elif message.get("body"):
                message = {**message, "body": re.sub(self._pattern, self._instead, message["body"])}
            await send(message)

        await self._app(scope, receive, twisting)


@pytest.mark.parametrize("at_once", [1, 8])
async def test_the_echo_engine_fails_nothing_that_an_engine_is_asked(echo: Any, at_once: int) -> None:
    checks = choose(("chat", "completions", "sampling", "scoring", "tokens", "tools", "guided", "failures"))
    async with echo() as served:
        results = (await run([served], checks, at_once=at_once))["echo"]
    assert [one.name for one in results] == [check.name for check in checks]
    assert [(one.name, one.reason) for one in results if one.outcome == "fail"] == []
    passed = {one.name for one in results if one.outcome == "pass"}
    assert passed >= {"chat", "chat stream", "echo logprobs", "stop spans tokens", "ids prompts", "usage", "errors"}


@pytest.mark.parametrize(
    ("field", "check"),
    [
        ("stream", "chat stream"),
        ("n", "n choices"),
        ("stop", "stop"),
        ("stop", "stop spans tokens"),
        ("stream_options", "usage"),
        ("ignore_eos", "ignore_eos"),
        ("max_tokens", "usage"),
        ("logprobs", "logprobs"),
        ("top_logprobs", "chat logprobs"),
        ("echo", "echo logprobs"),
        ("prompt_logprobs", "prompt_logprobs"),
        ("add_special_tokens", "tokenize"),
        ("logit_bias", "logit_bias"),
        ("min_p", "min_p"),
        ("min_tokens", "min_tokens"),
        ("frequency_penalty", "penalties"),
        ("best_of", "best_of refused"),
        ("tools tool_choice", "tools: required"),
        ("tools tool_choice", "tools: named"),
        ("tools tool_choice", "tools: stream"),
        ("response_format", "json_schema"),
        ("response_format", "json_object"),
        ("structured_outputs", "regex"),
        ("structured_outputs", "choice"),
        ("continue_final_message", "continue_final_message"),
        ("add_generation_prompt", "chat_template_kwargs"),
        ("return_token_ids", "return_token_ids"),
        ("model", "errors"),
        ("temperature", "errors"),
    ],
)
async def test_a_server_that_ignores_a_field_fails_its_check(echo: Any, field: str, check: str) -> None:
    async with echo(lambda app: Forgetful(app, field)) as served:
        result = await CHECKS[check](served)
    assert result.outcome == "fail", result
    assert result.reason


@pytest.mark.parametrize(
    ("pattern", "instead", "check"),
    [
        (rb"\[DONE\]", b"[OVER]", "stream ends with [DONE]"),
        (rb"data: \[DONE\]\n\n", b"", "chat stream"),
        (rb'"finish_reason":"length"', b'"finish_reason":"end"', "chat"),
        (rb'"prompt_tokens":', b'"prompt_tokens":1', "usage"),
        (rb'"token_logprobs":\[null', b'"token_logprobs":[-0.1', "echo logprobs"),
        (rb'"code":"model_not_found"', b'"code":null', "errors"),
        (rb'"error":\{', b'"detail":{', "errors"),
        (rb'"code":"context_length_exceeded"', b'"code":null', "context overflow"),
        (rb'"eos_token":"[^"]*"', b'"eos_token":"two tokens"', "tokenizer_info"),
        (rb'"count":', b'"count":1', "tokenize"),
        (rb'"prompt":"', b'"prompt":" ', "detokenize"),
        (rb'"owned_by":"[^"]*",', b"", "models"),
        (rb'"role":"assistant",', b"", "chat stream"),
        (rb'"tokens":', b'"token":', "logprobs"),
    ],
)
async def test_an_answer_that_says_something_else_fails(echo: Any, pattern: bytes, instead: bytes, check: str) -> None:
    async with echo(lambda app: Twisted(app, pattern, instead)) as served:
        assert (await CHECKS[check](served)).outcome == "fail"


async def test_a_refusal_names_engine_and_feature_or_it_is_a_failure(echo: Any) -> None:
    async with echo() as served:
        assert (await CHECKS["regex"](served)).outcome == "refused"
    for said in (b"not here", b"the echo engine cannot", b"no structured_outputs"):
        async with echo(lambda app, said=said: Twisted(app, rb'"message":"[^"]*","type":"[^"]*","param":"[^"]*"',
                        b'"message":"%s","type":"x","param":null' % said)) as served:  # fmt: skip
            assert (await CHECKS["regex"](served)).outcome == "fail"


async def test_a_server_that_breaks_is_a_failure_with_its_reason(echo: Any) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise OSError("gone")

    async with echo() as served:
        pass
    async with echo(lambda app: lambda scope, receive, send: (broken if scope["method"] == "POST" else app)(
                    scope, receive, send)) as served:  # fmt: skip
        result = await CHECKS["chat"](served)
    assert (result.outcome, "500" in result.reason) == ("fail", True)


async def test_unknown_models_and_groups_are_named(echo: Any) -> None:
    async with echo() as served:
        with pytest.raises(ConfigError, match=r"no model nobody .*there are: echo"):
            await find(served.http, served.url, ["nobody"])
    with pytest.raises(ConfigError, match="no group or check teapots; groups are: chat"):
        choose(["teapots"])


def test_the_report_says_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    results = {
        "a": [Result("chat", "chat", "pass"), Result("tools", "tools: auto", "refused", "the a engine has no [tools]")],
        "b": [Result("chat", "chat", "fail", "empty"), Result("tools", "tools: auto", "n/a")],
    }
    assert report.failed(results)
    assert report.markdown(results).splitlines() == [
        "| feature | a | b |",
        "|---|---|---|",
        "| chat | ✓ | ✗ |",
        "| tools: auto | refused | – |",
    ]
    assert report.as_json(results)["models"]["b"][0]["reason"] == "empty"
    report.show(results)
    told = capsys.readouterr().out
    assert "the a engine has no [tools]" in told
    assert "1 pass, 1 refused, 1 fail, 1 n/a" in told


def test_every_check_has_a_name_of_its_own() -> None:
    names = [check.name for group in GROUPS for check in group.checks]
    assert len(names) == len(set(names)) >= 50
