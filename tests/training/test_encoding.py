"""Training reads what serving reads: prompts to the token, and answers from their first token to their end."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.openai.tokenizer import HuggingFaceTokenizer
from gateway_training.encoding import Example, batch_of, encode, split
from gateway_training.options import TrainingOptions, read_options
from gateway_training.rows import read_rows
from tests.training.conftest import Write, chat


@pytest.fixture(scope="session")
def tokenizer(smollm2_folder: Path) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(smollm2_folder)


def learned(example: Example, tokenizer: HuggingFaceTokenizer) -> str:
    ids = [token for token, wanted in zip(example.ids, example.learned, strict=True) if wanted]
    return tokenizer.decode(ids, skip_special_tokens=False)


def encoded(path: Path, tokenizer: HuggingFaceTokenizer, **options: object) -> list[Example]:
    return encode(read_rows(path), tokenizer, read_options(**options))


def test_a_chat_row_is_the_prompt_that_is_served_and_then_its_answer(
    write_rows: Write, tokenizer: HuggingFaceTokenizer
) -> None:
    row = chat("Where is my parcel?", '{"intent": "delivery"}')
    (example,) = encoded(write_rows([row]), tokenizer)
    prompt = tokenizer.encode(tokenizer.render_chat(row["messages"][:1]), add_special_tokens=False)
    assert list(example.ids[: example.first]) == prompt
    assert learned(example, tokenizer) == '{"intent": "delivery"}<|im_end|>'


def test_every_answer_of_a_conversation_is_learned_but_those_without_weight(
    write_rows: Write, tokenizer: HuggingFaceTokenizer
) -> None:
    messages = chat("One?", "1.")["messages"] + chat("Two?", "2.")["messages"] + chat("Three?", "3.")["messages"]
    messages[3]["weight"] = 0
    (example,) = encoded(write_rows([{"messages": messages}]), tokenizer)
    assert learned(example, tokenizer) == "1.<|im_end|>3.<|im_end|>"
    whole = tokenizer.render_chat(messages, add_generation_prompt=False)
    assert list(example.ids) == tokenizer.encode(whole.rstrip(), add_special_tokens=False)


def test_prompt_and_completion_are_plain_text_or_on_request_a_chat(
    write_rows: Write, tokenizer: HuggingFaceTokenizer
) -> None:
    path = write_rows([{"prompt": "1, 2,", "completion": " 3"}])
    (plain,) = encoded(path, tokenizer)
    assert tokenizer.decode(plain.ids, skip_special_tokens=False) == "1, 2, 3<|im_end|>"
    assert learned(plain, tokenizer) == " 3<|im_end|>"
    (asked,) = encoded(path, tokenizer, as_chat=True)
    assert "<|im_start|>user\n1, 2,<|im_end|>" in tokenizer.decode(asked.ids, skip_special_tokens=False)


def test_rows_that_do_not_fit_join_the_bad_ones(write_rows: Write, tokenizer: HuggingFaceTokenizer) -> None:
    silent = chat("a", "b")
    silent["messages"][1]["weight"] = 0
    monologue = {"messages": [{"role": "assistant", "content": "b"}]}
    rows = read_rows(write_rows([chat("a", "b"), chat("word " * 80, "b"), silent, monologue]))
    examples = encode(rows, tokenizer, TrainingOptions(max_length=64))
    assert len(examples) == len(rows.good) == 1
    assert {bad.line: bad.reason.split(",")[0] for bad in rows.bad} == {
        2: "has 113 tokens",
        3: "messages: no answer has a weight above 0: there is nothing to learn",
        4: "messages: the first one is an answer to nothing",
    }


def examples_of(texts: str) -> list[Example]:
    return [Example((1, ord(letter)), (False, True)) for letter in texts]


def test_rows_that_say_the_same_are_never_on_both_sides() -> None:
    rows = examples_of("aaabbbcccdddeeefffggg")
    for seed in range(20):
        learn, measure = split(rows, 0.2, seed)
        assert sorted(map(repr, learn + measure)) == sorted(map(repr, rows))
        assert not set(learn) & set(measure)
        assert 1 <= len(measure) <= 6
    assert split(rows, 0.2, 3) == split(rows, 0.2, 3)
    assert len({tuple(split(rows, 0.2, seed)[1]) for seed in range(20)}) > 1
    with pytest.raises(ConfigError, match="too few to learn from and to measure on"):
        split(examples_of("aaaa"), 0.2, 0)


def test_every_row_is_seen_once_an_epoch_in_an_order_of_its_own() -> None:
    options = TrainingOptions(batch_size=4, seed=5)
    epochs = [[place for step in range(3) for place in batch_of(step + 3 * epoch, 10, options)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert batch_of(7, 10, options) != batch_of(7, 10, TrainingOptions(batch_size=4, seed=6))


def test_options_that_cannot_be_are_named_as_on_the_command_line() -> None:
    with pytest.raises(ConfigError) as raised:
        read_options(rank=0, learning_rate=-1.0, device="tpu", epochs=None)
    assert [line.split(":")[0] for line in raised.value.message.splitlines()] == [
        "--rank",
        "--learning-rate",
        "--device",
    ]


def test_the_rate_rises_and_falls() -> None:
    options = TrainingOptions(learning_rate=0.5, batch_size=2, epochs=2)
    steps = options.steps(20)
    rates = [options.rate(step, steps) for step in range(steps)]
    assert steps == 20
    assert rates[:2] == [0.25, 0.5]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.05
    assert options.model_copy(update={"max_steps": 3}).steps(20) == 3
