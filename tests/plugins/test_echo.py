"""The echo backend keeps the contract, echoes, and fails as it is told."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backend import BackendContext
from gateway.config import AdaptersSpec, ModelSpec
from gateway.errors import AdapterError, ConfigError, Unavailable
from gateway.openai.chat_template import ChatTemplate
from gateway.plugins import load
from gateway.testing import AppClient, BackendContract
from gateway.types import AdapterFiles
from gateway_echo.engine import LIKELY, UNLIKELY
from gateway_echo.tokenizer import ECHO, ByteTokenizer

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def context(**options: Any) -> BackendContext:
    return BackendContext("parrot", ModelSpec(backend="echo", options=options, max_model_len=4096), None)


def roomy(**options: Any) -> BackendContext:
    return BackendContext("parrot", ModelSpec(backend="echo", options=options, adapters=AdaptersSpec()), None)


def client(**options: Any) -> AppClient:
    return AppClient(load().backend("echo").factory(context(**options)).app)


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


def adapter(folder: Path, says: str) -> AdapterFiles:
    (folder / says).mkdir()
    (folder / says / "adapter_config.json").write_text(json.dumps({"says": says}))
    return AdapterFiles(f"parrot:{says}", folder / says, "", 4)


class TestContract(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def context(cls) -> BackendContext:
        return context(delay_ms=1)


class TestContractWithAdapters(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def context(cls) -> BackendContext:
        return roomy(delay_ms=1)

    @pytest.fixture(scope="class")
    @classmethod
    def adapters(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[AdapterFiles]:
        folder = tmp_path_factory.mktemp("adapters")
        return adapter(folder, "aye"), adapter(folder, "nay")


async def test_an_adapter_speaks_first(tmp_path: Path) -> None:
    backend = load().backend("echo").factory(roomy())
    await backend.load_adapter(adapter(tmp_path, "aye"))
    client = AppClient(backend.app)
    body = (await client.post(CHAT, {"model": "parrot:aye", "messages": user("ahoy"), "ignore_eos": True})).json()
    assert body["model"] == "parrot:aye"
    assert body["choices"][0]["message"]["content"].startswith("aye: ahoyaye: ahoy")
    row = (await client.get("/v1/models/parrot:aye")).json()
    assert (row["id"], row["parent"], row["root"]) == ("parrot:aye", "parrot", "parrot:aye")
    wrong = await client.post("/v1/models/parrot:aye", {})
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET")
    missing = (await client.post(CHAT, {"model": "parrot:nay", "messages": user("ahoy")})).json()["error"]
    assert missing["message"] == "no model 'parrot:nay'; there is 'parrot', 'parrot:aye'"
    assert (missing["code"], missing["param"]) == ("model_not_found", "model")


async def test_an_adapter_can_be_told_to_fail(tmp_path: Path) -> None:
    backend = load().backend("echo").factory(roomy(fail="load"))
    with pytest.raises(AdapterError, match="told to take no adapter"):
        await backend.load_adapter(adapter(tmp_path, "aye"))
    answer = await AppClient(backend.app).post(CHAT, {"messages": user("hi")})
    assert answer.json()["choices"][0]["message"]["content"] == "hi"


@given(st.text(max_size=60).filter(lambda text: "<|" not in text))
@settings(max_examples=50, deadline=None)
async def test_says_what_it_is_told(text: str) -> None:
    body = (await client().post(CHAT, {"messages": user(text)})).json()
    assert body["choices"][0]["message"]["content"] == text
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == len(text.encode()) + 1


async def test_repeats_the_last_user_message_whoever_spoke_last() -> None:
    messages = [*user("first"), {"role": "user", "content": "second"}, {"role": "assistant", "content": "third"}]
    body = (await client().post(CHAT, {"messages": messages})).json()
    assert body["choices"][0]["message"]["content"] == "second"


async def test_goes_on_past_its_end_when_it_is_to_be_ignored() -> None:
    asked = {"messages": user("ab"), "ignore_eos": True, "max_tokens": 8}
    body = (await client().post(CHAT, asked)).json()
    assert body["choices"][0]["message"]["content"] == "ababab"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 8


async def test_continues_an_echo_that_has_begun() -> None:
    prompt = ByteTokenizer().encode("abcdef") + list(b"abc")
    body = (await client().post(COMPLETIONS, {"prompt": [prompt]})).json()
    assert body["choices"][0]["text"] == "def"


async def test_its_template_says_what_it_renders() -> None:
    tokenizer = ByteTokenizer()
    template = ChatTemplate(tokenizer.chat_template or "")
    for messages in (user("hi"), [*user("hi"), {"role": "assistant", "content": "ho"}]):
        assert template.render(messages) == tokenizer.render_chat(messages)
        shown = template.render(messages, add_generation_prompt=False)
        assert shown == tokenizer.render_chat(messages, add_generation_prompt=False)


@given(st.lists(st.integers(0, ByteTokenizer.vocab_size - 1), min_size=1, max_size=30), st.booleans())
@settings(max_examples=50, deadline=None)
async def test_scores_its_own_answers_as_likely(prompt: list[int], ignore_eos: bool) -> None:
    asked = {"prompt": prompt, "max_tokens": 12, "ignore_eos": ignore_eos, "logprobs": 0}
    made = (await client().post(COMPLETIONS, asked)).json()["choices"][0]["logprobs"]
    assert set(made["token_logprobs"]) == {LIKELY}
    special = {"<|start|>": 256, "<|echo|>": ECHO, "<|end|>": 258}
    # Bytes that are no character are shown as U+FFFD and cannot be read back.
    if "\ufffd" in made["tokens"]:
        return
    answer = [token for text in made["tokens"] for token in ([special[text]] if text in special else text.encode())]
    scored = {"prompt": prompt + answer, "max_tokens": 0, "echo": True, "logprobs": 0}
    logprobs = (await client().post(COMPLETIONS, scored)).json()["choices"][0]["logprobs"]["token_logprobs"]
    assert logprobs[len(prompt) :] == [LIKELY] * len(answer)
    assert set(logprobs[1 : len(prompt)]) <= {LIKELY, UNLIKELY}


async def test_takes_its_time() -> None:
    started = time.monotonic()
    await client(delay_ms=10, first_delay_ms=50).post(COMPLETIONS, {"prompt": "abcd", "max_tokens": 4})
    assert time.monotonic() - started >= 0.09


async def test_gives_all_tokens_at_once_without_a_delay() -> None:
    answer = await client().post(CHAT, {"messages": user("hello"), "stream": True})
    assert len(answer.chunks) == 1
    assert len(answer.events()) == 5


@pytest.mark.parametrize("fail,status", [("always", 503), (429, 429), (500, 500), (418, 418)])
async def test_fails_as_it_is_told(fail: str | int, status: int) -> None:
    for body in ({"messages": user("hi")}, {"messages": user("hi"), "stream": True}):
        answer = await client(fail=fail).post(CHAT, body)
        assert answer.status == status
        assert "told to" in answer.json()["error"]["message"]


async def test_fails_in_the_middle_of_a_stream() -> None:
    answer = await client(fail_after=2).post(CHAT, {"messages": user("hello"), "stream": True})
    assert answer.status == 200
    *said, error = answer.events()
    assert "".join(event["choices"][0]["delta"]["content"] for event in said) == "he"
    assert error["error"]["type"] == "service_unavailable_error"


async def test_never_starts_when_it_is_told_not_to() -> None:
    backend = load().backend("echo").factory(context(fail="start"))
    with pytest.raises(Unavailable, match="not to start"):
        await backend.start()
    await backend.stop()


@pytest.mark.parametrize(
    "options,path",
    [
        ({"speed": 1}, "models.parrot.options.speed"),
        ({"delay_ms": "1"}, "models.parrot.options.delay_ms"),
        ({"delay_ms": -1}, "models.parrot.options.delay_ms"),
        ({"fail": "sometimes"}, "models.parrot.options.fail"),
        ({"fail": 200}, "models.parrot.options.fail"),
    ],
)
def test_refuses_options_that_it_does_not_know(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load().backend("echo").factory(context(**options))
    assert path in caught.value.message


async def test_health_counts_what_is_running() -> None:
    asked = client(delay_ms=5)
    body = {"prompt": "a long text " * 20, "max_tokens": 200, "stream": True}
    async with asked.open("POST", COMPLETIONS, body) as exchange:
        await exchange.next_body()
        assert (await asked.get("/health")).json() == {"status": "ok", "running": 1}
    assert (await asked.get("/health")).json() == {"status": "ok", "running": 0}
