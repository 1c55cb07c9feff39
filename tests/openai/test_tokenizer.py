"""The tokenizer of the real model says what Transformers' own says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.openai.tokenizer import HuggingFaceTokenizer

TEXTS = [
    "",
    "What is the capital of France?",
    "naïve ☃ 日本語 \U0001f600",
    "  two  spaces\n\n\ttab",
    "<|im_end|>x<|im_start|>",
]
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Bye ☃"},
    ],
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ours(smollm2_folder: Path) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(smollm2_folder)


@pytest.fixture(scope="module")
def theirs(smollm2_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2_folder)


@pytest.mark.parametrize("text", TEXTS)
def test_encodes_and_decodes_alike(ours: HuggingFaceTokenizer, theirs: Any, text: str) -> None:
    for special in (True, False):
        assert ours.encode(text, add_special_tokens=special) == theirs.encode(text, add_special_tokens=special)
    ids = ours.encode(text)
    for skip in (True, False):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    stream = ours.decode_stream()
    assert "".join([stream.step([token]) for token in ids]) + stream.flush() == ours.decode(ids)


@pytest.mark.parametrize("messages", CHATS)
@pytest.mark.parametrize("go", [True, False])
def test_renders_chats_alike(ours: HuggingFaceTokenizer, theirs: Any, messages: Any, go: bool) -> None:
    expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=go)
    assert ours.render_chat(messages, add_generation_prompt=go) == expected


def test_knows_its_special_tokens(ours: HuggingFaceTokenizer, theirs: Any) -> None:
    assert (ours.bos_token, ours.eos_token, ours.pad_token) == (theirs.bos_token, theirs.eos_token, theirs.pad_token)
    assert ours.eos_token_ids == {theirs.eos_token_id}
    assert ours.vocab_size == len(theirs)
    assert ours.encode("<|im_end|>", add_special_tokens=False) == [theirs.eos_token_id]


def test_every_token_has_its_bytes(ours: HuggingFaceTokenizer, theirs: Any) -> None:
    for token in range(ours.vocab_size):
        assert ours.token_text(token) == theirs.decode([token]), token


def test_needs_neither_torch_nor_transformers(smollm2_folder: Path) -> None:
    code = (
        "import sys, pathlib; from gateway.openai.tokenizer import HuggingFaceTokenizer;"
        "HuggingFaceTokenizer(pathlib.Path(sys.argv[1]));"
        "print(sorted({'torch', 'transformers', 'ray', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(smollm2_folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
