"""Thoughts apart from answers: in streams and whole, under both names, and with a grammar that holds for the answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.backend import BackendContext
from gateway.config import ModelSpec
from gateway.engine import Delta, EngineInfo
from gateway.errors import ConfigError
from gateway.openai import build_app, engine_info
from gateway.openai.grammar import regex
from gateway.openai.guidance import of_bytes
from gateway.openai.reading import Said
from gateway.openai.reasoning import AfterThought, ReasoningReader
from gateway.testing import AppClient
from gateway_echo.tokenizer import ByteTokenizer

CHAT = "/v1/chat/completions"


def read(parser: str, prompt: str, text: str, size: int) -> tuple[str, str]:
    reader = ReasoningReader(parser, prompt)
    said: list[Said] = []
    for at in range(0, len(text), size):
        said += reader.push(text[at : at + size])
    said += reader.flush()
    return tuple("".join([each.text for each in said if each.kind == kind]) for kind in ("reasoning", "content"))  # type: ignore[return-value]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("parser", "prompt", "text", "expected"),
    [
        ("qwen3", "", "<think>\nhm < 3\n</think>\n\nYes", ("\nhm < 3\n", "\n\nYes")),
        ("qwen3", "", "Yes </think>", ("", "Yes </think>")),
        ("qwen3", "user<think>\n", "hm</think>Yes", ("hm", "Yes")),
        ("qwen3", "", "<think>never ends </thi", ("never ends </thi", "")),
        ("deepseek_r1", "", "hm</think>Yes", ("hm", "Yes")),
        ("deepseek_r1", "", "<think>hm</think>Yes", ("hm", "Yes")),
        ("qwen3", "", "<thin", ("", "<thin")),
        ("qwen3", "", "", ("", "")),
    ],
)
def test_a_thought_ends_at_its_mark(parser: str, prompt: str, text: str, expected: Any, size: int) -> None:
    assert read(parser, prompt, text, size) == expected


@pytest.mark.parametrize("stream", [False, True])
async def test_both_names_reach_the_client(dictate: Any, stream: bool) -> None:
    engine, _ = dictate(Delta(list(b"<think>hm</think>"), None, None), Delta(list(b"Yes"), None, "stop"))
    client = AppClient(build_app(engine, EngineInfo("m", engine="dictated", reasoning_parser="qwen3")))
    answer = await client.post(CHAT, {"messages": [{"role": "user", "content": "?"}], "stream": stream})
    if stream:
        said = [event["choices"][0]["delta"] for event in answer.events()]
        assert said[0]["role"] == "assistant"
    else:
        said = [answer.json()["choices"][0]["message"]]
    for name, text in (("reasoning", "hm"), ("reasoning_content", "hm"), ("content", "Yes")):
        assert "".join([each.get(name) or "" for each in said]) == text


async def test_a_grammar_holds_once_the_thought_is_over() -> None:
    tokenizer = ByteTokenizer()
    constraint = (await of_bytes().compile(regex("ab", "response_format"), "response_format"))()
    guarded = AfterThought(constraint, "</think>", tokenizer)
    mask = np.zeros((tokenizer.vocab_size + 31) // 32, np.int32)

    def allowed() -> list[int]:
        guarded.allow(mask)
        return [token for token in range(len(mask) * 32) if mask[token // 32] >> (token % 32) & 1]

    assert len(allowed()) == tokenizer.vocab_size
    for token in b"zz</think>":
        guarded.accept(token)
    assert allowed() == [ord("a")]
    guarded.accept(ord("a"))
    assert allowed() == [ord("b")]


def test_a_parser_that_there_is_none_of_is_an_error_of_the_config() -> None:
    spec = ModelSpec(backend="echo", reasoning_parser="mind")
    with pytest.raises(ConfigError, match=r"models\.m\.reasoning_parser: the echo backend knows deepseek_r1"):
        engine_info(BackendContext(name="m", spec=spec, model_path=None), "echo")
